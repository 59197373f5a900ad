"""Sheets to practice on: a grid full of characters and shapes, nothing to ask, a label on almost every patch.

Patch labels teach several times more on such a sheet than on a scene, which is mostly background.
"""

import math

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.colors import COLORS, shade
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import GlyphFigure, ShapeFigure, painter
from saccade.data.scenes.glyphs import CHARACTERS, DIGITS
from saccade.data.scenes.scene import Sketch
from saccade.data.scenes.shapes import SHAPES, TURNS

_CELLS = {2: 0.65, 3: 0.35}
_CHARACTER = 0.7
_HANDWRITTEN = 0.6
_FILL = (0.6, 0.95)


def sketch_practice(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a sheet of two by two or three by three cells."""
    width, height = draw_size(dice)
    cells = dice.weighted(_CELLS)
    cell = (width / cells, height / cells)
    figures = [
        (_character if dice.chance(_CHARACTER) else _shape)(dice, split, column * cell[0], row * cell[1], *cell)
        for row in range(cells)
        for column in range(cells)
    ]
    ground = draw_ground(dice, [figure.rgb for figure in figures])
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_caption(dice, objects, width, height, "thing"),
        questions=(),
        paint=painter(width, height, ground, figures),
    )


def _character(dice: Dice, split: str, left: float, top: float, width: float, height: float) -> GlyphFigure:
    """A handwritten digit, or a printed digit or letter, in a cell that begins at (left, top)."""
    handwritten = dice.chance(_HANDWRITTEN)
    character = dice.pick(DIGITS if handwritten else CHARACTERS)
    glyph = (
        glyphs.draw_handwritten(dice, character, split)
        if handwritten
        else glyphs.printed(glyphs.draw_font(dice, split), character)
    )
    warp = glyphs.draw_warp(dice, handwritten, split)
    wide, tall = warp.extent(glyph, 1.0)
    scale = dice.uniform(*_FILL) * min(width / wide, height / tall)
    color = dice.pick(COLORS)
    x = left + width / 2 + dice.uniform(-1, 1) * (width - wide * scale) / 2
    y = top + height / 2 + dice.uniform(-1, 1) * (height - tall * scale) / 2
    return GlyphFigure(character, glyph, warp, color, shade(dice, color, split), x, y, scale)


def _shape(dice: Dice, split: str, left: float, top: float, width: float, height: float) -> ShapeFigure:
    """A shape in a cell that begins at (left, top)."""
    shape, color = dice.pick(SHAPES), dice.pick(COLORS)
    radius = dice.uniform(*_FILL) * min(width, height) / 2
    x = left + width / 2 + dice.uniform(-1, 1) * (width / 2 - radius)
    y = top + height / 2 + dice.uniform(-1, 1) * (height / 2 - radius)
    angle = math.radians(dice.uniform(-1, 1) * TURNS[shape])
    return ShapeFigure(shape, color, shade(dice, color, split), x, y, radius, angle)
