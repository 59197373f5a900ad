"""Checkpoints: the names, shapes and settings of the first family's release, at full size."""

from typing import Any

import pytest
import torch

from released_flashsloth import RELEASED, full_size, settings
from saccade import presets
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.errors import CheckpointError
from saccade.model import SaccadeForConditionalGeneration


@pytest.mark.parametrize("preset", ["flashsloth", "flashsloth_hd"])
def test_the_preset_has_the_names_and_shapes_of_the_release(preset: str) -> None:
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.preset(preset))
    ours, table = model.state_dict(), FLASHSLOTH.table
    theirs = table.to_theirs(ours)
    assert len(theirs) == 905
    assert FLASHSLOTH.shapes(theirs) == full_size()
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_196_373_985
    assert table.to_ours(theirs).keys() == ours.keys()
    assert table.to_ours(ours).keys() == ours.keys()  # applied twice, as once


@pytest.mark.parametrize(("preset", "image_hd"), [("flashsloth", False), ("flashsloth_hd", True)])
def test_the_released_settings_are_the_preset(preset: str, image_hd: bool) -> None:
    released = {**RELEASED, "image_hd": image_hd}
    assert settings(FLASHSLOTH.to_config(released, full_size())) == settings(presets.preset(preset))
    written = FLASHSLOTH.to_config_json(presets.preset(preset))
    assert {name: released[name] for name in written} == written


def test_a_layout_is_recognized_by_what_config_json_declares() -> None:
    assert FLASHSLOTH.recognizes({"model_type": "flashsloth"})
    assert FLASHSLOTH.recognizes({"model_type": "other", "architectures": ["FlashSlothForCausalLM"]})
    assert not FLASHSLOTH.recognizes({"model_type": "phi", "_name_or_path": "flashsloth", "architectures": None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_hd", "twice"),
        ("image_aspect_ratio", "anyres"),
        ("image_aspect_ratio", ["square"]),
        ("mm_projector_type", "linear"),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_use_im_start_end", True),
        ("mm_hidden_size", 1024),
    ],
)
def test_settings_that_are_not_supported_are_refused(field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=field):
        FLASHSLOTH.to_config({**RELEASED, field: value}, full_size())


def test_the_picture_may_be_padded_but_not_in_tiles() -> None:
    padded = {**RELEASED, "image_aspect_ratio": "pad"}
    config = FLASHSLOTH.to_config(padded, full_size())
    assert (config.image.layout, config.image.fit) == ("single", "pad")
    assert FLASHSLOTH.to_config_json(config)["image_aspect_ratio"] == "pad"
    with pytest.raises(CheckpointError, match="image_hd True with image_aspect_ratio 'pad'"):
        FLASHSLOTH.to_config({**padded, "image_hd": True}, full_size())


def test_other_tiles_than_the_release_has_are_not_written() -> None:
    config = presets.flashsloth_hd()
    config.image = config.image.model_copy(update={"tiles_per_side": 3})
    with pytest.raises(CheckpointError, match="'tiles_per_side': 3"):
        FLASHSLOTH.to_config_json(config)
