"""From patches to the picture: where views lie, and each patch's weight spread evenly over the pixels it shows."""

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
    A box reaches beyond the picture where a view is padded or has a frame; tiles with a margin overlap.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        config: Configuration of the model.

    Raises:
        ImageError: when a side is not positive.
    """
    seen = config.grid * config.vision_config.patch_size / config.image.side
    return tuple(_part(view.box, 0, seen) for view in views(width, height, config.image))


def kept_boxes(width: int, height: int, config: SaccadeConfig) -> tuple[Box, ...]:
    """Return what is each view's own, without its margin, like `grid_boxes`; that of tiles does not overlap."""
    margin = config.image.margin / config.image.side
    return tuple(_part(view.box, margin, 1 - margin) for view in views(width, height, config.image))


def _part(box: Box, start: float, stop: float) -> Box:
    """Return the part of a box between two fractions of each of its sides."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return (left + start * width, top + start * height, left + stop * width, top + stop * height)


def to_map(weights: NDArray[np.float32], boxes: Sequence[Box], width: int, height: int) -> NDArray[np.float32]:
    """Lay the weights of patches on the picture.

    Exact in areas: a pixel that a patch covers in part gets that part of its share. The map sums to the sum of the
    weights, but for what lies on padding or on a frame, which shows nothing and is dropped. Views that overlap add up.

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
