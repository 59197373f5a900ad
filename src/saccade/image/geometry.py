"""Pure integers: which views a picture becomes and how many visual tokens they cost, known before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.config import ImageConfig
from saccade.errors import ImageError


@dataclass(frozen=True)
class View:
    """What one view shows.

    Attributes:
        box: Region of the picture as (left, top, right, bottom) in its pixels, right and bottom exclusive. It may reach
            beyond the picture; what lies outside is filled with the gray of `ImageConfig.pad_value`.
    """

    box: tuple[int, int, int, int]


def views(width: int, height: int, config: ImageConfig) -> tuple[View, ...]:
    """Return the views of a picture, in the order in which the model reads them.

    "squash" shows the whole picture whatever its shape; "pad" shows the smallest square around it, the picture in the
    middle and, where the margin is odd, one pixel closer to the left or the top.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        config: How pictures become views.

    Raises:
        ImageError: when a side is not positive.
    """
    if width < 1 or height < 1:
        raise ImageError(f"a picture of {width} x {height} pixels has nothing to show: both sides must be at least 1")
    match config.layout:
        case "single":
            return (View(_whole(width, height, config)),)


def num_views(width: int, height: int, config: ImageConfig) -> int:
    """Count the views of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return len(views(width, height, config))


def num_image_tokens(width: int, height: int, config: ImageConfig, tokens_per_view: int) -> int:
    """Count the visual tokens of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return num_views(width, height, config) * tokens_per_view


def _whole(width: int, height: int, config: ImageConfig) -> tuple[int, int, int, int]:
    if config.fit == "squash":
        return (0, 0, width, height)
    side = max(width, height)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return (left, top, left + side, top + side)
