"""Pure integers: which views a picture becomes and how many visual tokens they cost, known before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.config import Fit, ImageConfig
from saccade.errors import ImageError


@dataclass(frozen=True)
class View:
    """How one view is made: a region of the picture is resized, and the view is cut out of it.

    Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive.

    Attributes:
        region: Box in the picture. It may reach beyond the picture; what lies outside is filled with the gray of
            `ImageConfig.pad_value`.
        size: Width and height in pixels that the region is resized to.
        crop: Box of the view in the resized region.
    """

    region: tuple[int, int, int, int]
    size: tuple[int, int]
    crop: tuple[int, int, int, int]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the view shows, as a box in the picture; the border of a tile may lie between two pixels."""
        left, top, right, bottom = self.region
        width, height = self.size
        return (
            left + self.crop[0] * (right - left) / width,
            top + self.crop[1] * (bottom - top) / height,
            left + self.crop[2] * (right - left) / width,
            top + self.crop[3] * (bottom - top) / height,
        )


def views(width: int, height: int, config: ImageConfig) -> tuple[View, ...]:
    """Return the views of a picture, in the order in which the model reads them.

    "squash" takes the whole picture whatever its shape; "pad" takes the smallest square around it, the picture in the
    middle and, where the margin is odd, one pixel closer to the left or the top. Of "tiles", the thumbnail comes first.

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
            return _grid(_square(width, height, config.fit), config.side, 1)
        case "tiles":
            thumbnail = _grid(_square(width, height, config.thumbnail_fit), config.side, 1)
            return thumbnail + _grid(_square(width, height, config.fit), config.side, config.tiles_per_side)


def num_views(width: int, height: int, config: ImageConfig) -> int:
    """Count the views of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return len(views(width, height, config))


def num_image_tokens(width: int, height: int, config: ImageConfig, tokens_per_view: int) -> int:
    """Count the visual tokens of a picture of `width` x `height` pixels; raises ImageError like `views`."""
    return num_views(width, height, config) * tokens_per_view


def _grid(region: tuple[int, int, int, int], side: int, per_side: int) -> tuple[View, ...]:
    """Return the views of a region that is cut into `per_side` x `per_side` tiles, row by row."""
    size, starts = (side * per_side, side * per_side), [side * index for index in range(per_side)]
    return tuple(View(region, size, (left, top, left + side, top + side)) for top in starts for left in starts)


def _square(width: int, height: int, fit: Fit) -> tuple[int, int, int, int]:
    """Return the region of a picture that is resized to a square."""
    if fit == "squash":
        return (0, 0, width, height)
    side = max(width, height)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return (left, top, left + side, top + side)
