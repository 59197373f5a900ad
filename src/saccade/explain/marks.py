"""Marks on a panel that say how a picture is cut: lines around tiles, hatching where neighbors share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.explain.maps import Box

_LINE, _HALO = (255, 255, 255), (0, 0, 0)
_PERIOD, _STROKE = 8, 2  # pixels from one line of the hatching to the next, and across a line
_STRENGTH = 0.45  # of the hatching


def outline(panel: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Draw a light line with a dark one on either side, which shows on any picture, around boxes in pixels."""
    drawn = panel.copy()
    ink = ImageDraw.Draw(drawn)
    for color, width in ((_HALO, 3), (_LINE, 1)):
        for left, top, right, bottom in boxes:
            corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            edge = [(min(round(x), panel.width - 1), min(round(y), panel.height - 1)) for x, y in corners]
            ink.line(edge, fill=color, width=width)
    return drawn


def hatch(panel: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Hatch what lies in two or more boxes in pixels."""
    x, y = np.arange(panel.width), np.arange(panel.height)[:, None]
    count = np.zeros((panel.height, panel.width), dtype=int)
    for left, top, right, bottom in boxes:
        count += _within(y, top, bottom) & _within(x, left, right)
    stroke = (count > 1) & ((x + y) % _PERIOD < _STROKE)
    pixels = np.asarray(panel, dtype=np.float64)
    mixed = pixels + _STRENGTH * stroke[..., None] * (np.array(_LINE) - pixels)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _within(at: NDArray[np.intp], start: float, stop: float) -> NDArray[np.bool_]:
    """Which pixels have their center in [start, stop)."""
    return (at + 0.5 >= start) & (at + 0.5 < stop)
