"""The released layouts of Flash-VL 2B (arXiv 2505.09498): static, dynamic, and dynamic with semantic stitching.

Their config.json holds the settings of tower and decoder; how pictures are cut and conversations rendered stands in the
code beside it, so that comes from the presets. The adapter tells the variants apart: it reads four patches side by side
or single ones. The tower of the dynamic ones is written under the names of Apple's code and read under transformers'
names too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2Config

from saccade import presets
from saccade.checkpoint.files import read_json
from saccade.checkpoint.layouts import Layout, Shapes
from saccade.checkpoint.questions import Question
from saccade.checkpoint.table import Table
from saccade.config import PixelShuffleConfig, SaccadeConfig
from saccade.errors import CheckpointError

_OURS = "model.vision_tower."
_BLOCK, _LAYER = "vit.trunk.blocks.{n}.", f"{_OURS}encoder.layers.{{n}}."
_APPLE = (
    ("vit.preprocessor.patchifier.proj.", f"{_OURS}embeddings.patch_embed."),
    ("vit.preprocessor.patchifier.norm.", f"{_OURS}embeddings.rms_norm."),
    ("vit.preprocessor.pos_embed[0]", f"{_OURS}embeddings.position_embedding.weight"),
    (f"{_BLOCK}attn.qkv.", *(f"{_LAYER}attention.{part}_proj." for part in "qkv")),
    (f"{_BLOCK}attn.proj.", f"{_LAYER}attention.out_proj."),
    (f"{_BLOCK}norm_1.", f"{_LAYER}rms_norm1."),
    (f"{_BLOCK}norm_2.", f"{_LAYER}rms_norm2."),
    (f"{_BLOCK}mlp.fc1.", f"{_LAYER}ffn.gate_proj."),
    (f"{_BLOCK}mlp.fc2.", f"{_LAYER}ffn.down_proj."),
    (f"{_BLOCK}mlp.fc3.", f"{_LAYER}ffn.up_proj."),
    ("vit.trunk.post_trunk_norm.", f"{_OURS}rms_norm."),
)
# The head that pools all patches into one vector is stored with the tower, but no token comes from it.
_POOLING = (("vit.head.",),)
_REST = (
    ("vit.", _OURS),
    ("adp.p0.0.", "model.multi_modal_projector.norm."),
    ("adp.p0.1.", "model.multi_modal_projector.linears.0."),
    ("adp.p0.3.", "model.multi_modal_projector.linears.1."),
    ("adp.proj.", "model.multi_modal_projector.linears.2."),
    ("llm.model.", "model.language_model."),
    ("llm.lm_head.", "lm_head."),
)
_WRAPPERS = ("module.", "base_model.model.", "model.")
_NORM, _WIDEN, _MIX, _PROJECT = (f"adp.{name}.weight" for name in ("p0.0", "p0.1", "p0.3", "proj"))
_HEAD, _EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"

_VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "attention_dropout",
    "layer_norm_eps",
    "rms_norm_eps",
)
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_dropout",
)
# Whichever of these a config.json declares, its tensors say which of the variants it is.
_DECLARED = tuple(
    f"FlashVL{variant}{suffix}" for variant in ("Static", "Dynamic", "DynamicISS") for suffix in ("Config", "")
)


@dataclass(frozen=True, kw_only=True)
class FlashVLLayout(Layout):
    """The layout of one variant.

    Attributes:
        published: Returns the configuration of the variant.
        patch_embedding: Their name of the tensor that turns pixels into patches, by which a tower is known.
        vision_model_type: What their config.json calls the tower.
    """

    published: Callable[[], SaccadeConfig]
    patch_embedding: str
    vision_model_type: str
    stops: tuple[str, ...] = ("<|endoftext|>",)

    def recognizes(self, config_json: Mapping[str, Any]) -> bool:
        """See `Layout.recognizes`; any variant may be declared."""
        declared = {config_json.get("model_type"), *(config_json.get("architectures") or ())}
        return not declared.isdisjoint(_DECLARED)

    def misfit(self, shapes: Shapes) -> str | None:
        """See `Layout.misfit`."""
        for name, rank in ((self.patch_embedding, 4), (_NORM, 1)):
            if name not in shapes:
                return f"tensor {name} is missing"
            if len(shapes[name]) != rank:
                return f"tensor {name} has shape {list(shapes[name])}, but {rank} axes are expected"
        published: Any = self.published()
        width, taken = shapes[self.patch_embedding][0], shapes[_NORM][0]
        wanted = published.compressor.width(width)
        return None if taken == wanted else f"{_NORM} has {taken} entries, not {wanted} for patches {width} wide"

    def to_config(self, config_json: Mapping[str, Any], shapes: Shapes) -> SaccadeConfig:
        """See `Layout.to_config`."""
        base: Any = self.published()
        tied = "llm.lm_head.weight" not in shapes
        vision = base.vision_config.to_dict()
        vision |= _said(config_json, "vision_config", tuple(name for name in _VISION_FIELDS if name in vision))
        for field in ("image_size", "patch_size"):
            if vision[field] != getattr(base.vision_config, field):
                raise CheckpointError(
                    f"config.json says vision_config.{field} {vision[field]}, but pictures are known to be cut for "
                    f"{getattr(base.vision_config, field)} only: open a checkpoint of the released size"
                )
        config = SaccadeConfig(
            vision_config=vision,
            text_config=_text_config(config_json, base.text_config, tied),
            vision=base.vision,
            compressor=base.compressor,
            projector=base.projector.model_copy(update={"hidden_sizes": _hidden_sizes(shapes)}),
            image=base.image,
            prompt=base.prompt,
            image_token_id=base.image_token_id,
            tie_word_embeddings=tied,
        )
        _check_declared(config_json, config)
        return config

    def to_config_json(self, config: Any) -> dict[str, Any]:
        """See `Layout.to_config_json`."""
        published: Any = self.published()
        text, vision = config.text_config, config.vision_config
        if (text.model_type, vision.model_type) != (Qwen2Config.model_type, published.vision_config.model_type):
            raise CheckpointError(f"it has no words for {vision.model_type} with {text.model_type}")
        if len(set(config.projector.hidden_sizes or ())) != 1:
            raise CheckpointError(f"it has no words for projector.hidden_sizes {config.projector.hidden_sizes}")
        rope = dict(text.rope_parameters)
        theta = rope.pop("rope_theta")
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "vision_config": {
                "model_type": self.vision_model_type,
                **{name: getattr(vision, name) for name in _VISION_FIELDS if hasattr(vision, name)},
                "proj_output_dim": text.hidden_size,
            },
            "llm_config": {
                "model_type": text.model_type,
                **{name: getattr(text, name) for name in _TEXT_FIELDS},
                "rope_theta": theta,
                "rope_scaling": None if rope == {"rope_type": "default"} else rope,
                "tie_word_embeddings": config.tie_word_embeddings,
                "bos_token_id": text.bos_token_id,
                "eos_token_id": text.eos_token_id,
                "use_cache": True,
            },
            "image_token_num": config.tokens_per_view,
            "intermediate_size": config.projector.hidden_sizes[0],
        }

    def facts(
        self, folder: Path, stored: Mapping[str, Tensor], tokenizer: Any
    ) -> Iterator[tuple[str, Callable[[], str]]]:
        """See `Layout.facts`."""
        prompt: Any = self.published().prompt
        yield "variant", lambda: f"{self.name}, as its tensors have it"
        yield "output head and embedding", lambda: _compare_head(stored)
        yield "precision of the release", lambda: ", ".join(sorted({_precision(t) for t in stored.values()}))
        yield "generation_config.json", lambda: _read_generation(folder / "generation_config.json")
        for text in filter(None, (prompt.view_start, prompt.view_end)):
            yield f"text {text}", partial(_spell, text, tokenizer)

    def questions(self, config: Any) -> tuple[Question, ...]:
        """See `Layout.questions`."""
        asked = [
            Question(
                "norm of the tower", {name: {"vision": {"post_norm": name == "after"}} for name in ("after", "before")}
            )
        ]
        if isinstance(config.compressor, PixelShuffleConfig):
            orders = ("row_major", "col_major")
            asked.append(Question("order of tokens", {name: {"compressor": {"order": name}} for name in orders}))
        if config.prompt.view_start or config.prompt.view_end:
            bare = {"prompt": {"view_start": "", "view_end": ""}}
            asked.append(Question("texts around tiles", {"there": {}, "absent": bare}))
        if config.image.layout == "dynamic":
            seen = {"there": {"image": {"thumbnail": True}}, "absent": {"image": {"thumbnail": False}}}
            asked.append(Question("thumbnail", seen))
        if config.image.margin:
            inner = config.image.side - 2 * config.image.margin
            sides = {"a view's side": {"grid_side": None}, "a tile's advance": {"grid_side": inner}}
            asked.append(Question("unit of the grid", {name: {"image": change} for name, change in sides.items()}))
        return tuple(asked)


def _said(config_json: Mapping[str, Any], part: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the fields that a part of config.json declares."""
    declared = config_json.get(part)
    if not isinstance(declared, Mapping):
        raise CheckpointError(
            f"config.json says {part} {declared!r}, not an object: take the config.json of the release"
        )
    return {name: declared[name] for name in fields if name in declared}


def _text_config(config_json: Mapping[str, Any], base: Any, tied: bool) -> dict[str, Any]:
    """Return the decoder's configuration; what config.json leaves out is the published decoder's."""
    known = {"model_type": base.model_type, "use_sliding_window": False}
    for name, value in _said(config_json, "llm_config", tuple(known)).items():
        if value not in (None, known[name]):
            raise CheckpointError(
                f"config.json says llm_config.{name} {value!r}, which is not supported: open a checkpoint that says "
                f"{known[name]!r}"
            )
    fields = {**base.to_dict(), **_said(config_json, "llm_config", _TEXT_FIELDS)}
    del fields["layer_types"]  # follows from the number of layers
    return {**fields, "rope_parameters": _rope(config_json, base), "tie_word_embeddings": tied}


def _rope(config_json: Mapping[str, Any], base: Any) -> dict[str, Any]:
    """Return how the decoder turns positions: transformers 5 writes it as one field, earlier versions as two."""
    said = _said(config_json, "llm_config", ("rope_parameters", "rope_theta", "rope_scaling"))
    whole, scaling, theta = (said.get(name) for name in ("rope_parameters", "rope_scaling", "rope_theta"))
    published = base.rope_parameters["rope_theta"]
    rope = {"rope_theta": published, **(whole or {}), **(scaling or {})}
    if theta is not None:
        rope["rope_theta"] = theta
    if any(rope[name] != value for name, value in (whole or {}).items()):
        raise CheckpointError(
            f"config.json says llm_config.rope_parameters {whole}, but rope_theta {theta} with rope_scaling {scaling}: "
            "take the config.json of the release"
        )
    rope.setdefault("rope_type", rope.pop("type", "default"))
    return rope


def _hidden_sizes(shapes: Shapes) -> tuple[int, int]:
    """Return the two widths inside the adapter."""
    for name in (_WIDEN, _MIX):
        if len(shapes.get(name, ())) != 2:
            raise CheckpointError(f"tensor {name} is missing or no matrix: download the checkpoint again")
    return shapes[_WIDEN][0], shapes[_MIX][0]


def _check_declared(config_json: Mapping[str, Any], config: Any) -> None:
    """Raise CheckpointError where config.json says otherwise about the adapter than its tensors or the variant."""
    vision = config_json["vision_config"]
    inner = config_json.get("intermediate_size", config.projector.hidden_sizes[0])
    for name, said, found in (
        ("image_token_num", config_json.get("image_token_num", config.tokens_per_view), config.tokens_per_view),
        ("intermediate_size", (inner, inner), config.projector.hidden_sizes),
        (
            "vision_config.proj_output_dim",
            vision.get("proj_output_dim", config.text_config.hidden_size),
            config.text_config.hidden_size,
        ),
    ):
        if said != found:
            raise CheckpointError(
                f"config.json says {name} {said}, but the tensors and the variant make it {found}: take config.json "
                "and tensors from one release"
            )


def _compare_head(stored: Mapping[str, Tensor]) -> str:
    if _HEAD not in stored:
        return "no head is stored: the embedding is the head"
    rows = zip(stored[_HEAD].split(8192), stored[_EMBEDDING].split(8192), strict=True)
    difference = max(float((head.float() - embedding.float()).abs().max()) for head, embedding in rows)
    return f"differ by {difference:.3g} at most" if difference else "equal: the head is a copy of the embedding"


def _precision(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read_generation(path: Path) -> str:
    if not path.is_file():
        return "not there"
    said = read_json(path)
    cached = "" if said.get("use_cache", True) else "; its use_cache false is not followed, answers are the same"
    return f"{', '.join(f'{name} {value}' for name, value in sorted(said.items()))}{cached}"


def _spell(text: str, tokenizer: Any) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    kind = "one token" if len(ids) == 1 else f"ordinary text of {len(ids)} tokens"
    return f"{kind}: {', '.join(map(str, ids))}"


_SIGLIP: dict[str, Any] = {
    "table": Table(_POOLING + _REST, _WRAPPERS),
    "patch_embedding": "vit.embeddings.patch_embedding.weight",
    "vision_model_type": "siglip_vision_model",
}
_AIMV2: dict[str, Any] = {
    "table": Table(_APPLE + _REST, _WRAPPERS),
    "patch_embedding": "vit.preprocessor.patchifier.proj.weight",
    "vision_model_type": "aimv2",
}
_AIMV2_OF_TRANSFORMERS: dict[str, Any] = {
    "table": Table(_REST, _WRAPPERS),
    "patch_embedding": "vit.embeddings.patch_embed.weight",
    "vision_model_type": "aimv2_vision_model",
}
_STATIC: dict[str, Any] = {
    "name": "FlashVL-2B-Static",
    "model_type": "FlashVLStaticConfig",
    "architecture": "FlashVLStatic",
    "published": presets.flashvl_static,
}
_DYNAMIC: dict[str, Any] = {
    "name": "FlashVL-2B-Dynamic",
    "model_type": "FlashVLDynamicConfig",
    "architecture": "FlashVLDynamic",
    "published": presets.flashvl_dynamic,
}
_ISS: dict[str, Any] = {
    "name": "FlashVL-2B-Dynamic-ISS",
    "model_type": "FlashVLDynamicISSConfig",
    "architecture": "FlashVLDynamicISS",
    "published": presets.flashvl_iss,
}
# Of those that say the same, the first is the one that is written.
FLASHVL = tuple(
    FlashVLLayout(**{**variant, "name": variant["name"] + spelled}, **tower)
    for variant, tower, spelled in (
        (_STATIC, _SIGLIP, ""),
        (_DYNAMIC, _AIMV2, ""),
        (_ISS, _AIMV2, ""),
        (_DYNAMIC, _AIMV2_OF_TRANSFORMERS, " with transformers' tower"),
        (_ISS, _AIMV2_OF_TRANSFORMERS, " with transformers' tower"),
    )
)
