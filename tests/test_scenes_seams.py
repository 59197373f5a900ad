"""The rendered world: family seams, held against the tiles that pictures are really cut into."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from saccade.config import ImageConfig
from saccade.data.scenes import SceneObject, render, sketch
from saccade.data.scenes.dice import dice_for
from saccade.data.scenes.scene import Box, Sketch
from saccade.data.scenes.seams import GRIDS, TILE_SIDE, sketch_seams
from saccade.image.geometry import view_rows, views

PLAIN = ImageConfig(side=TILE_SIDE, layout="dynamic", max_tiles=4)
# An eighth of a view's side, in whole patches of ten pixels, on each side of a tile.
OVERLAPPED = ImageConfig(side=TILE_SIDE, layout="dynamic", max_tiles=4, margin=10)
INNER = ImageConfig(side=TILE_SIDE, layout="dynamic", max_tiles=4, margin=10, grid_side=TILE_SIDE - 20)


@pytest.fixture(scope="module")
def drawn() -> list[Sketch]:
    return [sketch("seams", "test", index) for index in range(300)]


def things(scene: Sketch) -> Iterator[tuple[bool, SceneObject, tuple[SceneObject, ...]]]:
    """Each thing: whether it lies across a border, the thing, and its letters or, of a shape, itself."""
    start = 0
    for number, item in enumerate(scene.objects):
        parts = scene.marks[start : start + len(item.content)] or (item,)
        start += len(item.content)
        yield number < len(scene.objects) // 2, item, parts


def around(items: tuple[SceneObject, ...]) -> Box:
    edges = np.array([item.box for item in items])
    return (*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist())


def inside(inner: Box, outer: Box, gap: float = 0.0) -> bool:
    near = [inner[axis] - outer[axis] >= gap for axis in (0, 1)]
    far = [outer[axis] - inner[axis] >= gap for axis in (2, 3)]
    return all(near + far)


@pytest.mark.parametrize("config", [PLAIN, OVERLAPPED, INNER], ids=["plain", "overlapped", "inner"])
def test_the_natural_grid_is_that_of_the_cells(drawn: list[Sketch], config: ImageConfig) -> None:
    seen = Counter()
    for scene in drawn:
        whole, *rows = view_rows(scene.width, scene.height, config)
        assert whole == 1
        grid = rows[0], len(rows)
        nearest = min(GRIDS, key=lambda shape: abs(np.log(scene.width / scene.height * shape[1] / shape[0])))
        assert grid == nearest
        seen[grid] += 1
    assert seen.keys() == set(GRIDS)
    assert min(seen.values()) > 20


def test_it_is_so_for_tiles_of_another_side() -> None:
    config = PLAIN.model_copy(update={"side": 384})
    for index in range(40):
        scene = sketch_seams(dice_for("seams", "test", index, 3), "test", tile_side=384)
        like = sketch("seams", "test", index)
        assert view_rows(scene.width, scene.height, config) == view_rows(like.width, like.height, PLAIN)
        assert [item.content or item.shape for item in scene.objects] == [
            item.content or item.shape for item in like.objects
        ]
    assert max(scene.paint()[0].shape) > 2 * 320, "larger than the tile that noise is repeated from"


def test_borders_cut_half_of_the_things_and_keep_clear_of_the_others(drawn: list[Sketch]) -> None:
    """Of what lies across a border a letter, or the shape itself, is cut in its middle part, here or there."""
    cuts, places = [], Counter()
    for scene in drawn:
        tiles = [view.box for view in views(scene.width, scene.height, PLAIN)[1:]]
        cell = np.sqrt(scene.width * scene.height / len(tiles))
        for crossing, item, parts in things(scene):
            if not crossing:
                assert any(inside(item.box, tile, 0.029 * cell) for tile in tiles)
                continue
            touched = [tile for tile in tiles if overlaps(item.box, tile)]
            assert len(touched) == 2
            axis = 0 if touched[0][1] == touched[1][1] else 1
            border = touched[0][axis + 2]
            share = [(border - part.box[axis]) / (part.box[axis + 2] - part.box[axis]) for part in parts]
            cut = [number for number, part in enumerate(share) if 0.299 <= part <= 0.701]
            assert cut, (scene.caption, share)
            if axis:
                assert all(0 < part < 1 for part in share), "a border below the first letter and above the last"
            else:
                places[cut[0] - len(parts)] += 1
            cuts.append(share[cut[0]])
    assert np.ptp(cuts) > 0.35
    assert np.std(cuts) > 0.08
    assert len(places) >= 4


def overlaps(one: Box, other: Box) -> bool:
    return all(one[axis] < other[axis + 2] and other[axis] < one[axis + 2] for axis in (0, 1))


def test_what_plain_tiles_cut_overlapping_ones_show_whole(drawn: list[Sketch]) -> None:
    for scene in drawn:
        plain, overlapped = (
            [view.box for view in views(scene.width, scene.height, config)[1:]] for config in (PLAIN, OVERLAPPED)
        )
        for crossing, _, parts in things(scene):
            box = around(parts)
            assert any(inside(box, tile) for tile in plain) != crossing
            assert any(inside(box, tile) for tile in overlapped)


def test_ink_lies_on_both_sides_of_the_border() -> None:
    for index in range(40):
        scene = render("seams", "test", index)
        height, width = scene.instance_map.shape
        tiles = [view.box for view in views(width, height, PLAIN)[1:]]
        tile_of = np.zeros((height, width), dtype=int)
        for number, (left, top, right, bottom) in enumerate(tiles):
            tile_of[round(top) : round(bottom), round(left) : round(right)] = number
        half, start = len(scene.objects) // 2, len(scene.objects) + 1
        for number, item in enumerate(scene.objects):
            own = range(start, start + len(item.content)) if scene.marks else [number + 1]
            start += len(item.content)
            # A thing across a border has one letter at least with ink in two tiles.
            split = [len(np.unique(tile_of[scene.instance_map == part])) for part in own]
            assert (max(split) == 2) == (number < half), (index, item)


def test_letters_and_shapes_take_a_tile(drawn: list[Sketch]) -> None:
    """At views of 90 pixels: ten high in a tile, and in the thumbnail too low or too narrow to read."""
    for scene in drawn:
        thumbnail, tile, *_ = (view.box for view in views(scene.width, scene.height, PLAIN))
        for _, _, parts in things(scene):
            wide, tall = np.median([np.subtract(part.box[2:], part.box[:2]) for part in parts], axis=0)
            assert 9.9 <= tall * TILE_SIDE / (tile[3] - tile[1]) <= 15
            across, down = wide * TILE_SIDE / thumbnail[2], tall * TILE_SIDE / thumbnail[3]
            assert min(across, down) < 6.5, (scene.width, scene.height, across, down)


def test_both_halves_are_drawn_alike(drawn: list[Sketch]) -> None:
    """As many in every picture, and of the same kinds and sizes: the border alone sets them apart."""
    kinds: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    sizes: dict[bool, list[float]] = {True: [], False: []}
    for scene in drawn:
        crossing = [across for across, _, _ in things(scene)]
        assert sum(crossing) * 2 == len(crossing)
        assert len(crossing) in (2, 4)
        for across, item, parts in things(scene):
            kinds[across][item.shape or ("number" if item.content.isdigit() else "word")] += 1
            sizes[across].append((parts[0].box[3] - parts[0].box[1]) / np.sqrt(scene.width * scene.height))
    for kind in kinds[True] | kinds[False]:
        across, clear = kinds[True][kind], kinds[False][kind]
        assert abs(across - clear) < 4 * np.sqrt(across + clear), kind
    assert np.mean(sizes[True]) == pytest.approx(np.mean(sizes[False]), rel=0.05)
