"""The released layout of FlashSloth (CVPR 2025): 905 tensors under the names of its training code, and a config.json.

That config.json holds the decoder's settings but not the tower's, which its code fetched by name. Widths and counts
come from the shapes of the tensors; what shapes cannot tell (heads, epsilons, token ids, the template) is taken from
the preset of the published model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PhiConfig

from saccade import presets
from saccade.checkpoint.layouts import Layout, Shapes
from saccade.checkpoint.table import Table
from saccade.config import ImageConfig, SaccadeConfig
from saccade.errors import CheckpointError

_TOWER = "model.vision_tower.vision_tower.vision_model."
_QUERY = "model.lqformer."

_TABLE = (
    (_TOWER, "model.vision_tower."),
    ("model.pooling.mlp.0.", "model.compressor.hidden."),
    ("model.pooling.mlp.3.", "model.compressor.score."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linears.0."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linears.1."),
    ("model.learnable_tokens.token", "model.embedded_query.queries"),
    (f"{_QUERY}down_projector_learnable_text.", "model.embedded_query.text_down."),
    (f"{_QUERY}down_projector_image.", "model.embedded_query.image_down."),
    (f"{_QUERY}layers.{{n}}.t2q_attn.", "model.embedded_query.layers.{n}.text_attention."),
    (f"{_QUERY}layers.{{n}}.i2q_attn.", "model.embedded_query.layers.{n}.image_attention."),
    (f"{_QUERY}layers.{{n}}.ln_text.", "model.embedded_query.layers.{n}.text_norm."),
    (f"{_QUERY}layers.{{n}}.ln_q.", "model.embedded_query.layers.{n}.query_norm."),
    (f"{_QUERY}layers.{{n}}.ln_kv.", "model.embedded_query.layers.{n}.image_norm."),
    (f"{_QUERY}up_projector.", "model.embedded_query.up."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.final_layernorm.", "model.language_model.final_layernorm."),
)

# Settings of the decoder, under the names that config.json shares with transformers' PhiConfig.
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "resid_pdrop",
    "embd_pdrop",
    "attention_dropout",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "layer_norm_eps",
    "qk_layernorm",
)
# The published decoder's config.json names one token for all of these; the prompt ends an answer with another one.
_TOKEN_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ROPE_FIELDS = ("rope_theta", "partial_rotary_factor")
# How pictures are shown, by image_hd and image_aspect_ratio.
_PICTURES: dict[tuple[bool, str], dict[str, Any]] = {
    (False, "square"): {"layout": "single", "fit": "squash"},
    (False, "pad"): {"layout": "single", "fit": "pad"},
    (True, "square"): presets.FLASHSLOTH_TILES,
}
_PROJECTOR_TYPE = "mlp2x_gelu"


@dataclass(frozen=True, kw_only=True)
class FlashSlothLayout(Layout):
    """The layout with the published facts that neither config.json nor a tensor's shape tells.

    Attributes:
        published: Returns the configuration that those facts are read from.
    """

    published: Callable[[], SaccadeConfig]

    def to_config(self, config_json: Mapping[str, Any], shapes: Shapes) -> SaccadeConfig:
        """See `Layout.to_config`."""
        _check_supported(config_json)
        base: Any = self.published()
        vision = _vision_config(config_json, shapes, base)
        queries, _ = _shape(shapes, "model.learnable_tokens.token", 2)
        query_width, _ = _shape(shapes, f"{_QUERY}down_projector_learnable_text.weight", 2)
        projector_width, patch_width = _shape(shapes, "model.mm_projector.0.weight", 2)
        declared = config_json.get("mm_hidden_size", patch_width)
        if not vision["hidden_size"] == patch_width == declared:
            raise CheckpointError(
                f"patch widths disagree: the tower has {vision['hidden_size']}, the projector takes {patch_width}, "
                f"config.json says mm_hidden_size {declared}: take config.json and tensors from one release"
            )
        return SaccadeConfig(
            vision_config=vision,
            text_config=_text_config(config_json, base),
            vision=_changed(base.vision, layer=config_json.get("mm_vision_select_layer", base.vision.layer)),
            compressor=base.compressor,
            projector=_changed(base.projector, hidden_sizes=(projector_width,)),
            query=_changed(
                base.query,
                num_queries=queries,
                hidden_size=query_width,
                num_layers=_count_layers(shapes, f"{_QUERY}layers."),
            ),
            image=_changed(base.image, side=vision["image_size"], **_picture_fields(config_json)),
            prompt=_changed(base.prompt, num_queries=queries),
            image_token_id=base.image_token_id,
            query_token_id=base.query_token_id,
            lm_head_bias="lm_head.bias" in shapes,
            tie_word_embeddings=bool(config_json.get("tie_word_embeddings", False)),
        )

    def to_config_json(self, config: Any) -> dict[str, Any]:
        """See `Layout.to_config_json`."""
        text = config.text_config
        if text.model_type != PhiConfig.model_type or config.tie_word_embeddings:
            raise CheckpointError(
                f"the decoder is {text.model_type!r} with tie_word_embeddings {config.tie_word_embeddings}, but this "
                f"layout holds {PhiConfig.model_type!r} with an output head of its own"
            )
        image_hd, aspect = _picture_settings(config.image)
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            **{name: getattr(text, name) for name in _TEXT_FIELDS},
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.bos_token_id,
            "tie_word_embeddings": False,
            **{name: text.rope_parameters.get(name) for name in _ROPE_FIELDS},
            "rope_scaling": None,
            "use_cache": True,
            "image_hd": image_hd,
            "image_aspect_ratio": aspect,
            "mm_hidden_size": config.vision_config.hidden_size,
            "mm_projector_type": _PROJECTOR_TYPE,
            "mm_vision_select_layer": config.vision.layer,
            "mm_vision_select_feature": "patch",
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "use_mm_proj": True,
            "tokenizer_padding_side": "right",
        }


def _changed(part: Any, **fields: Any) -> Any:
    """Return a part of the configuration with some fields changed; it is validated where it is used."""
    return {**part.model_dump(), **fields}


def _check_supported(config_json: Mapping[str, Any]) -> None:
    """Raise CheckpointError for settings that change the function and are not supported."""
    wanted = {
        "mm_projector_type": (_PROJECTOR_TYPE, None),
        "mm_vision_select_feature": ("patch", None),
        "mm_use_im_start_end": (False, None),
        "mm_use_im_patch_token": (False, None),
        "rope_scaling": (None,),
    }
    for name, allowed in wanted.items():
        value = config_json.get(name)
        if value not in allowed:
            raise CheckpointError(
                f"config.json says {name} {value!r}, which is not supported yet: open a checkpoint that says "
                f"{' or '.join(map(repr, allowed))}"
            )


def _picture_fields(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ImageConfig` that config.json decides."""
    said = (config_json.get("image_hd") or False, config_json.get("image_aspect_ratio") or "square")
    shown = next((fields for settings, fields in _PICTURES.items() if settings == said), None)
    if shown is None:
        raise CheckpointError(
            f"config.json says {_spelled(*said)}, which is not supported: open a checkpoint that says "
            f"{' or '.join(_spelled(*settings) for settings in _PICTURES)}"
        )
    return shown


def _picture_settings(image: ImageConfig) -> tuple[bool, str]:
    """Return image_hd and image_aspect_ratio, the inverse of `_picture_fields`."""
    shown = image.model_dump()
    for settings, fields in _PICTURES.items():
        if fields.items() <= shown.items():
            return settings
    fields = {name: shown[name] for name in presets.FLASHSLOTH_TILES}
    raise CheckpointError(f"pictures are shown by image {fields}, which this layout has no setting for")


def _spelled(image_hd: bool, aspect: str) -> str:
    return f"image_hd {image_hd!r} with image_aspect_ratio {aspect!r}"


def _vision_config(config_json: Mapping[str, Any], shapes: Shapes, base: Any) -> dict[str, Any]:
    """Return the tower's configuration as published, the layers that the checkpoint leaves out included."""
    width, channels, patch, _ = _shape(shapes, f"{_TOWER}embeddings.patch_embedding.weight", 4)
    positions, _ = _shape(shapes, f"{_TOWER}embeddings.position_embedding.weight", 2)
    intermediate, _ = _shape(shapes, f"{_TOWER}encoder.layers.0.mlp.fc1.weight", 2)
    layer = config_json.get("mm_vision_select_layer", base.vision.layer)
    vision: dict[str, Any] = base.vision_config.to_dict()
    vision.update(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=_count_layers(shapes, f"{_TOWER}encoder.layers.") - layer - 1,
        num_channels=channels,
        patch_size=patch,
    )
    # Several picture sizes have the same number of whole patches, so the size itself is a published fact.
    if (vision["image_size"] // patch) ** 2 != positions:
        raise CheckpointError(
            f"the tower has {positions} positions, but pictures of {vision['image_size']} pixels have "
            f"{(vision['image_size'] // patch) ** 2} patches of {patch}: only the published picture size is supported"
        )
    return vision


def _text_config(config_json: Mapping[str, Any], base: Any) -> PhiConfig:
    """Return the decoder's configuration from the fields that config.json shares with it."""
    missing = [name for name in (*_TEXT_FIELDS, *_ROPE_FIELDS) if name not in config_json]
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}: take the config.json of the release")
    rope = {"rope_type": "default", **{name: config_json[name] for name in _ROPE_FIELDS}}
    tokens = {name: getattr(base.text_config, name) for name in _TOKEN_FIELDS}
    return PhiConfig(**{name: config_json[name] for name in _TEXT_FIELDS}, **tokens, rope_parameters=rope)


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a tensor that the configuration is read from."""
    if name not in shapes:
        raise CheckpointError(f"tensor {name} is missing: download the checkpoint again")
    if len(shapes[name]) != rank:
        raise CheckpointError(f"tensor {name} has shape {list(shapes[name])}, but {rank} axes are expected")
    return shapes[name]


def _count_layers(shapes: Shapes, prefix: str) -> int:
    """Return how many numbered modules stand below `prefix`."""
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


FLASHSLOTH = FlashSlothLayout(
    name="FlashSloth",
    model_type="flashsloth",
    architecture="FlashSlothForCausalLM",
    table=Table(_TABLE),
    published=presets.flashsloth,
)
