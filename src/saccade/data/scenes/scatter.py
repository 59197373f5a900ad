"""Places for things that keep apart: circles thrown at a picture until all have found room."""

import math

from saccade.data.scenes.dice import Dice

_DARTS = 40


def scatter(
    dice: Dice, number: int, width: int, height: int, diameters: tuple[float, float], gap: float, unit: float
) -> list[tuple[float, float, float]]:
    """(x, y, radius) in pixels of circles in a picture that keep a gap from each other, and half of it from the border.

    Args:
        dice: Throws them.
        number: How many circles.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        diameters: Least and greatest diameter, in units. So many of the greatest must fit with ease: what finds no room
            after many throws begins anew.
        gap: In units.
        unit: Pixels.
    """
    gap = gap * unit
    while True:
        placed: list[tuple[float, float, float]] = []
        for _ in range(number * _DARTS):
            radius = unit * dice.uniform(*diameters) / 2
            margin = radius + gap / 2
            x, y = dice.uniform(margin, width - margin), dice.uniform(margin, height - margin)
            if all(math.hypot(x - x2, y - y2) >= radius + radius2 + gap for x2, y2, radius2 in placed):
                placed.append((x, y, radius))
                if len(placed) == number:
                    return placed
