"""The rendered world: what sets the families clutter, text and charts apart, and what they say to practice on."""

import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from saccade.config import ImageConfig
from saccade.data.scenes import (
    COLORS,
    FAMILIES,
    SHAPES,
    Dice,
    Scene,
    ask_to_describe,
    ask_where,
    ask_without_picture,
    patch_labels,
    render,
    sketch,
)
from saccade.data.scenes.colors import lightness
from saccade.data.scenes.scene import SceneObject
from saccade.data.scenes.signs import WORDS
from saccade.data.scenes.text import HEIGHTS
from saccade.image.transform import to_views
from saccade.presets import nano, nano_hd
from scene_answers import the

VIEW = 90


def squashed(scene: Scene, item: SceneObject) -> tuple[float, float]:
    """Half the width and half the height of a thing in pixels of a square view."""
    height, width = scene.image.shape[:2]
    left, top, right, bottom = item.box
    return (right - left) / 2 * VIEW / width, (bottom - top) / 2 * VIEW / height


def test_clutter_is_many_small_things_apart() -> None:
    numbers = set()
    for index in range(60):
        scene = render("clutter", "test", index)
        numbers.add(len(scene.objects))
        shapes = [item for item in scene.objects if item.shape]
        assert shapes
        assert len(shapes) < len(scene.objects)
        for item in shapes:
            across, down = squashed(scene, item)
            assert 4.5 <= np.sqrt(across * down) <= 6.1
        for number, item in enumerate(shapes):
            for other in shapes[:number]:
                radii = (item.box[2] - item.box[0] + other.box[2] - other.box[0]) / 2
                assert np.hypot(*np.subtract(item.center, other.center)) > radii
    assert min(numbers) >= 12
    assert max(numbers) <= 20
    assert len(numbers) >= 6


def test_what_clutter_does_not_show_is_there_in_parts() -> None:
    for index in range(100):
        scene = sketch("clutter", "train", index)
        for question in scene.questions:
            if question.type == "existence" and question.answer == "no":
                kind = "shape" if question.form == "existence.shape" else "character"
                things = [item for item in scene.objects if getattr(item, kind)]
                assert any(item.color in question.text for item in things)
                assert any(f" {getattr(item, kind)}" in question.text for item in things)


def test_words_are_those_listed_and_numbers_have_two_to_four_digits() -> None:
    assert len(set(WORDS)) == len(WORDS) == 40
    assert {len(word) for word in WORDS} <= {3, 4, 5}
    said = {"word": set(), "number": set()}
    for index in range(500):
        for question in sketch("text", "train", index).questions:
            if question.type in said:
                said[question.type].add(question.answer)
    assert said["word"] <= set(WORDS)
    assert len(said["word"]) >= 38
    assert all(number == str(int(number)) and 10 <= int(number) <= 9999 for number in said["number"])
    assert {len(number) for number in said["number"]} == {2, 3, 4}


def test_the_form_of_a_reading_says_how_large_the_letters_are() -> None:
    sizes = set()
    for index in range(120):
        scene = sketch("text", "test", index)
        if len(scene.objects) > 1:
            continue
        (question,) = scene.questions
        size = question.form.partition(".")[2]
        low, high = (edge * np.sqrt(scene.width * scene.height) for edge in HEIGHTS[size])
        # A turned or slanted letter's box is higher than the letter.
        heights = [item.box[3] - item.box[1] for item in scene.marks]
        assert 0.9 * low <= max(heights) <= 1.45 * high + 1, (index, size, heights)
        sizes.add(size)
    assert sizes == set(HEIGHTS)


def ink_height(scene: Scene, number: int, config: ImageConfig) -> float:
    """How high the thing of a number stands in the views of a model, in pixels; tiles are put together again."""
    picture = np.zeros((*scene.instance_map.shape, 3), np.uint8)
    picture[..., 0] = 255 * (scene.instance_map == number)
    views = to_views(Image.fromarray(picture), config).astype(int)
    shown = views[:, 0] - views[:, 1]  # padding is gray: alike in all channels
    if config.layout == "tiles":
        side = config.tiles_per_side
        shown = np.block([list(row) for row in shown[-(side**2) :].reshape(side, side, *shown.shape[1:])])[None]
    rows = shown[0].max(axis=1)
    return float(rows.sum() / rows.max())


def test_small_letters_take_the_views_of_hd() -> None:
    heights: dict[str, list[tuple[float, float]]] = {size: [] for size in HEIGHTS}
    for index in range(60):
        scene = render("text", "test", index)
        if len(scene.objects) > 1:
            continue
        size = scene.questions[0].form.partition(".")[2]
        letters = range(2, 2 + len(scene.marks))
        squash, tiles = (
            float(np.median([ink_height(scene, letter, config().image) for letter in letters]))
            for config in (nano, nano_hd)
        )
        heights[size].append((squash, tiles))
    assert min(map(len, heights.values())) >= 3
    assert all(squash < 4 and 3 < tiles < 7.5 and tiles > 1.2 * squash for squash, tiles in heights["small"])
    assert all(6 < squash < 11.5 for squash, _ in heights["medium"])
    assert all(squash > 10 for squash, _ in heights["large"])


def test_letters_stand_on_their_sign_in_order_and_can_be_seen() -> None:
    for index in range(60):
        scene = render("text", "shifted", index)
        assert "".join(item.content for item in scene.objects) == "".join(item.character for item in scene.marks)
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        start = 0
        for number, sign in enumerate(scene.objects, start=1):
            letters = scene.marks[start : start + len(sign.content)]
            start += len(letters)
            left, top, right, bottom = sign.box
            assert left >= 0
            assert top >= 0
            assert right <= scene.image.shape[1]
            assert bottom <= scene.image.shape[0]
            for letter in letters:
                assert left < letter.box[0] < letter.box[2] < right
                assert top < letter.box[1] < letter.box[3] < bottom
                assert letter.color != sign.color
            assert all(one.center[0] < other.center[0] for one, other in pairwise(letters))
            ink = scene.image[np.isin(scene.instance_map, range(len(scene.objects) + 1, 100)) & _inside(scene, sign)]
            board = np.median(scene.image[scene.instance_map == number], axis=0)
            assert max(abs(lightness(tuple(pixel)) - lightness(tuple(board))) for pixel in ink) > 60


def _inside(scene: Scene, item: SceneObject) -> np.ndarray:
    rows, columns = np.indices(scene.instance_map.shape)
    left, top, right, bottom = item.box
    return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)


@pytest.mark.parametrize("split", ["train", "shifted"])
def test_charts_are_drawn_to_scale_in_colors_of_their_own(split: str) -> None:
    kinds, values = set(), set()
    for index in range(150):
        scene = sketch("charts", split, index)
        kinds.add(scene.objects[0].kind)
        assert 2 <= len(scene.objects) <= 5
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        numbers = np.array([int(item.content) for item in scene.objects])
        values |= set(numbers.tolist())
        tops = np.array([item.box[1] if item.kind == "bar" else item.center[1] for item in scene.objects])
        if scene.objects[0].kind == "bar":
            heights = np.array([item.box[3] - item.box[1] for item in scene.objects])
            assert np.ptp(heights / numbers) < 1e-6
        elif len(set(numbers.tolist())) > 1:
            slope, start = np.polyfit(numbers, tops, 1)
            assert slope < 0
            assert np.abs(slope * numbers + start - tops).max() < 1e-6
        edges = np.array([item.box for item in scene.objects + scene.marks])
        assert edges.min() >= -0.5
        assert edges[:, 2].max() <= scene.width + 0.5
        assert edges[:, 3].max() <= scene.height + 0.5
    assert kinds == {"bar", "point"}
    assert values == set(range(1, 10))


def test_a_bar_chart_says_its_values_or_has_an_axis() -> None:
    axes = 0
    for index in range(150):
        scene = sketch("charts", "val", index)
        written = [item.character for item in scene.marks]
        if written == [item.content for item in scene.objects]:
            assert scene.objects[0].kind == "bar"
            assert all(
                abs(mark.center[0] - item.center[0]) < 3 and mark.box[3] < item.box[1] + 1
                for mark, item in zip(scene.marks, scene.objects, strict=True)
            )
        else:
            assert "".join(written) in ("0246", "0369", "0510")
            assert all(mark.box[2] < min(item.box[0] for item in scene.objects) for mark in scene.marks)
            axes += 1
    assert 75 < axes < 140


@pytest.mark.parametrize("family", ["clutter", "text", "charts", "seams"])
def test_practice_questions_name_one_thing(family: str) -> None:
    dice, asked = Dice(np.random.default_rng(0)), 0
    for index in range(30):
        scene = render(family, "train", index)
        described = ask_to_describe(dice, scene)
        if family == "clutter":
            assert described is None, "its caption names what chance chose"
        else:
            assert described.answer == scene.caption
        where = ask_where(dice, scene)
        if where is not None:
            asked += 1
            color = next((color for color in COLORS if f" {color} " in where.text), "")
            kind = where.text.rstrip("?").split("the ")[-1].split(",")[0].removeprefix(f"{color} ").split(" ")[0]
            if kind not in ("object", "digit"):
                the(scene, color, kind)
    assert asked >= 25


@pytest.mark.parametrize("family", FAMILIES)
def test_practice_questions_are_worded_anew_in_the_shifted_split(family: str) -> None:
    said: dict[str, set[str]] = {"train": set(), "shifted": set()}
    for split, texts in said.items():
        dice = Dice(np.random.default_rng(0))
        for index in range(20):
            scene = render(family, split, index)
            asked = [ask_where(dice, scene), ask_to_describe(dice, scene), ask_without_picture(dice, split)]
            names = rf"\b({'|'.join(COLORS)}|{'|'.join(SHAPES)}|object|digit|bar|point|sign|[0-9])\b"
            texts |= {re.sub(names, "_", question.text) for question in asked if question is not None}
    assert len(said["shifted"]) >= 6
    assert not said["shifted"] & said["train"]


@pytest.mark.parametrize("family", ["objects", "digits", "practice"])
def test_a_caption_that_names_all_is_asked_for(family: str) -> None:
    for index in range(30):
        assert ask_to_describe(Dice(np.random.default_rng(index)), render(family, "train", index)) is not None


def test_a_page_has_many_times_the_letters_of_a_sign() -> None:
    labelled = {}
    for family in ("pages", "text"):
        drawn = [render(family, "train", index) for index in range(20)]
        labelled[family] = sum(int((patch_labels(scene, 9)["character"] > 0).sum()) for scene in drawn)
        assert all(scene.questions for scene in drawn) == (family == "text")
    assert labelled["pages"] > 3 * labelled["text"]
