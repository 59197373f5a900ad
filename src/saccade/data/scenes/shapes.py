"""The shapes, as signed distances evaluated only where the shape is."""

import math
from collections.abc import Callable

import numpy as np

from saccade.data.scenes.canvas import Coverage

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}

# How far a shape may be turned, in degrees: a square on its corner is a diamond to many people.
TURNS = {"circle": 0.0, "square": 18.0, "triangle": 180.0, "star": 36.0, "cross": 18.0, "ring": 0.0}

_HALF = np.float32(0.5)
_SIN_60 = np.float32(math.sqrt(0.75))


def coverage(shape: str, x: float, y: float, radius: float, angle: float) -> tuple[Coverage, int, int]:
    """How much of each pixel a shape covers.

    Args:
        shape: One of `SHAPES`.
        x: Center in pixels from the left.
        y: Center in pixels from the top.
        radius: Radius in pixels of the circle the shape just fits into.
        angle: Turn in radians.

    Returns:
        Coverage `[rows, columns]` in 0..1, anti-aliased over one pixel, and the pixel (left, top) of its corner.
    """
    across, down, left, top = _around(x, y, radius, radius, angle)
    return _covered(_DISTANCES[shape](across, down, radius)), left, top


def box_coverage(
    x: float, y: float, half_width: float, half_height: float, angle: float, corner: float
) -> tuple[Coverage, int, int]:
    """How much of each pixel a box covers: a board, a bar, or a line, which is a thin one.

    Args:
        x: Center in pixels from the left.
        y: Center in pixels from the top.
        half_width: Half its width in pixels.
        half_height: Half its height in pixels.
        angle: Turn in radians.
        corner: Radius of its corners in pixels, at most the smaller half.

    Returns:
        Coverage `[rows, columns]` in 0..1, anti-aliased over one pixel, and the pixel (left, top) of its corner.
    """
    across, down, left, top = _around(x, y, *box_reach(half_width, half_height, angle), angle)
    beside = np.abs(across) - np.float32(half_width - corner)
    beyond = np.abs(down) - np.float32(half_height - corner)
    # Inside, the nearest edge counts; outside a rounded corner, the way to the middle of its arc.
    distance = np.minimum(np.maximum(beside, beyond), np.float32(0))
    distance += np.hypot(np.maximum(beside, np.float32(0)), np.maximum(beyond, np.float32(0)))
    return _covered(distance - np.float32(corner)), left, top


def box_reach(half_width: float, half_height: float, angle: float) -> tuple[float, float]:
    """How far a turned box reaches from its center, across and down."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return cos * half_width + sin * half_height, sin * half_width + cos * half_height


def _around(x: float, y: float, across: float, down: float, angle: float) -> tuple[Coverage, Coverage, int, int]:
    """Places of the pixels around (x, y), seen from there and turned, and the pixel (left, top) of their corner."""
    left, right = math.floor(x - across - 1), math.ceil(x + across + 1)
    top, bottom = math.floor(y - down - 1), math.ceil(y + down + 1)
    columns = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
    rows = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    if angle:
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        columns, rows = cos * columns + sin * rows, cos * rows - sin * columns
    return columns, rows, left, top


def _covered(distance: Coverage) -> Coverage:
    """Coverage in 0..1 from signed distances, which it takes over."""
    covered = _HALF - distance
    np.maximum(covered, np.float32(0), out=covered)
    np.minimum(covered, np.float32(1), out=covered)
    return covered


def _circle(x: Coverage, y: Coverage, radius: float) -> Coverage:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _ring(x: Coverage, y: Coverage, radius: float) -> Coverage:
    middle, thickness = np.float32(0.76 * radius), np.float32(0.24 * radius)
    return np.abs(np.sqrt(x * x + y * y) - middle) - thickness


def _square(x: Coverage, y: Coverage, radius: float) -> Coverage:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(radius * math.sqrt(0.5))


def _triangle(x: Coverage, y: Coverage, radius: float) -> Coverage:
    return np.maximum(np.abs(x) * _SIN_60 - y * _HALF, y) - np.float32(radius / 2)


def _cross(x: Coverage, y: Coverage, radius: float) -> Coverage:
    # The corners of the arms lie on the circle.
    x, y = np.abs(x), np.abs(y)
    arm, half_width = np.float32(0.955 * radius), np.float32(0.30 * radius)
    return np.maximum(np.maximum(x, y) - arm, np.minimum(x, y) - half_width)


def _star(x: Coverage, y: Coverage, radius: float) -> Coverage:
    # Fold the plane into one tenth of the star: its edge is there a single line from a tip to a notch.
    tenth = math.pi / 5
    notch = 0.42 * radius
    rise, run = notch * math.sin(tenth), radius - notch * math.cos(tenth)
    length = math.hypot(rise, run)
    turn: Coverage = np.arctan2(x, -y)
    fold = np.abs(turn - np.float32(2 * tenth) * np.rint(turn * np.float32(0.5 / tenth)))
    rho = np.sqrt(x * x + y * y)
    edge = np.float32(rise / length) * np.cos(fold) + np.float32(run / length) * np.sin(fold)
    distance: Coverage = rho * edge - np.float32(radius * rise / length)
    return distance


_DISTANCES: dict[str, Callable[[Coverage, Coverage, float], Coverage]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
