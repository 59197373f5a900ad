"""Family `text`: one to three signs, a word or a number on each, in letters from large to tiny."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import BoxFigure, GlyphFigure, painter
from saccade.data.scenes.scene import Box, Question, Sketch
from saccade.data.scenes.signs import Sign, draw_line, write_sign_caption
from saccade.data.scenes.wording import ask

# Heights of the letters in fractions of the mean side. Squashed to 90 x 90, small letters are 2 to 4 pixels high, too
# few to read, medium ones 6 to 11. In a picture that is padded to a square of 180, as tiles show it, small ones are 3
# to 7: less than twice as high, because padding takes its part. The pictures are large enough for such a view.
HEIGHTS = {"large": (0.135, 0.18), "medium": (0.085, 0.11), "small": (0.034, 0.041)}
_SHORT_SIDE = (190, 200)
_NUMBER = {1: 0.3, 2: 0.4, 3: 0.3}
_FILL = 0.94
_ROWS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COLUMNS = ("left", "right")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A sign that is up: its board, what is written on it, and the words its place is known by."""

    board: BoxFigure
    letters: list[GlyphFigure]
    place: str
    kind: str
    size: str


def sketch_text(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `text` scene."""
    width, height = draw_size(dice, _SHORT_SIDE)
    number = dice.weighted(_NUMBER)
    beside = number == 2 and width > height and dice.chance(0.5)
    places = _COLUMNS if beside else _ROWS[number]
    wide, tall = (width / 2, height) if beside else (width, height / number)
    unit = math.sqrt(width * height)
    signs = []
    for row, (place, color) in enumerate(zip(places, dice.shuffled(COLORS), strict=False)):
        left, top = (row * wide, 0.0) if beside else (0.0, row * tall)
        signs.append(_draw_sign(dice, split, color, place, (left, top, left + wide, top + tall), unit))
    boards = [sign.board for sign in signs]
    letters = [letter for sign in signs for letter in sign.letters]
    ground = draw_ground(dice, [board.rgb for board in boards])
    objects = tuple(board.as_object() for board in boards)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_sign_caption(dice, objects, width, height),
        questions=_ask_about_signs(dice, split, signs),
        paint=painter(width, height, ground, [*boards, *letters]),
        marks=tuple(letter.as_object() for letter in letters),
    )


def _draw_sign(dice: Dice, split: str, color: str, place: str, cell: Box, unit: float) -> _Shown:
    """A sign somewhere in its cell; what does not fit is drawn again, so large words are short in narrow cells."""
    middle = None
    while middle is None:
        kind, size = dice.pick(("word", "number")), dice.pick(tuple(HEIGHTS))
        line = draw_line(dice, split, kind, unit, HEIGHTS[size])
        padding = line.height * dice.uniform(0.35, 0.8) + unit * dice.uniform(0.0, 0.03)
        sign = Sign(line, line.width / 2 + padding, line.height / 2 + padding * dice.uniform(0.7, 1.0))
        middle = sign.place_in(dice, cell, _FILL)
    board, letters = sign.put_up(dice, split, color, *middle)
    return _Shown(board, letters, place, kind, size)


def _ask_about_signs(dice: Dice, split: str, signs: Sequence[_Shown]) -> tuple[Question, ...]:
    """What each sign says, and of two or more, which says it, in random order; the form ends with the letters' size."""
    contents = Counter(sign.board.content for sign in signs)
    questions = []
    for sign in signs:
        color, content = sign.board.color, sign.board.content
        names = (f"the {color} sign", f"the {sign.place} sign" if sign.place else "the sign")
        filed = f"{sign.kind}.{sign.size}"
        questions.append(ask(dice, split, f"sign.{sign.kind}", content, dice.pick(names), filed=filed))
        if len(signs) > 1 and contents[content] == 1:
            questions.append(ask(dice, split, f"color.{sign.size}", color, f"the sign that says {content}"))
    return tuple(dice.shuffled(questions))
