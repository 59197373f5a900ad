"""Pure integers: which views a picture becomes and how many visual tokens they cost, known before any pixel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from saccade.config import Fit, ImageConfig
from saccade.errors import ImageError

PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """How one view is made: a region of the picture is resized, and the view is cut out of it.

    Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive.

    Attributes:
        region: Box in the picture. It may reach beyond the picture; what lies outside is filled with the gray of
            `ImageConfig.pad_value`.
        size: Width and height in pixels that the region is resized to.
        kept: Box in the resized region that is the view's own. Those of the tiles cover it without gap or overlap.
        margin: Pixels by which the view reaches beyond `kept` on each side, into its neighbors or, at the rim, into a
            frame of the same gray.
    """

    region: PixelBox
    size: tuple[int, int]
    kept: PixelBox
    margin: int = 0

    @property
    def crop(self) -> PixelBox:
        """Box of the view in the resized region; what lies outside of it is frame."""
        left, top, right, bottom = self.kept
        return (left - self.margin, top - self.margin, right + self.margin, bottom + self.margin)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the view shows, frame included, as a box in the picture; its border may lie between two pixels."""
        left, top, right, bottom = self.region
        width, height = self.size
        crop = self.crop
        return (
            left + crop[0] * (right - left) / width,
            top + crop[1] * (bottom - top) / height,
            left + crop[2] * (right - left) / width,
            top + crop[3] * (bottom - top) / height,
        )


def view_rows(width: int, height: int, config: ImageConfig) -> tuple[int, ...]:
    """Return how the views of a picture stand in rows, in the order in which the model reads them.

    The first entry counts the views of the whole picture: 1 for the only view of a picture that is not cut and for a
    thumbnail, 0 for tiles without one. Each further entry is the number of tiles in a row, from the top down. The
    entries sum to the number of views.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        config: How pictures become views.

    Raises:
        ImageError: when a side is not positive.
    """
    if width < 1 or height < 1:
        raise ImageError(f"a picture of {width} x {height} pixels has nothing to show: both sides must be at least 1")
    columns, rows = _grid(width, height, config)
    return (1,) if columns * rows == 1 else (int(config.thumbnail), *[columns] * rows)


def views(width: int, height: int, config: ImageConfig) -> tuple[View, ...]:
    """Return the views of a picture, in the order of `view_rows`.

    "squash" takes the whole picture whatever its shape; "pad" takes the smallest box around it that has the shape of
    the grid, a square for a single view, with the picture in the middle and, where what is left over is odd, one pixel
    closer to the left or the top.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        config: How pictures become views.

    Raises:
        ImageError: when a side is not positive.
    """
    whole, *tiles = view_rows(width, height, config)
    fit = config.fit if config.layout == "single" else config.thumbnail_fit
    shown = _cut(_region(width, height, fit), config) if whole else ()
    if tiles:
        grid = tiles[0], len(tiles)
        shown += _cut(_region(width, height, config.fit, *grid), config, *grid)
    return shown


def num_views(width: int, height: int, config: ImageConfig) -> int:
    """Count the views of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return sum(view_rows(width, height, config))


def num_image_tokens(width: int, height: int, config: ImageConfig, tokens_per_view: int) -> int:
    """Count the visual tokens of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return num_views(width, height, config) * tokens_per_view


def _grid(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """Return the columns and rows of the tiles of a picture, 1 and 1 where it is not cut.

    The dynamic rule is MiniCPM-V's, which Flash-VL's code calls: of the grids with about as many tiles as the picture
    has times the pixels of `grid_side` squared, the one whose shape is nearest to the picture's by ratio; of two that
    are equally near, the one with fewer tiles, then with fewer columns. Ratios are compared as fractions: their
    logarithms have the same order, but rounded ones could break a tie.
    """
    if config.layout != "dynamic":
        return config.tiles_per_side, config.tiles_per_side
    about = min(-(-width * height // (config.grid_side or config.side) ** 2), config.max_tiles)
    if about == 1:
        return 1, 1
    grids = [
        (columns, count // columns)
        for count in (about - 1, about, about + 1)
        if 1 < count <= config.max_tiles
        for columns in range(1, count + 1)
        if count % columns == 0
    ]
    return min(grids, key=lambda grid: _distance(Fraction(width * grid[1], height * grid[0])))


def _distance(ratio: Fraction) -> Fraction:
    """How far a ratio is from 1, in the order of its absolute logarithm."""
    return max(ratio, 1 / ratio)


def _region(width: int, height: int, fit: Fit, columns: int = 1, rows: int = 1) -> PixelBox:
    """Return the region of a picture that is resized to the shape of a grid."""
    if fit == "squash":
        return (0, 0, width, height)
    common = math.gcd(columns, rows)
    across, down = columns // common, rows // common
    unit = max(-(-width // across), -(-height // down))
    left, top = -((unit * across - width) // 2), -((unit * down - height) // 2)
    return (left, top, left + unit * across, top + unit * down)


def _cut(region: PixelBox, config: ImageConfig, columns: int = 1, rows: int = 1) -> tuple[View, ...]:
    """Return the views of a region that is cut into a grid, row by row."""
    step = config.side - 2 * config.margin
    width, height = step * columns, step * rows
    return tuple(
        View(region, (width, height), (left, top, left + step, top + step), config.margin)
        for top in range(0, height, step)
        for left in range(0, width, step)
    )
