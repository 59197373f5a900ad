"""Signs: a board with a word or a number on it, wherever a family puts one up."""

import math
from dataclasses import dataclass

from saccade.data.scenes import glyphs
from saccade.data.scenes.captions import in_reading_order, noun, numbered, place_words
from saccade.data.scenes.colors import COLORS, RGB, lightness, shade
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import BoxFigure, GlyphFigure
from saccade.data.scenes.lettering import Lettering
from saccade.data.scenes.scene import Box, SceneObject
from saccade.data.scenes.shapes import box_reach
from saccade.data.scenes.wording import listed, with_article

WORDS = (
    *("BANK", "BAR", "BOOKS", "BREAD", "BUS", "CAFE", "EAST", "EXIT", "FISH", "FRUIT"),
    *("GOLF", "GYM", "HOTEL", "ICE", "JAZZ", "JUICE", "KEY", "LIFT", "MAP", "MILK"),
    *("NORTH", "OPEN", "PARK", "PHONE", "PIZZA", "PULL", "PUSH", "QUIZ", "RIVER", "SALE"),
    *("SHOP", "SOUTH", "STOP", "TAXI", "TEA", "TOYS", "VIDEO", "WEST", "WINE", "ZOO"),
)
_DIGITS = (2, 4)
_CONTRAST = 85.0


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign before it is put up: what is written on it, and halves of the sides of its board in pixels."""

    line: Lettering
    half_width: float
    half_height: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far it reaches from its middle, across and down, in pixels."""
        return box_reach(self.half_width, self.half_height, self.line.angle)

    def place_in(self, dice: Dice, cell: Box, fill: float) -> tuple[float, float] | None:
        """A middle in the inner part of a cell that is `fill` of its sides long; None where the sign does not fit."""
        across, down = self.reach
        wide, tall = fill * (cell[2] - cell[0]) / 2, fill * (cell[3] - cell[1]) / 2
        if across > wide or down > tall:
            return None
        x = (cell[0] + cell[2]) / 2 + dice.uniform(-1, 1) * (wide - across)
        y = (cell[1] + cell[3]) / 2 + dice.uniform(-1, 1) * (tall - down)
        return x, y

    def put_up(self, dice: Dice, split: str, color: str, x: float, y: float) -> tuple[BoxFigure, list[GlyphFigure]]:
        """Its board in a shade of a color, the middle at (x, y) in pixels, and the letters in an ink that shows."""
        board = BoxFigure(
            color=color,
            rgb=shade(dice, color, split),
            x=x,
            y=y,
            half_width=self.half_width,
            half_height=self.half_height,
            angle=self.line.angle,
            corner=self.half_height * dice.uniform(0.0, 0.4),
            kind="sign",
            content=self.line.text,
        )
        return board, self.line.figures(x, y, *_draw_ink(dice, split, board.rgb))


def draw_content(dice: Dice, kind: str) -> str:
    """What a sign says: one of `WORDS`, or a number of two to four digits."""
    if kind == "word":
        return dice.pick(WORDS)
    digits = dice.between(*_DIGITS)
    return str(dice.between(10 ** (digits - 1), 10**digits - 1))


def draw_line(
    dice: Dice,
    split: str,
    kind: str,
    unit: float,
    heights: tuple[float, float],
    aspects: tuple[float, float] = (0.85, 1.05),
    lean: float = 5.0,
) -> Lettering:
    """What is written on a sign before it has a place.

    Args:
        dice: source of randomness.
        split: decides the fonts.
        kind: "word" or "number".
        unit: mean side of the picture, or of whatever else `heights` are fractions of, in pixels.
        heights: from and to which height the letters are, in units.
        aspects: from and to which width they are squeezed or stretched.
        lean: by how many degrees the line leans to either side at most.
    """
    return Lettering(
        text=draw_content(dice, kind),
        font=glyphs.draw_font(dice, split),
        height=unit * dice.uniform(*heights),
        aspect=dice.uniform(*aspects),
        angle=math.radians(dice.uniform(-lean, lean)),
        level=dice.uniform(0.36, 0.46),
    )


def write_sign_caption(dice: Dice, objects: tuple[SceneObject, ...], width: int, height: int) -> str:
    """A sentence that begins with the number of signs and says of each where it is and what stands on it."""
    opening = dice.pick(("", " in the picture"))
    things = [
        f"{with_article(noun(item))} {place_words(item, width, height)} says {item.content}"
        for item in in_reading_order(objects, width, height)
    ]
    return f"{numbered(objects, 'sign')}{opening}: {listed(things)}."


def _draw_ink(dice: Dice, split: str, board: RGB) -> tuple[str, RGB]:
    """A color and a shade of it that can be read on a board: white or black always can."""
    while True:
        color = dice.pick(COLORS)
        rgb = shade(dice, color, split)
        if abs(lightness(rgb) - lightness(board)) >= _CONTRAST:
            return color, rgb
