"""Pages to practice reading on: signs side by side all over the picture, nothing to ask.

What a sheet of practice is for single characters, a page is for words: letters as small and as close as on the signs of
family `text`, ten times as many of them.
"""

import math

from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import BoxFigure, GlyphFigure, painter
from saccade.data.scenes.scene import Box, Sketch
from saccade.data.scenes.signs import Sign, draw_line, write_sign_caption

_ROWS = {4: 0.3, 5: 0.4, 6: 0.3}
_COLUMNS = 2
# Heights of the letters in fractions of the mean side: what can be read in one view of a sign.
_HEIGHTS = (0.08, 0.18)
_FILL = 0.98


def sketch_pages(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a page of four to six rows of two signs."""
    width, height = draw_size(dice)
    rows, unit = dice.weighted(_ROWS), math.sqrt(width * height)
    wide, tall = width / _COLUMNS, height / rows
    signs = [
        _sign(dice, split, (column * wide, row * tall, (column + 1) * wide, (row + 1) * tall), unit)
        for row in range(rows)
        for column in range(_COLUMNS)
    ]
    boards, letters = [board for board, _ in signs], [letter for _, line in signs for letter in line]
    objects = tuple(board.as_object() for board in boards)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_sign_caption(dice, objects, width, height),
        questions=(),
        paint=painter(width, height, draw_ground(dice, [board.rgb for board in boards]), [*boards, *letters]),
        marks=tuple(letter.as_object() for letter in letters),
    )


def _sign(dice: Dice, split: str, cell: Box, unit: float) -> tuple[BoxFigure, list[GlyphFigure]]:
    """A sign in its cell; what does not fit is drawn again."""
    middle = None
    while middle is None:
        line = draw_line(dice, split, dice.pick(("word", "number")), unit, _HEIGHTS)
        padding = line.height * dice.uniform(0.1, 0.4)
        sign = Sign(line, line.width / 2 + padding, line.height / 2 + padding)
        middle = sign.place_in(dice, cell, _FILL)
    return sign.put_up(dice, split, dice.pick(COLORS), *middle)
