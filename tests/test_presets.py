"""The presets at full size, without their weights: published counts, and parts that fit together."""

import pytest
import torch

from saccade import presets
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration

# Parameters in all and of the projector, where published or derived from the published files' sizes; tokens of a view.
COUNTS = {
    "flashsloth": (3_196_373_985, None, 81),
    "flashsloth_hd": (3_196_373_985, None, 81),
    "flashvl_static": (2_286_067_952, 95_445_504, 256),
    "flashvl_dynamic": (2_565_578_240, 106_458_624, 256),
    "flashvl_iss": (2_532_538_880, 73_419_264, 576),
    "flashvl_overlapped": (2_565_578_240, 106_458_624, 256),
    "flashvl_dynamic_siglip2": (2_286_067_952, 95_445_504, 256),
    "flashvl_static_aimv2": (2_565_578_240, 106_458_624, 256),
    "flashvl_static_qwen2": (2_286_067_952, 95_445_504, 256),
    "flashvl_static_siglip2_large": (None, None, 144),
    "flashvl_static_2_linear": (None, 4608 * 1536 + 1536 + 1536 * 1536 + 1536, 256),
    "flashvl_static_llama": (None, None, 256),
    "nano": (None, None, 9),
    "nano_hd": (None, None, 9),
    "nano_flashvl_static": (None, None, 9),
    "nano_flashvl_dynamic": (None, None, 9),
    "nano_flashvl_overlapped": (None, None, 9),
    "nano_flashvl_iss": (None, None, 49),
}

HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Side, interpolation, mean and deviation, gray of padding and frame, and id of the placeholder, as published.
PICTURES = {
    "flashsloth": (384, "bicubic", HALVES, 127, 50297),
    "flashsloth_hd": (384, "bicubic", HALVES, 127, 50297),
    "flashvl_static": (512, "bilinear", HALVES, 127, 151665),
    "flashvl_dynamic": (448, "bicubic", CLIP, 127, 151665),
    "flashvl_iss": (448, "bicubic", CLIP, 0, 151665),
    "flashvl_overlapped": (448, "bicubic", CLIP, 0, 151665),
    "flashvl_dynamic_siglip2": (512, "bilinear", HALVES, 127, 151665),
    "flashvl_static_aimv2": (448, "bicubic", CLIP, 127, 151665),
    "flashvl_static_qwen2": (512, "bilinear", HALVES, 127, 151646),
    "flashvl_static_siglip2_large": (384, "bilinear", HALVES, 127, 151665),
    "flashvl_static_2_linear": (512, "bilinear", HALVES, 127, 151665),
    "flashvl_static_llama": (512, "bilinear", HALVES, 127, 128002),
}
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
)
HELPER = "You are a helpful assistant."


def test_every_preset_is_counted_here():
    assert PICTURES.keys() == {name for name in COUNTS if not name.startswith("nano")}
    assert COUNTS.keys() == presets.PRESETS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_a_preset_has_the_published_count(name):
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.preset(name))
    total, projector, tokens = COUNTS[name]
    assert model.config.tokens_per_view == tokens
    for expected, part in ((total, model), (projector, model.model.multi_modal_projector)):
        assert expected in (None, sum(parameter.numel() for parameter in part.parameters()))


def test_what_stands_on_the_tower_of_nano_fits_the_package():
    """In bfloat16, beside nano and its form in tiles, which has a tower of its own: 24 MB in all."""
    model = SaccadeForConditionalGeneration(presets.nano_flashvl_iss())
    others = 2 * 2 * SaccadeForConditionalGeneration(presets.nano()).num_parameters()
    added = 2 * (model.num_parameters() - model.model.vision_tower.num_parameters())
    assert added <= 3_400_000
    assert others + added <= 23_750_000, "words, pictures and the files' own lists need the rest"


@pytest.mark.parametrize("name", PICTURES)
def test_a_preset_takes_pictures_and_words_as_published(name):
    config = presets.preset(name)
    image, prompt = config.image, config.prompt
    made = image.side, image.resample, (image.mean, image.std), image.pad_value, config.image_token_id
    assert made == PICTURES[name]
    assert prompt.system == (VICUNA if name.startswith("flashsloth") else HELPER)
    sliced = ("[PLACEHOLDER_0]", "[PLACEHOLDER_1]", "") if image.layout == "dynamic" else ("", "", "")
    assert (prompt.view_start, prompt.view_end, prompt.row_separator) == sliced


@pytest.mark.parametrize("name", COUNTS)
def test_placeholders_have_a_row_in_the_table_of_embeddings(name):
    config = presets.preset(name)
    ids = {config.image_token_id, config.query_token_id, config.text_config.eos_token_id} - {None}
    assert max(ids) < config.text_config.vocab_size
    assert len({config.image_token_id, config.text_config.eos_token_id, config.text_config.bos_token_id}) == 3


def test_overlapping_tiles_repeat_what_stitching_drops():
    for size, margin in (("", 56), ("nano_", 10)):
        for name, dropped in (("flashvl_iss", True), ("flashvl_overlapped", False)):
            config = presets.preset(size + name)
            assert config.image.margin == margin
            assert (config.compressor.kind == "crop") == dropped
        iss = presets.preset(f"{size}flashvl_iss")
        assert iss.compressor.margin * iss.vision_config.patch_size == iss.image.margin
        assert iss.image.pad_value == 0


def test_a_preset_is_new_at_every_call():
    first = presets.flashvl_static()
    first.text_config.hidden_size = 8
    first.compressor = None
    assert presets.flashvl_static().text_config.hidden_size == 1536
    assert presets.flashvl_static_qwen2().compressor.kind == "pixel_shuffle"


def test_an_unknown_preset_is_answered_with_the_known():
    with pytest.raises(ConfigError, match=r"there is no preset .flashvl.: choose one of .*flashvl_static, "):
        presets.preset("flashvl")
