"""Characters, handwritten and printed, as one kind of thing: a grayscale bitmap stamped into the picture as ink."""

import math
import string
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from saccade.data.scenes.canvas import Coverage
from saccade.data.scenes.dice import Dice

DIGITS = tuple(string.digits)
CHARACTERS = DIGITS + tuple(string.ascii_uppercase)

# Rows of the handwritten digits. The rows come writer by writer, so contiguous blocks keep the held-out hands apart.
# `shifted` shares the rows of `test`: what it shifts is fonts, shades and words.
ROWS = {"train": (0, 1347), "val": (1347, 1497), "test": (1497, 1797), "shifted": (1497, 1797)}

_UPSAMPLING = 5
_HAND_LEVELS = 16.0
_INK = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Glyph:
    """A character as a bitmap.

    `bitmap` is ink in 0..1, `[rows, columns]`, with an empty border. `box` is the (left, top, right, bottom) of the ink
    in cells of the bitmap. `edge` is over how many cells a stroke rises from paper to ink.
    """

    bitmap: Coverage
    box: tuple[float, float, float, float]
    edge: float


@dataclass(frozen=True, slots=True)
class Warp:
    """How a glyph is laid onto the picture.

    `angle` turns it (radians), `slant` shears it, `aspect` stretches its width, `bend` and `phase` sway it by a sine
    (in heights of the glyph, radians). Ink begins where the bitmap passes `level`: the lower, the heavier the stroke.
    `softness` is the width of the stroke's edge, 1 being one pixel.
    """

    angle: float
    slant: float
    aspect: float
    bend: float
    phase: float
    level: float
    softness: float

    def matrix(self, scale: float) -> tuple[float, float, float, float]:
        """(xx, xy, yx, yy) from glyph cells to picture pixels at this scale."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        width, height = scale * self.aspect, scale
        return cos * width, (cos * self.slant - sin) * height, sin * width, (sin * self.slant + cos) * height

    def extent(self, glyph: Glyph, scale: float) -> tuple[float, float]:
        """Width and height in pixels of the upright box around the warped box of the glyph's ink."""
        xx, xy, yx, yy = self.matrix(scale)
        left, top, right, bottom = glyph.box
        width, height = right - left, bottom - top
        return abs(xx) * width + abs(xy) * height, abs(yx) * width + abs(yy) * height


def draw_warp(dice: Dice, handwritten: bool, split: str) -> Warp:
    """A random warp; in `shifted` a hand writes heavier than in any other split."""
    if not handwritten:
        slight, level, softness = 0.6, dice.uniform(0.34, 0.48), dice.uniform(0.8, 2.0)
    else:
        weight = (0.36, 0.41) if split == "shifted" else (0.42, 0.52)
        slight, level, softness = 1.0, dice.uniform(*weight), dice.uniform(1.2, 4.0)
    return Warp(
        angle=math.radians(dice.uniform(-12, 12)),
        slant=slight * dice.uniform(-0.2, 0.2),
        aspect=1.0 + slight * dice.uniform(-0.2, 0.2),
        bend=slight * dice.uniform(-0.025, 0.025),
        phase=dice.uniform(0, 2 * math.pi),
        level=level,
        softness=softness,
    )


def draw_handwritten(dice: Dice, character: str, split: str) -> Glyph:
    """A handwritten digit of this class from the rows of the split."""
    return _handwritten(dice.pick(_rows_by_class(split)[character]))


def draw_font(dice: Dice, split: str) -> str:
    """One of the fonts of the split: `shifted` has fonts of its own."""
    atlas = _atlas()
    return dice.pick(atlas.shifted_fonts if split == "shifted" else atlas.fonts)


@cache
def printed(font: str, character: str) -> Glyph:
    """A character of a font."""
    atlas = _atlas()
    names = atlas.fonts + atlas.shifted_fonts
    cell = atlas.cells[names.index(font), atlas.characters.index(character)]
    # An edge of a printed stroke is one cell wide.
    return Glyph(bitmap=cell, box=_ink_box(cell), edge=1.0)


def pen(font: str, character: str) -> tuple[float, float, float]:
    """How a character is set in a line, in cells of its bitmap.

    Returns:
        How far the pen moves on, and where the middle of the ink lies: right of the pen, and above the baseline.
    """
    atlas = _atlas()
    names = atlas.fonts + atlas.shifted_fonts
    left, top, right, bottom = printed(font, character).box
    advance = float(atlas.advances[names.index(font), atlas.characters.index(character)])
    return advance, (left + right) / 2 - atlas.origin, atlas.baseline - (top + bottom) / 2


def stamp(glyph: Glyph, x: float, y: float, scale: float, warp: Warp) -> tuple[Coverage, int, int]:
    """Ink coverage of a warped glyph.

    Args:
        glyph: What to stamp.
        x: Where the middle of its ink goes, in pixels from the left.
        y: Where the middle of its ink goes, in pixels from the top.
        scale: Pixels per glyph cell.
        warp: How it is laid down.

    Returns:
        Coverage `[rows, columns]` in 0..1 and the pixel (left, top) of its corner.
    """
    width, height = warp.extent(glyph, scale)
    left, top = math.floor(x - width / 2 - 2), math.floor(y - height / 2 - 2)
    right, bottom = math.ceil(x + width / 2 + 2), math.ceil(y + height / 2 + 2)
    across = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
    down = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    xx, xy, yx, yy = warp.matrix(scale)
    size = xx * yy - xy * yx
    columns = np.float32(yy / size) * across - np.float32(xy / size) * down
    rows = np.float32(xx / size) * down - np.float32(yx / size) * across
    ink_left, ink_top, ink_right, ink_bottom = glyph.box
    reach = ink_bottom - ink_top
    columns += np.float32(warp.bend * reach) * np.sin(rows * np.float32(3.5 / reach) + np.float32(warp.phase))
    columns += np.float32((ink_left + ink_right) / 2 - 0.5)
    rows += np.float32((ink_top + ink_bottom) / 2 - 0.5)
    covered = _sample(_shrunk(glyph.bitmap, rows, columns, scale), rows, columns)
    covered -= np.float32(warp.level)
    # Never so soft that bare paper takes on ink, or that the middle of a stroke stays pale.
    covered *= np.float32(max(scale * glyph.edge / warp.softness, 0.5 / min(warp.level, 1 - warp.level)))
    covered += np.float32(0.5)
    np.maximum(covered, np.float32(0), out=covered)
    np.minimum(covered, np.float32(1), out=covered)
    return covered, left, top


def _shrunk(bitmap: Coverage, rows: Coverage, columns: Coverage, scale: float) -> Coverage:
    """The bitmap, averaged over 2 x 2 cells as often as it is drawn much smaller (rows and columns follow in place)."""
    while scale <= 0.67:
        for places in (rows, columns):
            places -= np.float32(0.5)
            places *= np.float32(0.5)
        even = bitmap[: bitmap.shape[0] // 2 * 2, : bitmap.shape[1] // 2 * 2]
        halves = even[0::2] + even[1::2]
        bitmap = (halves[:, 0::2] + halves[:, 1::2]) * np.float32(0.25)
        scale *= 2
    return bitmap


def _sample(bitmap: Coverage, rows: Coverage, columns: Coverage) -> Coverage:
    """Bilinear samples at fractional places; outside the bitmap lies what is on its (empty) border."""
    height, width = bitmap.shape
    rows = np.minimum(np.maximum(rows, np.float32(0)), np.float32(height - 1.001))
    columns = np.minimum(np.maximum(columns, np.float32(0)), np.float32(width - 1.001))
    row, column = rows.astype(np.int32), columns.astype(np.int32)
    rows -= row
    columns -= column
    place = row * width + column
    cells = bitmap.reshape(-1)
    upper = cells.take(place)
    upper += columns * (cells.take(place + 1) - upper)
    place += width
    lower = cells.take(place)
    lower += columns * (cells.take(place + 1) - lower)
    lower -= upper
    lower *= rows
    upper += lower
    sampled: Coverage = upper
    return sampled


@dataclass(frozen=True, slots=True, eq=False)
class _Atlas:
    cells: Coverage
    advances: Coverage
    baseline: int
    origin: int
    characters: tuple[str, ...]
    fonts: tuple[str, ...]
    shifted_fonts: tuple[str, ...]


@cache
def _atlas() -> _Atlas:
    with np.load(str(files(__package__) / "assets" / "glyphs.npz")) as stored:
        shifted = stored["shifted"].tolist()
        names = stored["fonts"].tolist()
        return _Atlas(
            cells=stored["cells"].astype(np.float32) / np.float32(stored["levels"] - 1),
            advances=stored["advances"],
            baseline=int(stored["baseline"]),
            origin=int(stored["origin"]),
            characters=tuple(stored["characters"].tolist()),
            fonts=tuple(name for name, held in zip(names, shifted, strict=True) if not held),
            shifted_fonts=tuple(name for name, held in zip(names, shifted, strict=True) if held),
        )


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.load(str(files(__package__) / "assets" / "digits.npz")) as stored:
        return stored["images"], stored["labels"]


@cache
def _rows_by_class(split: str) -> dict[str, tuple[int, ...]]:
    labels = _digits()[1]
    first, stop = ROWS[split]
    return {
        character: tuple(int(row) for row in range(first, stop) if labels[row] == int(character))
        for character in DIGITS
    }


@cache
def _handwritten(row: int) -> Glyph:
    """The 8 x 8 digit, upsampled by a smooth cubic: thresholded later, its gray levels become a round stroke again."""
    small = np.pad(_digits()[0][row].astype(np.float32) / np.float32(_HAND_LEVELS), 2)
    spread = _cubic(small.shape[0])
    bitmap = spread @ small @ spread.T
    bitmap = np.maximum(bitmap / bitmap.max(), np.float32(0))
    # An edge of the original is about one of its cells wide, and rises by 0.6 over it.
    return Glyph(bitmap=bitmap, box=_ink_box(bitmap), edge=_UPSAMPLING / 0.6)


@cache
def _cubic(cells: int) -> Coverage:
    """Interpolation matrix `[cells * upsampling, cells]` of the Catmull-Rom cubic."""
    places = (np.arange(cells * _UPSAMPLING) + 0.5) / _UPSAMPLING - 0.5
    t = np.abs(places[:, None] - np.arange(cells))
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t <= 1, near, np.where(t < 2, far, 0.0))
    return weights.astype(np.float32)


def _ink_box(bitmap: Coverage) -> tuple[float, float, float, float]:
    rows = np.flatnonzero((bitmap > _INK).any(axis=1))
    columns = np.flatnonzero((bitmap > _INK).any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
