"""Family `seams`: small signs and shapes, half of them across a border between the tiles that a model cuts.

A picture of n cells side by side, on top of each other or two by two has the shape and the size that a model which
cuts tiles of about `TILE_SIDE` pixels answers with that very grid. What lies across a border is cut there through a
letter or a shape; tiles that overlap by an eighth of a cell show it whole. As many things of the same kinds and sizes
lie clear of every border, in the same pictures: what they are answered better by is what the cut costs. All are so
small that they can hardly be told where the whole picture is one view of a tile's side.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from saccade.data.scenes.canvas import draw_ground
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import BoxFigure, GlyphFigure, ShapeFigure, draw_shape, painter
from saccade.data.scenes.scene import Box, Question, SceneObject, Sketch
from saccade.data.scenes.shapes import SHAPES
from saccade.data.scenes.signs import Sign, draw_line, write_sign_caption
from saccade.data.scenes.wording import ask

TILE_SIDE = 90
GRIDS = ((2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4), (2, 2))
# A cell's side in sides of a tile, and its width over its height: the natural grid is that of the cells, whether the
# picture is measured in whole tiles or in the inner parts, about seven ninths as wide, of tiles that overlap.
_CELL = (0.8, 0.9)
_STRETCH = (0.95, 1.05)
# Sizes in sides of a cell. In a tile of 90 letters are 10 to 12 pixels high and 6 to 9 wide; in one view of all cells
# they are about 6 high or 4.5 wide at most.
_HEIGHT = (0.115, 0.135)
_DIAMETER = (0.12, 0.135)
_GAP = 0.03
# Where a border cuts a letter or a shape, in fractions of its width or height, and how much of a whole word, in sides
# of a cell, may at most lie on the smaller side of it.
_CUT = (0.3, 0.7)
_OVERHANG = 0.125
_SIGNS = 0.6
_PAIRS = {1: 0.3, 2: 0.7}


@dataclass(frozen=True, slots=True)
class _Grid:
    """The cells of a picture, each of which is a tile; sizes in pixels."""

    columns: int
    rows: int
    width: int
    height: int

    @property
    def unit(self) -> float:
        """Mean side of a cell."""
        return math.sqrt(self.width * self.height / (self.columns * self.rows))

    def cells(self) -> list[Box]:
        """All cells, row by row."""
        xs, ys = self._edges()
        return [(left, top, right, bottom) for top, bottom in pairwise(ys) for left, right in pairwise(xs)]

    def borders(self) -> list[tuple[int, Box]]:
        """The lines between neighboring cells as boxes without width (axis 0) or height (axis 1)."""
        across = [(0, (right, top, right, bottom)) for _, top, right, bottom in self.cells() if right < self.width]
        down = [(1, (left, bottom, right, bottom)) for left, _, right, bottom in self.cells() if bottom < self.height]
        return across + down

    def _edges(self) -> tuple[list[float], list[float]]:
        return (
            [self.width * column / self.columns for column in range(self.columns + 1)],
            [self.height * row / self.rows for row in range(self.rows + 1)],
        )


@dataclass(frozen=True, slots=True)
class _Outline:
    """What room a thing takes around its middle, in pixels: how far it reaches, and the boxes of its letters."""

    reach: tuple[float, float]
    parts: tuple[Box, ...]


def sketch_seams(dice: Dice, split: str, tile_side: int = TILE_SIDE) -> Sketch:
    """Draw the symbolic part of a `seams` scene; the first half of its objects lie across borders.

    Args:
        dice: Draws it.
        split: One of `SPLITS`.
        tile_side: Side in pixels of the tiles that the picture is made for; all sizes are in proportion to it.
    """
    grid = _draw_grid(dice, tile_side)
    number = 2 * min(dice.weighted(_PAIRS), len(grid.borders()))
    signs = dice.chance(_SIGNS)
    figures, letters = (_put_up_signs if signs else _put_shapes)(dice, split, grid, number)
    objects = tuple(figure.as_object() for figure in figures)
    ground = draw_ground(dice, [figure.rgb for figure in figures])
    return Sketch(
        width=grid.width,
        height=grid.height,
        objects=objects,
        caption=(
            write_sign_caption(dice, objects, grid.width, grid.height)
            if signs
            else write_caption(dice, objects, grid.width, grid.height, "object")
        ),
        questions=(_ask_about_signs if signs else _ask_about_shapes)(dice, split, objects),
        paint=painter(grid.width, grid.height, ground, [*figures, *letters]),
        marks=tuple(letter.as_object() for letter in letters),
    )


def _draw_grid(dice: Dice, tile_side: int) -> _Grid:
    columns, rows = dice.pick(GRIDS)
    side, stretch = tile_side * dice.uniform(*_CELL), math.sqrt(dice.uniform(*_STRETCH))
    return _Grid(columns, rows, round(columns * side * stretch), round(rows * side / stretch))


def _put_up_signs(
    dice: Dice, split: str, grid: _Grid, number: int
) -> tuple[Sequence[BoxFigure], Sequence[GlyphFigure]]:
    signs = [_draw_sign(dice, split, grid.unit) for _ in range(number)]
    places = _draw_places(dice, grid, [_outline(sign) for sign in signs])
    colors = dice.shuffled(COLORS)
    shown = [sign.put_up(dice, split, color, *place) for sign, color, place in zip(signs, colors, places, strict=False)]
    return [board for board, _ in shown], [letter for _, letters in shown for letter in letters]


def _draw_sign(dice: Dice, split: str, unit: float) -> Sign:
    kind = dice.pick(("word", "number"))
    line = draw_line(dice, split, kind, unit, _HEIGHT, aspects=(0.75, 0.88), lean=3.0)
    padding = line.height * dice.uniform(0.3, 0.6)
    return Sign(line, line.width / 2 + padding, line.height / 2 + padding * dice.uniform(0.7, 1.0))


def _outline(sign: Sign) -> _Outline:
    letters = sign.line.figures(0.0, 0.0, "", (0.0, 0.0, 0.0))
    return _Outline(sign.reach, tuple(letter.as_object().box for letter in letters))


def _put_shapes(
    dice: Dice, split: str, grid: _Grid, number: int
) -> tuple[Sequence[ShapeFigure], Sequence[GlyphFigure]]:
    radii = [grid.unit * dice.uniform(*_DIAMETER) / 2 for _ in range(number)]
    places = _draw_places(dice, grid, [_Outline((r, r), ((-r, -r, r, r),)) for r in radii])
    figures = []
    for color, radius, (x, y) in zip(dice.shuffled(COLORS), radii, places, strict=False):
        figures.append(draw_shape(dice, split, dice.pick(SHAPES), color, x, y, radius))
    return figures, ()


def _draw_places(dice: Dice, grid: _Grid, outlines: Sequence[_Outline]) -> list[tuple[float, float]]:
    """A middle for each thing, in pixels: the first half each across a border, the others each in a cell of its own."""
    pairs, gap = len(outlines) // 2, _GAP * grid.unit
    while True:
        borders, cells = dice.shuffled(grid.borders())[:pairs], dice.shuffled(grid.cells())[:pairs]
        places = [
            *(
                _across(dice, outline, *border, grid.unit)
                for outline, border in zip(outlines[:pairs], borders, strict=True)
            ),
            *(
                (_within(dice, outline, cell, 0, gap), _within(dice, outline, cell, 1, gap))
                for outline, cell in zip(outlines[pairs:], cells, strict=True)
            ),
        ]
        taken = [(x, y, *outline.reach) for (x, y), outline in zip(places, outlines, strict=True)]
        if all(
            abs(x - x2) >= across + across2 + gap or abs(y - y2) >= down + down2 + gap
            for (x, y, across, down), (x2, y2, across2, down2) in combinations(taken, 2)
        ):
            return places


def _across(dice: Dice, outline: _Outline, axis: int, border: Box, unit: float) -> tuple[float, float]:
    """A middle such that the border runs through a letter or the shape, and leaves little on the smaller side of it."""
    first, last = min(part[axis] for part in outline.parts), max(part[axis + 2] for part in outline.parts)
    while True:
        part = dice.pick(outline.parts)
        cut = part[axis] + (part[axis + 2] - part[axis]) * dice.uniform(*_CUT)
        if min(cut - first, last - cut) <= _OVERHANG * unit:
            break
    along, beside = border[axis] - cut, _within(dice, outline, border, 1 - axis, _GAP * unit)
    return (beside, along) if axis else (along, beside)


def _within(dice: Dice, outline: _Outline, cell: Box, axis: int, gap: float) -> float:
    """Where the middle of a thing that lies wholly in a cell may be along an axis."""
    margin = outline.reach[axis] + gap
    return dice.uniform(cell[axis] + margin, cell[axis + 2] - margin)


def _ask_about_signs(dice: Dice, split: str, objects: tuple[SceneObject, ...]) -> tuple[Question, ...]:
    """What each sign says, and which says it; the type is whether the sign in question lies across a border."""
    contents, questions = Counter(item.content for item in objects), []
    for where, item in _by_place(objects):
        kind = "number" if item.content.isdigit() else "word"
        name = f"the {item.color} sign"
        questions.append(ask(dice, split, f"sign.{kind}", item.content, name, filed=f"{where}.{kind}"))
        if contents[item.content] == 1:
            says = f"the sign that says {item.content}"
            questions.append(ask(dice, split, "color", item.color, says, filed=f"{where}.color.sign"))
    return tuple(dice.shuffled(questions))


def _ask_about_shapes(dice: Dice, split: str, objects: tuple[SceneObject, ...]) -> tuple[Question, ...]:
    """Which shape has a color, and which color a shape; the type is whether it lies across a border."""
    shapes, questions = Counter(item.shape for item in objects), []
    for where, item in _by_place(objects):
        questions.append(ask(dice, split, "shape.ink", item.shape, item.color, filed=f"{where}.shape"))
        if shapes[item.shape] == 1:
            name = f"the {item.shape}"
            questions.append(ask(dice, split, "color.shape", item.color, name, filed=f"{where}.color.shape"))
    return tuple(dice.shuffled(questions))


def _by_place(objects: tuple[SceneObject, ...]) -> list[tuple[str, SceneObject]]:
    half = len(objects) // 2
    return [("crossing" if number < half else "clear", item) for number, item in enumerate(objects)]
