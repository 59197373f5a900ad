"""Dense labels: what each patch of a grid over the picture shows."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.glyphs import CHARACTERS
from saccade.data.scenes.nearest import nearest_objects
from saccade.data.scenes.scene import Scene, SceneObject
from saccade.data.scenes.shapes import SHAPES
from saccade.errors import DataError

LEAST_COVERAGE = 0.12
# Characters of what is written on a thing that its patches are told, from the first on.
SPELLED = 5
# Nearer to what is asked than a coin's toss; questions about the nearest keep a wider margin.
_NEAREST_MARGIN = 1.15

_VOCABULARIES = {"shape": SHAPES, "color": COLORS, "character": CHARACTERS}


def patch_labels(scene: Scene, grid: int) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
    """Labels for a grid x grid division of the picture, squashed to a square.

    Args:
        scene: What to label.
        grid: Patches along each side.

    Returns:
        `shape`, `color`, `character`: int64 `[grid, grid]`, 0 for nothing, else 1 + the index into `SHAPES`, `COLORS`,
        `CHARACTERS`, of the object that covers most of the patch, if it covers at least `LEAST_COVERAGE` of it. A mark
        that covers as much comes before the object it stands on.
        `center`: int64 `[grid, grid]`, 1 where the center of an object's or a mark's box falls (a ring's may be bare
        background).
        `offset`: float32 `[grid, grid, 2]`, (x, y) from the middle of a labelled patch to the center of its object or
        mark, in fractions of the picture's sides; 0 elsewhere.
        `spelling`: int64 `[grid, grid, SPELLED]`, the characters of what is written on the object, on the patches of
        the object and of its letters, as 1 + the index into `CHARACTERS`; 0 beyond its end and elsewhere.
        `neighbor`: int64 `[grid, grid, 2]`, shape and color, as above, of the shape clearly nearest to the shape that
        the patch shows; 0 elsewhere.

    Raises:
        DataError: The grid has no patch, or patches smaller than a pixel.
    """
    height, width = scene.instance_map.shape
    if not 1 <= grid <= min(height, width):
        raise DataError(
            f"grid must lie between 1 and the shorter side of the picture, {min(height, width)}, not {grid}"
        )
    things = scene.objects + scene.marks
    owner = _owners(scene, grid)
    labels: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {}
    for field, vocabulary in _VOCABULARIES.items():
        words = [getattr(item, field) for item in things]
        table = np.array([0] + [vocabulary.index(word) + 1 if word else 0 for word in words], dtype=np.int64)
        labels[field] = table[owner]
    labels["spelling"] = _spelling(scene)[owner]
    labels["neighbor"] = _neighbors(scene)[owner]
    centers = np.array([item.center for item in things], dtype=np.float64).reshape(-1, 2) / (width, height)
    center = np.zeros((grid, grid), dtype=np.int64)
    columns, rows = np.minimum((centers * grid).astype(np.int64), grid - 1).T
    center[rows, columns] = 1
    labels["center"] = center
    middles = (np.arange(grid) + 0.5) / grid
    offset = np.zeros((grid, grid, 2), dtype=np.float32)
    row, column = np.nonzero(owner)
    offset[row, column] = centers[owner[row, column] - 1] - np.stack([middles[column], middles[row]], axis=-1)
    labels["offset"] = offset
    return labels


def _spelling(scene: Scene) -> NDArray[np.int64]:
    """Character labels of what is written on each object and mark, `[1 + objects + marks, SPELLED]`; row 0 is nothing.

    Written is what the marks in an object's box spell. What an object only stands for, as a bar for its value, is not.
    """
    table = np.zeros((1 + len(scene.objects) + len(scene.marks), SPELLED), dtype=np.int64)
    for number, item in enumerate(scene.objects, start=1):
        if not item.content:
            continue
        letters = [index for index, mark in enumerate(scene.marks) if _is_in(mark, item)]
        if "".join(scene.marks[index].character for index in letters) == item.content:
            code = [CHARACTERS.index(character) + 1 for character in item.content[:SPELLED]]
            own = [number, *(1 + len(scene.objects) + index for index in letters)]
            table[own, : len(code)] = code
    return table


def _neighbors(scene: Scene) -> NDArray[np.int64]:
    """Shape and color of the shape nearest to each, `[1 + objects + marks, 2]`; row 0 is nothing."""
    height, width = scene.instance_map.shape
    table = np.zeros((1 + len(scene.objects) + len(scene.marks), 2), dtype=np.int64)
    nearest = nearest_objects(scene.objects, width, height, _NEAREST_MARGIN)
    for number, (item, other) in enumerate(zip(scene.objects, nearest, strict=True), start=1):
        if item.shape and other is not None and other.shape:
            table[number] = SHAPES.index(other.shape) + 1, COLORS.index(other.color) + 1
    return table


def _is_in(mark: SceneObject, item: SceneObject) -> bool:
    """Whether the middle of a mark lies in an object's box."""
    (x, y), (left, top, right, bottom) = mark.center, item.box
    return left <= x <= right and top <= y <= bottom


def _owners(scene: Scene, grid: int) -> NDArray[np.int64]:
    """The number (index + 1) of the object or mark each patch shows, 0 for none, `[grid, grid]`."""
    height, width = scene.instance_map.shape
    objects = len(scene.objects)
    numbers = np.arange(1, objects + len(scene.marks) + 1, dtype=np.int8)
    masks = (scene.instance_map == numbers[:, None, None]).astype(np.float32)
    shares = _overlaps(height, grid) @ masks @ _overlaps(width, grid).T
    owner: NDArray[np.int64] = shares[:objects].argmax(axis=0) + 1
    owner[shares[:objects].max(axis=0) < LEAST_COVERAGE] = 0
    if scene.marks:
        marked = shares[objects:].max(axis=0) >= LEAST_COVERAGE
        owner[marked] = objects + 1 + shares[objects:].argmax(axis=0)[marked]
    return owner


@cache
def _overlaps(pixels: int, grid: int) -> NDArray[np.float32]:
    """The share each pixel has in each patch along one side, `[grid, pixels]`; rows sum to 1.

    Patch borders fall between pixels only by luck, so a pixel may count for two patches in part.
    """
    borders = np.arange(grid + 1) * (pixels / grid)
    starts = np.arange(pixels)
    shared = np.minimum(borders[1:, None], starts + 1) - np.maximum(borders[:-1, None], starts)
    shares: NDArray[np.float32] = (np.maximum(shared, 0) * (grid / pixels)).astype(np.float32)
    return shares
