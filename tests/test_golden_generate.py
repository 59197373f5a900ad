"""Greedy ids against the reference, exactly: with a cache and without, alone and in a padded batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

import golden

pytestmark = pytest.mark.golden

ALONE: list[tuple[str, dict[str, Any]]] = [
    ("single_image", {}),
    ("hd_five_tiles", {}),
    ("infer_multiturn_history", {"history": "first"}),
    ("text_only", {"bare_query": True}),
]
STEPS = 16


def continuation(inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """The new ids of a greedy continuation without a stop token."""
    model = golden.fresh_model()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = golden.PAD
    ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **options)
    return ids[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(("name", "options"), ALONE)
def test_one_prompt(name: str, options: dict[str, Any], use_cache: bool) -> None:
    tensors, _, inputs = golden.whole_inputs(name, **options)
    assert torch.equal(continuation(inputs, use_cache=use_cache), tensors["generated_ids"])


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_padded_batch_gives_every_row_what_it_gets_alone(use_cache: bool) -> None:
    tensors = golden.case("batch_padded")
    rows = golden.rows_of(tensors)
    expected = tensors["generated_ids_each_alone"]
    inputs = {**golden.batch(rows, side="left"), "pixel_values": tensors["pixel_values"]}
    assert torch.equal(continuation(inputs, use_cache=use_cache), expected)
    for index, row in enumerate(rows):
        alone = {**golden.batch([row]), "pixel_values": tensors["pixel_values"][index : index + 1]}
        assert torch.equal(continuation(alone, use_cache=use_cache), expected[index : index + 1])


def test_patches_computed_before_give_the_same_ids() -> None:
    tensors, _, inputs = golden.whole_inputs("single_image")
    del inputs["pixel_values"]
    inputs["image_features"] = tensors["vision_features"]
    assert torch.equal(continuation(inputs), tensors["generated_ids"])
