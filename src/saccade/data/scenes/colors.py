"""The named colors: which shades carry which name, and which backgrounds they stand out from."""

import colorsys
from collections.abc import Sequence

from saccade.data.scenes.dice import Dice

RGB = tuple[float, float, float]
Range = tuple[float, float]

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")

# Hue in degrees, saturation and value in 0..1. The hues leave gaps, so that no shade lies between two names.
_SHADES: dict[str, tuple[Range, Range, Range]] = {
    "red": ((-8, 5), (0.82, 1.0), (0.76, 0.95)),
    "orange": ((24, 33), (0.85, 1.0), (0.93, 1.0)),
    "yellow": ((51, 58), (0.75, 1.0), (0.92, 1.0)),
    "green": ((105, 145), (0.60, 0.95), (0.50, 0.75)),
    "blue": ((214, 232), (0.70, 1.0), (0.65, 0.95)),
    "purple": ((275, 292), (0.55, 0.85), (0.50, 0.75)),
    "white": ((0, 360), (0.0, 0.03), (0.95, 1.0)),
    "black": ((0, 360), (0.0, 0.30), (0.03, 0.13)),
}
_SHIFTED_SHADES: dict[str, tuple[Range, Range, Range]] = {
    "red": ((-6, 3), (0.86, 1.0), (0.62, 0.73)),
    "orange": ((26, 32), (0.68, 0.80), (0.95, 1.0)),
    "yellow": ((52, 59), (0.52, 0.68), (0.95, 1.0)),
    "green": ((95, 125), (0.60, 0.90), (0.78, 0.90)),
    "blue": ((203, 212), (0.65, 0.85), (0.85, 1.0)),
    "purple": ((278, 292), (0.42, 0.53), (0.77, 0.90)),
    "white": ((0, 360), (0.03, 0.06), (0.94, 0.97)),
    "black": ((0, 360), (0.0, 0.30), (0.13, 0.19)),
}

_LEFT_OUT = (("black",), ("white", "yellow"))
_CONTRAST = 90.0
_TRIES = 24


def shade(dice: Dice, color: str, split: str) -> RGB:
    """One shade of a named color as (red, green, blue) in 0..255; `shifted` has shades that no other split has."""
    hue, saturation, value = (_SHIFTED_SHADES if split == "shifted" else _SHADES)[color]
    return _rgb(dice.uniform(*hue), dice.uniform(*saturation), dice.uniform(*value))


def draw_palette(dice: Dice) -> list[str]:
    """The colors of a picture of many small things: no background lets both light and dark ones stand out."""
    left_out = dice.pick(_LEFT_OUT)
    return [color for color in COLORS if color not in left_out]


def distance(first: RGB, second: RGB) -> float:
    """How different two colors look: an RGB distance weighted like the eye, 0 (same) to 255 (black and white)."""
    red, green, blue = first[0] - second[0], first[1] - second[1], first[2] - second[2]
    return float(((2 * red * red + 4 * green * green + 3 * blue * blue) / 9) ** 0.5)


def lightness(color: RGB) -> float:
    """How light a color looks, 0 (black) to 255 (white): what letters need to differ in from what they stand on."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def backdrop(dice: Dice, inks: Sequence[RGB]) -> tuple[RGB, RGB]:
    """Two muted background colors (the ends of a gradient, possibly equal) that every ink stands out from.

    Backgrounds are drawn until one has the contrast; with many inks none may, and the best of those drawn is taken.
    """
    best, best_contrast = None, -1.0
    for _ in range(_TRIES):
        start = _rgb(dice.uniform(0, 360), dice.uniform(0, 0.3), dice.uniform(0.08, 1.0))
        end = start
        if dice.chance(0.5):
            end = _rgb(dice.uniform(0, 360), dice.uniform(0, 0.3), _clamp(sum(start) / 765 + dice.uniform(-0.2, 0.2)))
        contrast = min(min(distance(ink, start), distance(ink, end)) for ink in inks)
        if contrast > best_contrast:
            best, best_contrast = (start, end), contrast
        if contrast >= _CONTRAST:
            break
    assert best is not None
    return best


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1.0, saturation, value)
    return red * 255, green * 255, blue * 255


def _clamp(value: float) -> float:
    return min(1.0, max(0.05, value))
