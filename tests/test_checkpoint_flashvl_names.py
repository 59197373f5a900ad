"""Checkpoints: the names, shapes and settings of the second family's releases, at full size."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import released_flashvl
from released_flashsloth import settings
from saccade import presets
from saccade.checkpoint import LAYOUTS
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.checkpoint.flashvl import FLASHVL
from saccade.checkpoint.layouts import find_layout
from saccade.errors import CheckpointError
from saccade.model import SaccadeForConditionalGeneration

STATIC, DYNAMIC, ISS, DYNAMIC_OF_TRANSFORMERS, ISS_OF_TRANSFORMERS = FLASHVL
PRESETS = {STATIC: "flashvl_static", DYNAMIC: "flashvl_dynamic", ISS: "flashvl_iss"}
STORED = {STATIC: 2_301_306_304, DYNAMIC: 2_565_578_240, ISS: 2_532_538_880}
TAKEN = {STATIC: 4608, DYNAMIC: 6144, ISS: 1536}
TOKENS = {STATIC: 256, DYNAMIC: 256, ISS: 576}
Shapes = dict[str, tuple[int, ...]]


def full_size(layout: Any) -> Shapes:
    """Names and shapes of a release, written down from its description."""
    return {**(siglip() if layout is STATIC else aimv2()), **adapter(TAKEN[layout]), **decoder()}


def both(shapes: Shapes, name: str, *weight: int) -> None:
    shapes[f"{name}.weight"] = weight
    shapes[f"{name}.bias"] = weight[:1]


def siglip() -> Shapes:
    shapes: Shapes = {"vit.embeddings.position_embedding.weight": (1024, 1152)}
    both(shapes, "vit.embeddings.patch_embedding", 1152, 3, 16, 16)
    for layer in (f"vit.encoder.layers.{number}" for number in range(27)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            both(shapes, f"{layer}.self_attn.{part}", 1152, 1152)
        both(shapes, f"{layer}.mlp.fc1", 4304, 1152)
        both(shapes, f"{layer}.mlp.fc2", 1152, 4304)
        both(shapes, f"{layer}.layer_norm1", 1152)
        both(shapes, f"{layer}.layer_norm2", 1152)
    both(shapes, "vit.post_layernorm", 1152)
    return shapes | pooling()


def pooling() -> Shapes:
    shapes: Shapes = {
        "vit.head.probe": (1, 1, 1152),
        "vit.head.attention.in_proj_weight": (3456, 1152),
        "vit.head.attention.in_proj_bias": (3456,),
    }
    both(shapes, "vit.head.attention.out_proj", 1152, 1152)
    both(shapes, "vit.head.layernorm", 1152)
    both(shapes, "vit.head.mlp.fc1", 4304, 1152)
    both(shapes, "vit.head.mlp.fc2", 1152, 4304)
    return shapes


def aimv2() -> Shapes:
    shapes: Shapes = {
        "vit.preprocessor.pos_embed": (1, 1024, 1536),
        "vit.preprocessor.patchifier.norm.weight": (1536,),
        "vit.trunk.post_trunk_norm.weight": (1536,),
    }
    both(shapes, "vit.preprocessor.patchifier.proj", 1536, 3, 14, 14)
    for block in (f"vit.trunk.blocks.{number}" for number in range(24)):
        shapes |= {
            f"{block}.attn.qkv.weight": (4608, 1536),
            f"{block}.attn.proj.weight": (1536, 1536),
            f"{block}.norm_1.weight": (1536,),
            f"{block}.norm_2.weight": (1536,),
            f"{block}.mlp.fc1.weight": (4096, 1536),
            f"{block}.mlp.fc2.weight": (1536, 4096),
            f"{block}.mlp.fc3.weight": (4096, 1536),
        }
    return shapes


def aimv2_of_transformers() -> Shapes:
    shapes: Shapes = {
        "vit.embeddings.position_embedding.weight": (1024, 1536),
        "vit.embeddings.rms_norm.weight": (1536,),
        "vit.rms_norm.weight": (1536,),
    }
    both(shapes, "vit.embeddings.patch_embed", 1536, 3, 14, 14)
    for layer in (f"vit.encoder.layers.{number}" for number in range(24)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}.attention.{part}.weight"] = (1536, 1536)
        shapes |= {
            f"{layer}.rms_norm1.weight": (1536,),
            f"{layer}.rms_norm2.weight": (1536,),
            f"{layer}.ffn.gate_proj.weight": (4096, 1536),
            f"{layer}.ffn.up_proj.weight": (4096, 1536),
            f"{layer}.ffn.down_proj.weight": (1536, 4096),
        }
    return shapes


def adapter(taken: int) -> Shapes:
    shapes: Shapes = {}
    both(shapes, "adp.p0.0", taken)
    both(shapes, "adp.p0.1", 7168, taken)
    both(shapes, "adp.p0.3", 7168, 7168)
    both(shapes, "adp.proj", 1536, 7168)
    return shapes


def decoder() -> Shapes:
    shapes: Shapes = {
        "llm.model.embed_tokens.weight": (151936, 1536),
        "llm.model.norm.weight": (1536,),
        "llm.lm_head.weight": (151936, 1536),
    }
    for layer in (f"llm.model.layers.{number}" for number in range(28)):
        both(shapes, f"{layer}.self_attn.q_proj", 1536, 1536)
        both(shapes, f"{layer}.self_attn.k_proj", 256, 1536)
        both(shapes, f"{layer}.self_attn.v_proj", 256, 1536)
        shapes |= {
            f"{layer}.self_attn.o_proj.weight": (1536, 1536),
            f"{layer}.mlp.gate_proj.weight": (8960, 1536),
            f"{layer}.mlp.up_proj.weight": (8960, 1536),
            f"{layer}.mlp.down_proj.weight": (1536, 8960),
            f"{layer}.input_layernorm.weight": (1536,),
            f"{layer}.post_attention_layernorm.weight": (1536,),
        }
    return shapes


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize("layout", PRESETS, ids=lambda layout: layout.name)
def test_the_preset_has_the_names_and_shapes_of_the_release(layout: Any) -> None:
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.preset(PRESETS[layout]))
    ours, table = model.state_dict(), layout.table
    theirs, unused = on_meta(full_size(layout)), pooling() if layout is STATIC else {}
    assert count(theirs) == STORED[layout]
    assert {name: tensor.shape for name, tensor in table.to_ours(theirs).items()} == {
        name: tensor.shape for name, tensor in ours.items()
    }
    assert layout.shapes(table.to_theirs(ours)) == {
        name: shape for name, shape in full_size(layout).items() if name not in unused
    }
    assert table.unused(theirs) == [name for name in theirs if name in unused]
    assert count(on_meta(unused)) == (15_238_352 if layout is STATIC else 0)


@pytest.mark.parametrize(("layout", "preset"), [(DYNAMIC_OF_TRANSFORMERS, DYNAMIC), (ISS_OF_TRANSFORMERS, ISS)])
def test_the_tower_may_have_the_names_of_transformers(layout: Any, preset: Any) -> None:
    shapes = {**aimv2_of_transformers(), **adapter(TAKEN[preset]), **decoder()}
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.preset(PRESETS[preset]))
    assert find_layout(full_config_json(preset), on_meta(shapes), LAYOUTS, "folder") is layout
    assert layout.table.to_ours(on_meta(shapes)).keys() == model.state_dict().keys()


def full_config_json(layout: Any) -> dict[str, Any]:
    """The config.json of a release, as its description has it."""
    variant = next(v for v in released_flashvl.VARIANTS.values() if v.preset == PRESETS[layout])
    tower: dict[str, Any] = {"hidden_size": 1152, "image_size": 512, "intermediate_size": 4304, "patch_size": 16}
    tower |= {"num_attention_heads": 16, "num_hidden_layers": 27, "model_type": "siglip_vision_model"}
    if layout is not STATIC:
        tower = {"hidden_size": 1536, "image_size": 448, "intermediate_size": 4096, "patch_size": 14}
        tower |= {"num_attention_heads": 12, "num_hidden_layers": 24, "model_type": "aimv2", "qkv_bias": False}
    sizes = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "vocab_size": 151936}
    sizes |= {"num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32768}
    return {
        **released_flashvl.config_json(variant),
        "vision_config": {**tower, "proj_output_dim": 1536},
        "llm_config": {**released_flashvl.LLM, **sizes, "bos_token_id": 151643, "eos_token_id": 151645},
        "image_token_num": TOKENS[layout],
        "intermediate_size": 7168,
    }


@pytest.mark.parametrize("layout", PRESETS, ids=lambda layout: layout.name)
def test_the_released_settings_are_the_preset(layout: Any) -> None:
    config = layout.to_config(full_config_json(layout), full_size(layout))
    assert settings(config) == settings(presets.preset(PRESETS[layout]))
    written = layout.to_config_json(config)
    assert settings(layout.to_config(written, full_size(layout))) == settings(config)
    released = full_config_json(layout)
    for part in ("vision_config", "llm_config"):
        theirs, ours = released.pop(part), written.pop(part)
        assert {name: ours[name] for name in theirs.keys() & ours.keys()} == {
            name: theirs[name] for name in theirs.keys() & ours.keys()
        }
    assert {name: released[name] for name in written} == written


@pytest.mark.parametrize("declared", ["FlashVLStatic", "FlashVLDynamic", "FlashVLDynamicISS"])
@pytest.mark.parametrize("layout", PRESETS, ids=lambda layout: layout.name)
def test_the_tensors_decide_the_variant_whatever_is_declared(layout: Any, declared: str) -> None:
    tensors = on_meta(full_size(layout))
    for config_json in ({"model_type": f"{declared}Config"}, {"model_type": "x", "architectures": [declared]}):
        assert find_layout(config_json, tensors, LAYOUTS, "folder") is layout


def test_tensors_of_no_variant_are_refused() -> None:
    config_json = {"model_type": "FlashVLDynamicConfig"}
    crossed = {**full_size(DYNAMIC), "adp.p0.0.weight": (3072,)}
    with pytest.raises(CheckpointError, match=r"adp\.p0\.0\.weight has 3072 entries, not 6144 for patches 1536 wide"):
        find_layout(config_json, on_meta(crossed), LAYOUTS, "folder")
    headless = {name: shape for name, shape in full_size(STATIC).items() if name != "adp.p0.0.weight"}
    with pytest.raises(CheckpointError, match=r"tensor adp\.p0\.0\.weight is missing"):
        find_layout(config_json, on_meta(headless), LAYOUTS, "folder")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (None, "image_token_num", 255),
        (None, "intermediate_size", 7167),
        ("vision_config", "proj_output_dim", 1537),
        ("vision_config", "image_size", 384),
        ("vision_config", "patch_size", 8),
        ("llm_config", "use_sliding_window", True),
        ("llm_config", "model_type", "llama"),
        ("llm_config", "rope_parameters", {"rope_type": "default", "rope_theta": 10000.0}),
        (None, "llm_config", None),
        (None, "vision_config", None),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(part: str | None, field: str, value: Any) -> None:
    config_json = full_config_json(DYNAMIC)
    (config_json[part] if part else config_json)[field] = value
    with pytest.raises(CheckpointError, match=field):
        DYNAMIC.to_config(config_json, full_size(DYNAMIC))


def test_a_decoder_with_scaled_positions_makes_the_round_trip() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config_json = full_config_json(STATIC)
    config_json["llm_config"] = {**config_json["llm_config"], "rope_scaling": scaling}
    config: Any = STATIC.to_config(config_json, full_size(STATIC))
    assert config.text_config.rope_parameters == {**scaling, "rope_theta": 1000000.0}
    assert STATIC.to_config_json(config)["llm_config"]["rope_scaling"] == scaling


@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_positions_are_read_as_transformers_5_spells_them(kind: str) -> None:
    config_json = full_config_json(STATIC)
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768}
    spelled = {name: value for name, value in config_json["llm_config"].items() if not name.startswith("rope_")}
    spelled["rope_parameters"] = {kind: "yarn", "rope_theta": 500000.0, **scaling}
    config: Any = STATIC.to_config({**config_json, "llm_config": spelled}, full_size(STATIC))
    assert config.text_config.rope_parameters == {"rope_type": "yarn", "rope_theta": 500000.0, **scaling}


def test_other_models_are_not_written() -> None:
    with pytest.raises(CheckpointError, match="no words for siglip_vision_model with phi"):
        STATIC.to_config_json(presets.flashsloth())
    with pytest.raises(CheckpointError, match="no words for siglip_vision_model with qwen2"):
        DYNAMIC.to_config_json(presets.flashvl_static())
    config = presets.flashvl_static()
    for sizes in ((8, 9), (), None):
        config.projector = config.projector.model_copy(update={"hidden_sizes": sizes})
        with pytest.raises(CheckpointError, match=rf"hidden_sizes {re.escape(str(sizes))}"):
            STATIC.to_config_json(config)


def test_the_known_layouts() -> None:
    assert (FLASHSLOTH, *FLASHVL) == LAYOUTS
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
