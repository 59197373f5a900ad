"""The answer's attention: that of the steps which made it, on the patches its tokens stand for, whatever the model."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2Config

from helpers_vlm import picture, tiny_config, tiny_vlm
from saccade.config import (
    AverageConfig,
    ConvAbstractorConfig,
    CropConfig,
    IdentityConfig,
    ImageConfig,
    LdpV2Config,
    PixelShuffleConfig,
    PromptConfig,
    ResamplerConfig,
    SapConfig,
)
from saccade.explain import grid_boxes, kept_boxes, read_by_answer, to_map, to_patches
from saccade.explain.answer import _eager, replay
from saccade.explain.marks import hatch, outline
from saccade.model.compress import build_compressor
from saccade.vlm import VLM, Conversation
from saccade.vlm.inputs import batch_inputs

QWEN2 = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 600,
    "eos_token_id": 258,
}
BLIND = {
    "query": None,
    "query_token_id": None,
    "prompt": PromptConfig(),
    "text_config": Qwen2Config(**QWEN2),
    "compressor": PixelShuffleConfig(window=2),
}
TILES = {"side": 24, "layout": "dynamic", "max_tiles": 4}
CUT = BLIND | {"prompt": PromptConfig(view_start="<", view_end=">", row_separator="\n")}
FRAMED = ImageConfig(**TILES, margin=4, pad_value=0)
RESAMPLER = ResamplerConfig(num_queries=5, hidden_size=24, num_heads=3, num_layers=1, intermediate_size=30)
MODELS: dict[str, dict[str, Any]] = {
    "pooled": {},
    "pooled in tiles": {"image": ImageConfig(side=24, layout="tiles", fit="pad", tiles_per_side=2)},
    "static": BLIND,
    "dynamic": CUT | {"image": ImageConfig(**TILES)},
    "without thumbnail": CUT | {"image": ImageConfig(**TILES, thumbnail=False)},
    "framed": CUT | {"image": FRAMED},
    "stitched": CUT | {"image": FRAMED, "compressor": CropConfig(margin=1)},
    "sliding": BLIND
    | {"text_config": Qwen2Config(**QWEN2, use_sliding_window=True, sliding_window=20, max_window_layers=1)},
    "resampled": BLIND | {"compressor": RESAMPLER},
}
WIDTH, HEIGHT = 60, 40  # in views of 24: two columns, two rows


def asked(vlm: VLM) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
    """A prompt about a picture, and the ids of the answer."""
    talk = Conversation().ask("Why?", (vlm.encode(picture(1, WIDTH, HEIGHT)),))
    answer = vlm.ask(talk.images[0], "Why?", max_new_tokens=4)
    assert len(answer.token_ids) == answer.new_tokens
    text = vlm.processor.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert text.strip().startswith(answer.text), "an answer leaves out a last character that is not whole"
    return batch_inputs([talk], talk.images, vlm.processor), answer.token_ids  # type: ignore[arg-type]


def lengthened(inputs: dict[str, torch.Tensor], ids: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The prompt and its answer as one prompt, without the answer's last token."""
    more = torch.tensor([ids[:-1]])
    return inputs | {
        name: torch.cat([inputs[name], fill], dim=1)
        for name, fill in (
            ("input_ids", more),
            ("attention_mask", torch.ones_like(more)),
            ("mm_token_type_ids", torch.zeros_like(more)),
        )
    }


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
def test_replayed_steps_are_those_of_one_pass_over_prompt_and_answer(name: str) -> None:
    vlm = tiny_vlm(**MODELS[name])
    model = vlm.model
    inputs, ids = asked(vlm)
    found = replay(model, inputs, ids)
    logits = model.lm_head(found.last_hidden_state)
    whole = lengthened(inputs, ids)
    torch.testing.assert_close(logits, model(**whole, logits_to_keep=len(ids)).logits, rtol=1e-4, atol=1e-4)
    logits[..., [256, 257]] = -torch.inf
    assert tuple(logits[0].argmax(-1).tolist()) == ids, "these are the steps that made the answer"
    assert model.model.language_model.config._attn_implementation == "sdpa"
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    told = other(**whole, output_attentions=True, use_cache=False).attentions
    mean = np.mean([layer[0, :, -len(ids) :].mean((0, 1)).numpy() for layer in told], axis=0)
    shown = mean[whole["input_ids"][0] == vlm.processor.image_token_id]
    read = read_by_answer(model, inputs, ids)
    assert read.shape == (len(inputs["image_features"]), model.config.tokens_per_view)
    np.testing.assert_allclose(read.ravel(), shown / shown.sum(), rtol=1e-3, atol=1e-6)


def test_the_eager_twin_takes_no_memory_and_changes_nothing() -> None:
    decoder = tiny_vlm().model.model.language_model
    twin = _eager(decoder)
    assert twin.config._attn_implementation == "eager"
    assert decoder.config._attn_implementation == "sdpa"
    for mine, its in zip(decoder.parameters(), twin.parameters(), strict=True):
        assert mine is its


@torch.inference_mode()
@pytest.mark.parametrize(
    "config",
    [
        SapConfig(window=2),
        AverageConfig(window=3),
        IdentityConfig(),
        PixelShuffleConfig(window=2),
        PixelShuffleConfig(window=3, order="col_major", channels="cp1p2"),
        CropConfig(margin=2),
    ],
)
def test_a_patch_is_owned_by_the_one_token_that_changes_with_it(config: Any) -> None:
    grid, dim = 6, 4
    torch.manual_seed(0)
    module = build_compressor(config, dim, grid).eval()
    patches = torch.randn(1, grid**2, dim)
    before = module(patches)[0]
    owners = config.owners(grid)
    assert owners.shape == (grid, grid)
    assert set(owners.ravel()) - {-1} == set(range(config.num_tokens(grid)))
    for number, owner in enumerate(owners.ravel()):
        other = patches.clone()
        other[0, number] += 1
        changed = (module(other)[0] != before).any(-1).nonzero().ravel().tolist()
        assert changed == ([] if owner < 0 else [owner])


def test_tokens_that_overlap_own_the_nearest_patches_and_those_of_no_place_none() -> None:
    across = np.array([0, 0, 1, 1, 1, 2, 2])
    found = ConvAbstractorConfig(side=3, hidden_size=8).owners(7)
    np.testing.assert_array_equal(found, 3 * across[:, None] + across)
    np.testing.assert_array_equal(LdpV2Config(hidden_size=8, window=2).owners(4), AverageConfig(window=2).owners(4))
    assert RESAMPLER.owners(7) is None


def test_a_token_is_shared_out_evenly_or_by_given_weights() -> None:
    read = np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    owners = AverageConfig(window=2).owners(4)
    assert owners is not None
    np.testing.assert_allclose(to_patches(read, owners)[0], np.kron(read.reshape(2, 2), np.full((2, 2), 0.25)))
    within = np.zeros((1, 4, 4), dtype=np.float32)
    within[0, 1::2, ::2] = 1
    np.testing.assert_array_equal(to_patches(read, owners, within)[0, 1::2, ::2], read.reshape(2, 2))
    assert to_patches(read, owners, within).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("compressor", "token", "box"),
    [
        # The second tile's own upper left is at (30, 0) and its patches are 7.5 x 5 pixels; a margin is one patch.
        (CropConfig(margin=1), 1 * 4 + 2, (45, 5, 52.5, 10)),
        (PixelShuffleConfig(window=2), 1 * 3 + 1, (37.5, 5, 52.5, 15)),
        (PixelShuffleConfig(window=2, order="col_major"), 2 * 3 + 1, (52.5, 5, 60, 15)),
    ],
)
def test_a_token_of_a_tile_lands_in_its_box_of_the_picture(compressor: Any, token: int, box: tuple[float, ...]) -> None:
    config = tiny_config(**CUT | {"image": FRAMED, "compressor": compressor})
    read = np.zeros((5, config.tokens_per_view), dtype=np.float32)
    read[2, token] = 1
    laid = to_map(to_patches(read, compressor.owners(config.grid)), grid_boxes(60, 40, config), 60, 40)
    fine = laid.repeat(2, axis=0).repeat(2, axis=1)
    left, top, right, bottom = (round(2 * at) for at in box)
    inside = fine[top:bottom, left:right]
    assert inside.min() > 0
    assert laid.sum() == pytest.approx(1 if box[2] < 60 else 0.5, rel=1e-5), "the frame shows nothing of the picture"
    touched = laid[int(box[1]) : -int(-box[3] // 1), int(box[0]) : -int(-box[2] // 1)]
    assert touched.sum() == pytest.approx(laid.sum(), rel=1e-5)


def test_what_tiles_keep_is_theirs_alone() -> None:
    config = tiny_config(**CUT | {"image": FRAMED})
    whole, quarters = (0, 0, 60, 40), [(0, 0, 30, 20), (30, 0, 60, 20), (0, 20, 30, 40), (30, 20, 60, 40)]
    np.testing.assert_allclose(kept_boxes(60, 40, config), [whole, *quarters], atol=1e-9)
    assert grid_boxes(60, 40, config)[1] == pytest.approx((-7.5, -5, 37.5, 25))
    plain = tiny_config(**CUT | {"image": ImageConfig(**TILES)})
    assert kept_boxes(60, 40, plain) == grid_boxes(60, 40, plain)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (20, 20), (90, 11)])
def test_every_model_has_a_page(name: str, size: tuple[int, int]) -> None:
    vlm = tiny_vlm(**MODELS[name])
    made = vlm.explain(picture(1, *size), "What is it?", max_new_tokens=3)
    stored = json.loads(json.dumps(made.to_dict()))
    count = len(made.boxes)
    assert len(made.kept) == sum(made.rows) == count
    assert stored["rows"] == list(made.rows)
    assert np.shape(stored["kept"]) == made.arrays()["kept"].shape == (count, 4)
    assert made.draw().width > 900
    if name == "resampled":
        assert made.answer_image is None
        assert stored["answer_image"] is None
        return
    assert made.answer_image is not None
    assert made.answer_image.dtype == np.float32
    assert made.answer_image.shape == (count, 6, 6)
    assert made.answer_image.sum() == pytest.approx(1, rel=1e-5)
    assert stored["answer_image"] == pytest.approx(made.answer_image, abs=1e-6)
    inner = made.answer_image[:, 1:-1, 1:-1].sum()
    assert (inner == pytest.approx(1, rel=1e-5)) == (name == "stitched"), "only who drops its margin reads none of it"


@pytest.mark.parametrize(
    ("name", "titles", "told"),
    [
        ("static", ["picture", "answer"], ""),
        ("dynamic", ["picture", "answer, all views", "answer, thumbnail", "answer, tiles"], "2 x 2 tiles, and"),
        ("without thumbnail", ["picture", "answer"], "2 x 2 tiles."),
        ("framed", ["picture", "answer, all views", "answer, thumbnail", "answer, tiles"], "neighbors share"),
        ("resampled", ["picture"], "whole view"),
    ],
)
def test_panels_tell_thumbnail_and_tiles_apart(name: str, titles: list[str], told: str) -> None:
    made = tiny_vlm(**MODELS[name]).explain(picture(1, WIDTH, HEIGHT), "What?", max_new_tokens=1)
    panels, notes = made._views()
    assert [panel.title for panel in panels] == titles
    assert told in " ".join(notes)
    tiles = made.kept[made.rows[0] :] if len(made.rows) > 1 else ()
    assert panels[0].lines == tiles
    if len(titles) == 4:
        everything, thumbnail, cut = (panel.weights for panel in panels[1:])
        assert not thumbnail[1:].any()
        assert not cut[0].any()
        np.testing.assert_array_equal(thumbnail + cut, everything)


def test_what_neighbors_share_is_hatched() -> None:
    plain = Image.new("RGB", (40, 20), "black")
    marked = np.asarray(hatch(plain, [(-3, 0, 24, 20), (16, 0, 43, 20)])).any(axis=-1)
    assert not marked[:, :16].any()
    assert not marked[:, 24:].any()
    assert 0.1 < marked[:, 16:24].mean() < 0.5
    assert hatch(plain, [(0, 0, 20, 20), (20, 0, 40, 20)]).tobytes() == plain.tobytes()


@pytest.mark.parametrize("color", ["black", "white"])
def test_lines_show_on_any_picture(color: str) -> None:
    plain = Image.new("RGB", (40, 20), color)
    ground = np.asarray(plain)[0, 0]
    marked = (np.asarray(outline(plain, [(0, 0, 20, 20), (20, -8, 40, 20)])) != ground).any(axis=-1)
    assert marked[10, [0, 1, 19, 20, 21, 38, 39]].any()
    assert marked[3:16, 18:23].any(axis=1).all(), "the border between two boxes"
    assert marked[3:16, 37:].any(axis=1).all(), "the last one is not beyond the picture"
    assert not marked[3:16, 5:16].any()
