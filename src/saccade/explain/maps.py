"""From patches to the picture: each patch's weight is spread evenly over the pixels that the patch shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.config import SaccadeConfig
from saccade.image.geometry import views

Box = tuple[float, float, float, float]


def grid_boxes(width: int, height: int, config: SaccadeConfig) -> tuple[Box, ...]:
    """Return what the patches of each view cover, as (left, top, right, bottom) in pixels of the picture.

    Where the patch size does not divide the side of a view, the tower leaves a rim at the right and the bottom unseen.
    A box may reach beyond the picture, where a view is padded.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        config: Configuration of the model.

    Raises:
        ImageError: when a side is not positive.
    """
    seen = config.grid * config.vision_config.patch_size / config.image.side
    boxes = (view.box for view in views(width, height, config.image))
    return tuple(
        (left, top, left + seen * (right - left), top + seen * (bottom - top)) for left, top, right, bottom in boxes
    )


def to_map(weights: NDArray[np.float32], boxes: Sequence[Box], width: int, height: int) -> NDArray[np.float32]:
    """Lay the weights of patches on the picture.

    Exact in areas: a pixel that a patch covers in part gets that part of its share. The map sums to the sum of the
    weights, but for what lies on padding, which is dropped. Views that overlap add up.

    Args:
        weights: `[views, rows, columns]`.
        boxes: What the patches of each view cover, from `grid_boxes`.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        float32 `[height, width]`.
    """
    total = np.zeros((height, width))
    for grid, (left, top, right, bottom) in zip(weights, boxes, strict=True):
        rows, columns = grid.shape
        total += _shares(top, bottom, rows, height).T @ grid @ _shares(left, right, columns, width)
    return total.astype(np.float32)


def _shares(start: float, stop: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """Which part of each cell of [start, stop) falls into each pixel of [0, pixels), `[cells, pixels]`."""
    edges = np.linspace(start, stop, cells + 1)[:, None]
    pixel = np.arange(pixels)
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    shares: NDArray[np.float64] = np.maximum(overlap, 0) * (cells / (stop - start))
    return shares
