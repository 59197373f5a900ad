"""Explanations: the weights are those the modules used, they lie where the patches lie, and what is missing is said."""

import json
import math
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import plain
import small
from helpers_vlm import byte_tokenizer, picture, tiny_config, tiny_vlm
from saccade.config import AverageConfig, ImageConfig, PromptConfig, QueryConfig
from saccade.errors import ImageError, PromptError
from saccade.explain import attend, grid_boxes, to_map
from saccade.explain.attention import _listen
from saccade.explain.colors import heat, lightness
from saccade.explain.draw import _broken, overlay
from saccade.explain.words import group_words
from saccade.vlm import VLM, load

SHAPES = Path(__file__).parents[1] / "src" / "saccade" / "assets" / "pictures" / "shapes.png"
BLIND = {"query": None, "query_token_id": None, "prompt": PromptConfig()}
TILES = {"image": ImageConfig(side=24, layout="tiles", fit="pad", tiles_per_side=2)}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """A model whose queries are read by two layers, at two places of the decoder."""
    return tiny_vlm(query=QueryConfig(num_queries=2, hidden_size=12, num_heads=2, num_layers=2, before_layers=(1, 2)))


def spread(weights: list[torch.Tensor]) -> np.ndarray:
    return torch.stack(weights).detach().numpy()


def head_weights(state: Any, name: str, query: torch.Tensor, keys: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Weights over the keys, head by head."""
    asked, offered = (
        plain.linear(state, f"{name}.q_proj", query),
        [plain.linear(state, f"{name}.k_proj", k) for k in keys],
    )
    width = len(asked) // small.HEADS
    heads = [slice(head * width, (head + 1) * width) for head in range(small.HEADS)]
    return [plain.softmax([asked[at] @ key[at] / math.sqrt(width) for key in offered]) for at in heads]


def by_loops(state: Any, hidden: torch.Tensor, roles: list[int], position: int, views: list[torch.Tensor]) -> Any:
    """Weights of the first layer for the query at `position`, over its instruction and over its patches."""
    module, layer = "embedded_query", "embedded_query.layers.0"
    read = [at for at, role in enumerate(roles) if role == roles[position] - 1]
    text = [
        plain.layer_norm(state, f"{layer}.text_norm", plain.linear(state, f"{module}.text_down", hidden[at]))
        for at in read
    ]
    query = plain.layer_norm(state, f"{layer}.query_norm", plain.linear(state, f"{module}.text_down", hidden[position]))
    over_text = head_weights(state, f"{layer}.text_attention", query, text)
    patches = plain.read_patches(roles, position, views, small.TOKENS_PER_VIEW)
    keys = [
        plain.layer_norm(state, f"{layer}.image_norm", plain.linear(state, f"{module}.image_down", patch))
        for patch in patches
    ]
    found = plain.attend(state, f"{layer}.text_attention", query, text, text, small.HEADS)
    return read, over_text, head_weights(state, f"{layer}.image_attention", found, keys)


@torch.no_grad()
def test_the_weights_are_those_that_loops_compute() -> None:
    model, batch = small.model(), small.batch()
    patches = torch.randn(small.NUM_VIEWS, small.GRID**2, 12, generator=torch.Generator().manual_seed(3))
    states: list[torch.Tensor] = []
    layer = model.model.language_model.layers[1]
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: states.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
        prepend=True,
    )
    rows = attend(model, batch | {"image_features": patches})
    hook.remove()
    state, width = model.model.state_dict(), batch["input_ids"].shape[1]
    for index, (row, found) in enumerate(zip(small.rows(), rows, strict=True)):
        assert found.sap is not None
        assert found.query_image is not None
        assert found.query_text is not None
        asked = [at for at, role in enumerate(row.roles) if role > 2 and role % 2]
        assert found.query_image.shape == (2, small.HEADS, len(asked), len(row.views), small.GRID, small.GRID)
        gap, views = width - len(row.ids), [patches[view] for view in row.views]
        for query, position in list(enumerate(asked))[::4] if views else []:  # loops take their time
            read, text, image = by_loops(state, states[0][index, gap:], row.roles, position, views)
            expected = np.zeros((small.HEADS, width))
            expected[:, [gap + at for at in read]] = [spread(head) for head in text]
            np.testing.assert_allclose(found.query_text[0, :, query], expected, atol=5e-5)
            flat = found.query_image[0, :, query].reshape(small.HEADS, -1)
            seen = len(image[0])
            np.testing.assert_allclose(flat[:, :seen], [spread(head) for head in image], atol=5e-5)
            assert not flat[:, seen:].any(), "a query looks at no view that comes after it"
            np.testing.assert_allclose(flat.sum(axis=-1), 1, atol=1e-5)
        for view, weights in zip(row.views, found.sap, strict=True):
            side, window = small.GRID // small.WINDOW, small.WINDOW
            windows = weights.reshape(side, window, side, window).swapaxes(1, 2).reshape(side * side, -1)
            np.testing.assert_allclose(windows, plain.sap(state, patches[view], window)[1], atol=1e-5)


def test_nothing_stays_on_the_model(vlm: VLM) -> None:
    layers = vlm.model.model.embedded_query.layers
    vlm.explain(picture(1), "Why?", max_new_tokens=1)
    with pytest.raises(PromptError, match="mm_token_type_ids"):
        attend(vlm.model, broken_inputs(vlm))
    assert not any(layer._forward_hooks for layer in layers)


def test_what_another_thread_asks_is_not_heard(vlm: VLM) -> None:
    with _listen(vlm.model.model.embedded_query) as heard:
        thread = threading.Thread(target=vlm.explain, args=(picture(1), "Why?"), kwargs={"max_new_tokens": 1})
        thread.start()
        thread.join()
        assert heard == []
        vlm.ask(picture(1), "Why?", max_new_tokens=1)
    assert len(heard) == 4


def broken_inputs(vlm: VLM) -> dict[str, torch.Tensor]:
    """Inputs that the model refuses: a picture and query tokens, but no roles."""
    ids = torch.tensor([[vlm.processor.image_token_id] * 9 + [vlm.processor.query_token_id] * 2])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "image_features": vlm.encode(picture(1)).patches,
        "view_index": torch.tensor([[0]]),
    }


def test_a_second_explanation_knows_nothing_of_the_first(vlm: VLM) -> None:
    wanted = vlm.explain(picture(2, 17, 40), "How many?", max_new_tokens=3)
    vlm.explain(picture(1), "Is there a circle in this picture?", max_new_tokens=3)
    again = vlm.explain(picture(2, 17, 40), "How many?", max_new_tokens=3)
    assert again.answer == wanted.answer == vlm.ask(picture(2, 17, 40), "How many?", max_new_tokens=3).text
    for name, array in wanted.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


def test_means_are_taken_over_heads_and_layers_and_tokens_merged_to_words(vlm: VLM) -> None:
    from saccade.vlm.chat import Conversation
    from saccade.vlm.inputs import batch_inputs

    question = "How  many, here?"
    talk = Conversation().ask(question, (vlm.encode(picture(1)),))
    raw = attend(vlm.model, batch_inputs([talk], talk.images, vlm.processor))[0]  # type: ignore[arg-type]
    made = vlm.explain(picture(1), question, max_new_tokens=1)
    assert raw.query_image is not None
    assert raw.query_text is not None
    assert made.query_text is not None
    assert raw.query_image.shape == (4, 2, 2, 1, 6, 6)
    np.testing.assert_allclose(made.query_image, raw.query_image.mean((0, 1)), rtol=1e-5)
    assert made.words == ("How", "many,", "here?")
    letters = raw.query_text.mean((0, 1))[:, raw.query_text.any((0, 1, 2))]
    assert letters.shape[1] == len(question)
    ends = ((0, 5), (5, 11), (11, 16))
    np.testing.assert_allclose(made.query_text, np.stack([letters[:, a:b].sum(1) for a, b in ends], 1), atol=1e-6)
    np.testing.assert_allclose(made.query_text.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words", "owners"),
    [
        ("a bc", ("a", "bc"), [0, 0, 1, 1]),
        (" a  b ", ("a", "b"), [0, 0, 0, 0, 1, 1]),
        ("é ü", ("é", "ü"), [0, 0, 0, 1, 1]),
        ("a\u3000b", ("a", "b"), [0, 0, 0, 0, 1]),
        (" ", (" ",), [0]),
        ("", ("",), []),
    ],
)
def test_a_token_belongs_to_the_word_of_its_last_character(
    text: str, words: tuple[str, ...], owners: list[int]
) -> None:
    tokenizer = byte_tokenizer()
    assert group_words(tokenizer(text)["input_ids"], tokenizer) == (words, owners)


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).random(shape, dtype=np.float32)


def test_a_patch_covers_its_own_pixels() -> None:
    weights = random_weights(1, 3, 3)
    expected = np.kron(weights[0], np.ones((2, 4))) / 8
    np.testing.assert_allclose(to_map(weights, [(0, 0, 12, 6)], 12, 6), expected, rtol=1e-6)


def test_padding_is_dropped() -> None:
    weights = random_weights(1, 4, 4)
    expected = np.kron(weights[0, 1:3], np.ones((3, 3))) / 9
    np.testing.assert_allclose(to_map(weights, [(0, -3, 12, 9)], 12, 6), expected, rtol=1e-6)


def test_a_pixel_on_a_border_is_shared() -> None:
    weights = np.array([[[1.0, 3.0]]], dtype=np.float32)
    np.testing.assert_allclose(to_map(weights, [(0, 0, 3, 1)], 3, 1), [[2 / 3, 1 / 3 + 1, 2]], rtol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(31, 20), (13, 57), (5, 7)])
@pytest.mark.parametrize("layout", [{}, {"layout": "tiles", "tiles_per_side": 3}])
def test_the_mass_of_all_views_is_kept(width: int, height: int, layout: dict[str, Any]) -> None:
    config = tiny_config(image=ImageConfig(side=24, **layout))
    boxes = grid_boxes(width, height, config)
    weights = random_weights(len(boxes), 6, 6)
    laid = to_map(weights, boxes, width, height)
    assert laid.dtype == np.float32
    assert laid.shape == (height, width)
    assert laid.sum() == pytest.approx(weights.sum(), rel=1e-5)
    even = to_map(np.ones_like(weights), boxes, width, height)
    assert even == pytest.approx(np.full_like(even, weights.size / even.size), rel=1e-5)


def test_the_rim_that_no_patch_covers_is_left_out() -> None:
    config = tiny_config()
    config.vision_config.image_size, config.image = 26, ImageConfig(side=26)
    assert grid_boxes(52, 26, config) == (pytest.approx((0, 0, 48, 24)),)


def test_a_padded_picture_is_explained_where_it_is() -> None:
    made = tiny_vlm(image=ImageConfig(side=24, fit="pad")).explain(picture(1, 30, 10), "What?", max_new_tokens=1)
    assert made.boxes == ((0, -10, 30, 20),)
    assert made.query_image is not None
    mean = made.query_image.mean(axis=0)
    assert made.to_map(mean).sum() == pytest.approx(mean[0, 2:4].sum(), rel=1e-5)


def test_all_views_of_a_tiled_picture_are_drawn_on_it() -> None:
    made = tiny_vlm(**TILES).explain(picture(1, 30, 20), "What?", max_new_tokens=1)
    assert made.query_image is not None
    assert made.query_image.shape == (2, 5, 6, 6)
    assert made.query_image.sum(axis=(1, 2, 3)) == pytest.approx(1, rel=1e-5)
    laid = [made.to_map(np.eye(5, dtype=np.float32)[view, :, None, None] * np.ones((6, 6))) for view in range(5)]
    assert laid[0].min() > 0, "the thumbnail shows all of the picture"
    assert laid[1][:10, :15].min() > 0, "the first tile its upper left quarter, below padding"
    assert not laid[1][10:].any()
    assert not laid[1][:, 15:].any()
    assert made.draw().width > 900


def test_the_bundled_model_explains_a_bundled_picture(tmp_path: Path) -> None:
    nano, question = load(), "What color is the triangle?"
    made = nano.explain(SHAPES, question)
    config, out = nano.model.config, tmp_path / "explanation.png"
    assert made.answer == nano.ask(SHAPES, question).text
    assert made.words == ("What", "color", "is", "the", "triangle?")
    assert made.query_image is not None
    assert made.query_text is not None
    assert made.sap is not None
    assert made.query_image.shape == (config.query.num_queries, 1, config.grid, config.grid)
    assert made.query_text.sum(axis=1) == pytest.approx(1, rel=1e-5)
    assert made.to_map(made.query_image.mean(axis=0)).sum() == pytest.approx(1, rel=1e-5)
    assert made.to_map(made.sap).sum() == pytest.approx(config.tokens_per_view, rel=1e-5)
    made.save(out)
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
    stored = json.loads(json.dumps(made.to_dict()))
    assert stored["query_image"] == pytest.approx(made.query_image.mean(axis=0), abs=1e-6)
    assert stored["words"] == list(made.words)


@pytest.mark.parametrize(
    ("changes", "held", "sentence"),
    [
        (BLIND, {"sap", "answer_image"}, "no embedded queries"),
        ({"compressor": AverageConfig(window=2)}, {"query_image", "query_text", "answer_image"}, "is not SAP"),
    ],
)
def test_what_a_model_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], held: set[str], sentence: str
) -> None:
    from saccade.explain import explanation

    made = tiny_vlm(**changes).explain(picture(1), "What?", max_new_tokens=1)
    assert made.arrays().keys() == held | {"boxes", "kept", "rows", "words"}
    weights = ("answer_image", "sap", "query_image", "query_text")
    assert {name for name in weights if made.to_dict()[name] is not None} == held
    told: list[Any] = []
    draw_page = explanation.draw_page
    monkeypatch.setattr(explanation, "draw_page", lambda *page: told.append(page[-1]) or draw_page(*page))
    assert made.draw().height > 100
    assert len(told[0]) == 1
    assert sentence in told[0][0]


def test_one_picture_is_needed_and_its_pixels(vlm: VLM) -> None:
    for wrong in (None, [picture(1), picture(2)], vlm.encode(picture(1))):
        with pytest.raises(ImageError, match=f"{type(wrong).__name__} is not a picture"):
            vlm.explain(wrong, "What?")  # type: ignore[arg-type]
    ids = torch.tensor([[65, 66]])
    with pytest.raises(PromptError, match="no picture"):
        attend(vlm.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_someone_must_look_and_it_must_be_said_at_what(vlm: VLM) -> None:
    ids = torch.tensor([[vlm.processor.image_token_id] * 9 + [65, 66]])
    inputs = broken_inputs(vlm) | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for roles in ({}, {"mm_token_type_ids": torch.tensor([[1] * 9 + [0, 0]])}):
        with pytest.raises(PromptError, match="no row has query tokens"):
            attend(vlm.model, inputs | roles)
    inputs.pop("view_index")
    with pytest.raises(PromptError, match="no view_index"):
        attend(vlm.model, inputs)


def test_the_brightest_spot_is_the_heaviest_patch() -> None:
    weights = np.zeros((1, 4, 4), dtype=np.float32)
    weights[0, 1, 2], weights[0, 3, 0] = 0.6, 0.2
    drawn = np.asarray(overlay(Image.new("RGB", (8, 8), "white"), [(0, 0, 8, 8)], weights, (40, 20)))
    seen = lightness(drawn.astype(float))
    assert seen.shape == (20, 40)
    assert np.ptp(seen[5:10, 20:30]) == 0
    assert seen[7, 25] == seen.max() > seen[17, 5] > seen[0, 0] == seen[19, 39]


def test_a_higher_weight_is_a_lighter_color() -> None:
    steps = np.diff(lightness(heat(np.linspace(0, 1, 65))))
    assert (steps > 0).all()


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_colors_on_an_even_picture_are_those_of_the_scale(brightness: int) -> None:
    weights = np.array([[[0, 0.1], [0.2, 0.4]]], dtype=np.float32)
    even = Image.new("RGB", (5, 3), (brightness,) * 3)
    drawn = np.asarray(overlay(even, [(0, 0, 5, 3)], weights, (40, 20)))
    expected = heat(np.kron(weights[0], np.ones((10, 20))) / 0.4)
    np.testing.assert_allclose(drawn, expected, atol=0.51)


def test_outlines_show_where_things_are() -> None:
    shown = Image.new("RGB", (40, 20), "white")
    shown.paste("red", (10, 5, 30, 15))
    lines = np.asarray(overlay(shown, [(0, 0, 40, 20)], np.zeros((1, 2, 2), np.float32), shown.size)).max(axis=-1)
    assert lines[10, [9, 10, 29, 30]].min() > 50
    assert lines[10, [3, 20, 36]].max() < 5


@pytest.mark.parametrize("size", [(400, 9), (9, 400), (3, 3), (3000, 1)])
@pytest.mark.parametrize("word", ["very " * 40, "m" * 100])
def test_any_aspect_and_any_question_can_be_drawn(vlm: VLM, size: tuple[int, int], word: str) -> None:
    question = f"Is it {word} large?"
    made, brief = (vlm.explain(picture(1, *size), text, max_new_tokens=1).draw() for text in (question, "Is it large?"))
    assert made.width == brief.width > 900
    assert made.height > brief.height + 100, "there are more lines of the question, and more of its words"
    pixels = np.asarray(made)
    assert (pixels[:, :30] == pixels[0, 0]).all()
    assert (pixels[:, -30:] == pixels[0, 0]).all()


@pytest.mark.parametrize("word", ["", "m", "WiWi" * 50, "m" * 100])
def test_a_word_is_broken_where_the_page_ends(word: str) -> None:
    font = ImageFont.load_default(size=25)
    pieces = _broken(word, font, 960)
    assert "".join(pieces) == word
    assert max(map(font.getlength, pieces)) <= 960
    for piece, following in pairwise(pieces):
        assert font.getlength(piece + following[0]) > 960
