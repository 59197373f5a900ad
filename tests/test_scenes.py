"""The rendered world: pictures, objects and dense labels."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.data.scenes import (
    ALL_FAMILIES,
    CHARACTERS,
    COLORS,
    DIGITS,
    FAMILIES,
    SHAPES,
    SPLITS,
    Scene,
    SceneObject,
    contact_sheet,
    patch_labels,
    render,
)
from saccade.data.scenes.colors import backdrop, distance, shade
from saccade.data.scenes.dice import dice_for
from saccade.data.scenes.glyphs import ROWS, draw_font, draw_handwritten
from saccade.errors import DataError

STORED = Path(__file__).parent / "data"
SHORT_SIDE = {"text": (190, 200)}


def assert_same(one: Scene, other: Scene) -> None:
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.instance_map, other.instance_map)
    assert (one.objects, one.caption, one.questions) == (other.objects, other.caption, other.questions)


@pytest.fixture(scope="module", params=FAMILIES)
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    return [render(request.param, "train", index) for index in range(150)]


def test_random_access_is_sequential_access(scenes: list[Scene]) -> None:
    for index in (149, 3, 70):
        assert_same(render(scenes[0].family, "train", index), scenes[index])


def test_any_index_is_reachable() -> None:
    far = render("objects", "train", 2**40 + 7)
    assert far.objects
    near = render("objects", "train", 7)
    assert (far.image.shape, far.objects) != (near.image.shape, near.objects)


def test_splits_and_families_do_not_share_scenes() -> None:
    seen = [
        render(family, split, index).image.tobytes() for family in FAMILIES for split in SPLITS for index in range(20)
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("arguments", [("stars", "train", 0), ("objects", "training", 0), ("objects", "train", -1)])
def test_wrong_arguments_are_named(arguments: tuple[str, str, int]) -> None:
    wrong = next(str(value) for value in arguments if value not in ("objects", "train", 0))
    with pytest.raises(DataError, match=wrong):
        render(*arguments)


def test_sizes_and_aspects_vary_within_bounds(scenes: list[Scene]) -> None:
    if scenes[0].family == "seams":
        pytest.skip("its sizes are those of the grids of tiles that its own tests count")
    sizes = np.array([scene.image.shape[:2] for scene in scenes])
    aspect = sizes[:, 1] / sizes[:, 0]
    least, most = SHORT_SIDE.get(scenes[0].family, (72, 160))
    assert sizes.min() >= least
    assert sizes.min(axis=1).max() <= most
    assert len(np.unique(sizes.min(axis=1))) > 0.45 * (most - least)
    assert aspect.max() <= 1.62
    assert aspect.max() > 1.5
    assert aspect.min() >= 1 / 1.62
    assert aspect.min() < 1 / 1.5


def test_instance_map_agrees_with_boxes(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.instance_map.shape == scene.image.shape[:2]
        things = scene.objects + scene.marks
        assert scene.instance_map.max() <= len(things)
        for number, item in enumerate(things, start=1):
            rows, columns = np.nonzero(scene.instance_map == number)
            left, top, right, bottom = item.box
            # The ink of a bent or heavy stroke may pass its box a little.
            slack = 2.0 + 0.08 * (bottom - top) if item.character else 1.0
            assert len(rows) > 0.05 * (right - left) * (bottom - top), (scene.family, scene.index, number)
            assert columns.min() >= left - slack
            assert columns.max() + 1 <= right + slack
            assert rows.min() >= top - slack
            assert rows.max() + 1 <= bottom + slack


def test_objects_keep_apart_and_inside() -> None:
    for index in range(150):
        scene = render("objects", "test", index)
        height, width = scene.image.shape[:2]
        short = min(width, height)
        assert 1 <= len(scene.objects) <= 5
        for number, item in enumerate(scene.objects):
            left, top, right, bottom = item.box
            assert min(left, top, width - right, height - bottom) > 0
            assert 0.179 <= (right - left) / short <= 0.341
            for other in scene.objects[:number]:
                apart = np.hypot(*np.subtract(item.center, other.center))
                radii = (right - left + other.box[2] - other.box[0]) / 2
                assert apart >= radii + 0.049 * short


def test_digits_stand_from_left_to_right_without_touching() -> None:
    for index in range(150):
        scene = render("digits", "test", index)
        boxes = [item.box for item in scene.objects]
        assert all(one[2] <= other[0] for one, other in pairwise(boxes))
        short = min(scene.image.shape[:2])
        # A wide digit in a narrow column comes out a little lower than the others.
        assert all(0.25 * short <= bottom - top <= 0.61 * short for _, top, _, bottom in boxes)


def test_colors_are_painted_as_named(scenes: list[Scene]) -> None:
    """The typical pixel of an object lies nearer to some shade of its own color than to one of any other.

    Of a very small shape it may lie on the edge.
    """
    dice = dice_for("palette", "train", 0)
    shades = {color: [shade(dice, color, "train") for _ in range(100)] for color in COLORS}
    wrong, seen = [], 0
    for scene in scenes:
        for number, item in enumerate(scene.objects, start=1):
            if item.character:
                continue
            pixel = tuple(np.median(scene.image[scene.instance_map == number], axis=0))
            nearest = min(COLORS, key=lambda color: min(distance(pixel, known) for known in shades[color]))
            seen += 1
            if nearest != item.color:
                wrong.append((scene.index, number, item.color, nearest))
    assert len(wrong) <= (0.02 * seen if scenes[0].family == "clutter" else 0), wrong


def test_backgrounds_contrast() -> None:
    dice = dice_for("backdrop", "train", 0)
    for color in COLORS:
        for _ in range(20):
            ink = shade(dice, color, "train")
            start, end = backdrop(dice, [ink])
            assert min(distance(ink, start), distance(ink, end)) >= 80


def test_shifted_shades_are_new() -> None:
    dice = dice_for("palette", "train", 1)
    for color in set(COLORS) - {"white", "black"}:
        known = [shade(dice, color, "train") for _ in range(200)]
        gaps = [min(distance(shade(dice, color, "shifted"), other) for other in known) for _ in range(50)]
        assert np.median(gaps) > 5, color


def test_handwritten_rows_are_held_out() -> None:
    blocks = [set(range(*ROWS[split])) for split in ("train", "val", "test")]
    assert sorted(set.union(*blocks)) == list(range(1797))
    assert sum(len(block) for block in blocks) == 1797
    assert ROWS["shifted"] == ROWS["test"]
    drawn = {}
    for split in ("train", "val", "test"):
        dice = dice_for("hands", split, 0)
        drawn[split] = {draw_handwritten(dice, digit, split).bitmap.tobytes() for digit in DIGITS for _ in range(40)}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["val"]
    assert not drawn["val"] & drawn["test"]


def test_shifted_fonts_are_unseen() -> None:
    fonts = {split: {draw_font(dice_for("fonts", split, i), split) for i in range(60)} for split in SPLITS}
    assert len(fonts["train"]) >= 5
    assert len(fonts["shifted"]) >= 3
    assert fonts["train"] == fonts["test"]
    assert not fonts["train"] & fonts["shifted"]


@pytest.mark.parametrize("name", sorted(path.name for path in STORED.glob("scene_*.png")))
def test_pixels_are_those_stored(name: str) -> None:
    _, family, split, index = Path(name).stem.split("_")
    stored = np.asarray(Image.open(STORED / name)).astype(int)
    drawn = render(family, split, int(index)).image.astype(int)
    assert drawn.shape == stored.shape
    assert np.abs(drawn - stored).max() <= 2


def test_a_stored_picture_of_each_family() -> None:
    assert {path.stem.split("_")[1] for path in STORED.glob("scene_*.png")} == set(ALL_FAMILIES)


def test_captions_name_every_object_with_the_number_first(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.caption.startswith(f"{len(scene.objects)} ")
        assert scene.caption.endswith(".")
        named = [item for item in scene.objects if in_words(item) in scene.caption]
        # Of many things a caption says that it names a part.
        assert len(named) >= 4 if " among them " in scene.caption else len(named) == len(scene.objects)
        assert (" among them " in scene.caption) == (scene.family == "clutter")


def in_words(item: SceneObject) -> str:
    """What a caption says of an object, but for its place."""
    if item.kind in ("bar", "point"):
        return f"{item.color} {item.content}"
    return f"{item.color} {item.kind or item.shape or item.character}"


def test_caption_places() -> None:
    scene = next(
        scene
        for scene in (render("objects", "train", index) for index in range(200))
        if len(scene.objects) == 1 and scene.objects[0].center[0] < scene.image.shape[1] * 0.3
    )
    assert "left" in scene.caption
    assert "right" not in scene.caption


def by_hand() -> Scene:
    """A 40 x 20 picture: a red circle over its left half but for a border, a 3 in blue in one corner."""
    instances = np.zeros((20, 40), dtype=np.int8)
    instances[5:15, 5:15] = 1
    instances[17:20, 34:40] = 2
    objects = (
        SceneObject(shape="circle", color="red", character="", box=(5.0, 5.0, 15.0, 15.0)),
        SceneObject(shape="", color="blue", character="3", box=(34.0, 17.0, 40.0, 20.0)),
    )
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    return Scene("objects", "train", 0, image, objects, "", (), instances)


def test_patch_labels_by_hand() -> None:
    labels = patch_labels(by_hand(), 4)  # patches of 10 x 5 pixels
    circle, red = SHAPES.index("circle") + 1, COLORS.index("red") + 1
    blue, three = COLORS.index("blue") + 1, CHARACTERS.index("3") + 1
    assert labels["shape"].tolist() == [[0, 0, 0, 0], [circle, circle, 0, 0], [circle, circle, 0, 0], [0, 0, 0, 0]]
    assert labels["color"].tolist() == [[0, 0, 0, 0], [red, red, 0, 0], [red, red, 0, 0], [0, 0, 0, blue]]
    assert labels["character"].tolist() == [[0] * 4, [0] * 4, [0] * 4, [0, 0, 0, three]]
    assert labels["center"].tolist() == [[0] * 4, [0] * 4, [0, 1, 0, 0], [0, 0, 0, 1]]
    # The circle's center is at (10 / 40, 10 / 20); patch (row 1, column 0) has its middle at (1 / 8, 3 / 8).
    assert labels["offset"][1, 0].tolist() == [0.125, 0.125]
    assert labels["offset"][2, 1].tolist() == [-0.125, -0.125]
    assert labels["offset"][0, 0].tolist() == [0.0, 0.0]


def test_patches_between_pixels_share_them() -> None:
    """With 3 columns over 40 pixels a patch ends inside pixel 13, which the circle covers up to 15."""
    labels = patch_labels(by_hand(), 3)
    # Patch (1, 1) spans columns 13.33 to 26.67, rows 6.67 to 13.33: the circle covers 1.67 / 13.33 = 12.5 % of it.
    assert labels["color"][1, 1] == COLORS.index("red") + 1
    # Patch (0, 1): as wide, but only rows 5 to 6.67 of 0 to 6.67: 3 %.
    assert labels["color"][0, 1] == 0


@pytest.mark.parametrize("grid", [1, 9, 27])
def test_patch_labels_of_rendered_scenes(scenes: list[Scene], grid: int) -> None:
    for scene in scenes[:40]:
        labels = patch_labels(scene, grid)
        height, width = scene.image.shape[:2]
        things = scene.objects + scene.marks
        assert labels["center"].sum() <= len(things)
        for item in things:
            x, y = item.center
            assert labels["center"][int(y / height * grid), int(x / width * grid)] == 1
        share, labelled = (scene.instance_map > 0).mean(), (labels["color"] > 0).mean()
        if grid == 27:
            # The smaller the things, the more of the patches that show them do so in part.
            assert 0.8 * share <= labelled <= (2.2 if scene.family in ("objects", "digits") else 3.5) * share
        rows, columns = np.nonzero(labels["color"])
        for row, column in zip(rows, columns, strict=True):
            middle = np.array([(column + 0.5) / grid, (row + 0.5) / grid])
            found = (middle + labels["offset"][row, column]) * (width, height)
            owner = [item for item in things if np.allclose(item.center, found, atol=1e-3)]
            # A letter may stand in the very middle of its sign.
            assert 1 <= len(owner) <= (2 if scene.marks else 1)
            assert labels["color"][row, column] in [COLORS.index(item.color) + 1 for item in owner]


def test_marks_come_before_what_they_stand_on() -> None:
    """A letter on a sign: the sign covers most of each of its patches, the letter an eighth of one."""
    instances = np.ones((20, 40), dtype=np.int8)
    instances[0:5, 0:2] = 2
    sign = SceneObject(shape="", color="red", character="", box=(0.0, 0.0, 40.0, 20.0), kind="sign", content="I")
    letter = SceneObject(shape="", color="white", character="I", box=(0.0, 0.0, 2.0, 5.0))
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    labels = patch_labels(Scene("text", "train", 0, image, (sign,), "", (), instances, (letter,)), 4)
    red, white = COLORS.index("red") + 1, COLORS.index("white") + 1
    assert labels["color"].tolist() == [[white, red, red, red]] + [[red] * 4] * 3
    assert labels["character"][0, 0] == CHARACTERS.index("I") + 1
    assert labels["character"].astype(bool).sum() == 1


def test_what_is_written_is_spelled_on_its_patches_and_what_is_only_meant_is_not() -> None:
    instances = np.zeros((20, 40), dtype=np.int8)
    instances[:, :20], instances[:, 20:] = 1, 2
    instances[0:10, 0:10], instances[0:10, 10:20] = 3, 4
    sign = SceneObject(shape="", color="red", character="", box=(0.0, 0.0, 20.0, 20.0), kind="sign", content="42")
    bar = SceneObject(shape="", color="blue", character="", box=(20.0, 0.0, 40.0, 20.0), kind="bar", content="7")
    four, two = (SceneObject("", "white", text, (x, 0.0, x + 10.0, 10.0)) for text, x in (("4", 0.0), ("2", 10.0)))
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    labels = patch_labels(Scene("text", "train", 0, image, (sign, bar), "", (), instances, (four, two)), 2)
    code = [CHARACTERS.index("4") + 1, CHARACTERS.index("2") + 1, 0, 0, 0]
    assert labels["spelling"].tolist() == [[code, [0] * 5], [code, [0] * 5]]


def test_a_shape_tells_the_shape_nearest_to_it_where_that_is_clear() -> None:
    """A row of circle, square and star at 0, 10 and 22 pixels, and a 3 beside the star that is nobody's neighbor."""
    instances = np.zeros((4, 40), dtype=np.int8)
    for number, x in enumerate((2, 12, 24, 36), start=1):
        instances[:, x - 2 : x + 2] = number
    shapes = (("circle", "red", 2.0), ("square", "blue", 12.0), ("star", "green", 24.0))
    objects = (
        *(SceneObject(shape, color, "", (x - 2, 0.0, x + 2, 4.0)) for shape, color, x in shapes),
        SceneObject("", "black", "3", (34.0, 0.0, 38.0, 4.0)),
    )
    image = np.zeros((4, 40, 3), dtype=np.uint8)
    labels = patch_labels(Scene("objects", "train", 0, image, objects, "", (), instances), 4)["neighbor"]
    blue_square, red_circle = (
        [SHAPES.index(shape) + 1, COLORS.index(color) + 1] for shape, color in (("square", "blue"), ("circle", "red"))
    )
    # The square and the 3 are equally far from the star; to the 3 nothing is told.
    assert labels[0].tolist() == [blue_square, red_circle, [0, 0], [0, 0]]


@pytest.mark.parametrize("grid", [0, 21])
def test_impossible_grids_are_refused(grid: int) -> None:
    with pytest.raises(DataError, match=str(grid)):
        patch_labels(by_hand(), grid)


def test_contact_sheet_shows_every_scene(scenes: list[Scene]) -> None:
    sheet = contact_sheet(scenes[:3], columns=2)
    column = np.asarray(sheet).shape[1] // 2
    first = np.asarray(sheet)[8:, 8:column]
    scene = scenes[0]
    enlarged = 314 // max(scene.image.shape)
    assert np.array_equal(
        first[: scene.image.shape[0] * enlarged : enlarged, : scene.image.shape[1] * enlarged : enlarged], scene.image
    )
    with pytest.raises(DataError, match="scene"):
        contact_sheet([], columns=2)
