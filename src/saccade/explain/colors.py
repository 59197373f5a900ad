"""A color for every weight: the map "inferno", whose lightness rises evenly from black to pale yellow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Every eighth of matplotlib's table (CC0), between which the colors are interpolated.
_ANCHORS = (
    (0, 0, 4), (33, 12, 74), (87, 16, 110), (138, 34, 106), (188, 55, 84), (228, 90, 49), (249, 142, 9), (249, 203, 53),
    (252, 255, 164),
)  # fmt: skip
_LUMA = np.array([0.299, 0.587, 0.114])


def heat(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return colors `[..., 3]` in 0..255 for values in 0..1."""
    anchors = np.array(_ANCHORS, dtype=np.float64)
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(values, at, channel) for channel in anchors.T], axis=-1)


def lightness(colors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the luma in 0..255 of colors `[..., 3]`."""
    luma: NDArray[np.float64] = colors @ _LUMA
    return luma
