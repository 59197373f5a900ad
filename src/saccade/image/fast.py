"""The fast mode: the views that `transform` makes, resized and normalized by torch on the device where they are used.

Geometry and layout are the exact mode's own. Pixels differ from it by rounding, and for large JPEG files by decoding at
a reduced size; docs/results/fast_pixels.json says by how much. Pictures for which the last bit counts take the exact
mode, which is the default everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from saccade.config import ImageConfig
from saccade.errors import ImageError
from saccade.image.geometry import PixelBox, views
from saccade.image.transform import ImageSource, check_padded, check_size, cut_views, halfway, open_image

# A file is decoded at a reduced size only where this many of its pixels are left for each of a view's along both
# sides: the resize that follows still has more to average than it keeps.
_SPARE = 2
# EXIF orientations that swap width and height.
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True, eq=False)
class FastPicture:
    """A picture that was opened for the fast mode.

    Attributes:
        pixels: `[height, width, 3]`, uint8, RGB; of a large JPEG file a reduced copy of the picture.
        size: Width and height of the picture itself, from which its views are counted.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def open_fast(source: ImageSource, config: ImageConfig, *, name: str | None = None) -> FastPicture:
    """Open a picture for `fast_views`; an RGB array is taken as it is.

    A JPEG file of many more pixels than its views have is decoded at a half, a quarter or an eighth of its size. Its
    views are counted from its own size, and where they lie in it is rounded to pixels of the reduced copy.

    Args:
        source: What `open_image` opens.
        config: How pictures become views.
        name: How messages call the picture.

    Raises:
        ImageError: as `open_image` does, or when the picture is too long and narrow to be padded.
        OSError: as `open_image` does.
    """
    if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3:
        height, width = source.shape[:2]
        check_size(name or "the array", width, height, config.max_pixels)
        check_padded((width, height), config)
        return FastPicture(np.require(source, requirements=["C", "W"]), (width, height))
    reduced_from: list[tuple[int, int]] = []

    def reduce(image: Image.Image) -> None:
        if size := _reduce(image, config):
            reduced_from.append(size)

    image = open_image(source, config.max_pixels, name=name, before_decoding=reduce)
    size = reduced_from[0] if reduced_from else image.size
    check_padded(size, config)
    return FastPicture(np.array(image), size)


def fast_views(pixels: Tensor, config: ImageConfig, size: tuple[int, int] | None = None) -> Tensor:
    """Cut and resize an RGB picture into its views, on the device where it is.

    Args:
        pixels: `[height, width, 3]`, uint8.
        config: How pictures become views.
        size: Width and height of the picture that `pixels` are a reduced copy of; None where they are the picture.

    Returns:
        `[views, 3, side, side]`, uint8; what `to_views` returns, up to rounding.

    Raises:
        ImageError: when the pixels are not uint8 RGB, or the picture is too long and narrow to be padded.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"a picture must be uint8 [height, width, 3], not {str(pixels.dtype).removeprefix('torch.')} "
            f"{list(pixels.shape)}: open it with open_fast"
        )
    height, width = pixels.shape[:2]
    full = size or (width, height)
    shown = cut_views(
        full,
        config,
        region=lambda box: _window(pixels, _scaled(box, width / full[0], height / full[1]), config.pad_value),
        resize=lambda region, target: _resize(region, target, config.resample),
        window=lambda resized, box: _window(resized, box, config.pad_value),
    )
    return torch.stack(shown).permute(0, 3, 1, 2).contiguous()


def normalize_views(pixels: Tensor, config: ImageConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """Do what `normalize` does, to the last bit, on the device where the views are.

    Args:
        pixels: `[..., 3, height, width]`, uint8.
        config: Holds mean and standard deviation.
        dtype: What the result is rounded to.

    Returns:
        The same shape.
    """
    # Divided by tensors: a device may multiply by the rounded reciprocal of a plain number.
    highest, mean, std = (
        torch.tensor(value, dtype=torch.float32, device=pixels.device)[..., None, None]
        for value in ((255.0,), config.mean, config.std)
    )
    return pixels.float().div_(highest).sub_(mean).div_(std).to(dtype)


def _reduce(image: Image.Image, config: ImageConfig) -> tuple[int, int] | None:
    """Have a JPEG file decoded at the least size that leaves enough, and return its upright size if that is reduced."""
    width, height = image.size
    sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    upright = (height, width) if sideways else (width, height)
    factor = min(
        min((right - left) // target[0], (bottom - top) // target[1]) // _SPARE
        for (left, top, right, bottom), target in {(view.region, view.size) for view in views(*upright, config)}
    )
    if factor < 2:
        return None
    power = 1 << (factor.bit_length() - 1)
    image.draft(None, (width // power, height // power))
    return upright if image.size != (width, height) else None


def _scaled(box: PixelBox, across: float, down: float) -> PixelBox:
    left, top, right, bottom = box
    return (round(left * across), round(top * down), round(right * across), round(bottom * down))


def _window(pixels: Tensor, box: PixelBox, gray: int) -> Tensor:
    """Cut a box out of a picture `[height, width, 3]`, gray where it reaches beyond; what lies within is not copied."""
    left, top, right, bottom = box
    inside = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (bottom - top, right - left):
        return inside
    window = pixels.new_full((bottom - top, right - left, 3), gray)
    across, down = max(-left, 0), max(-top, 0)
    window[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return window


def _resize(pixels: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resize `[height, width, 3]` uint8 with an antialiased filter to a width and height.

    One side after the other, with whole levels in between, as the exact mode does: in floating point and at once, steep
    edges come out up to 25 levels away from it.
    """
    height, width = pixels.shape[:2]
    planes = pixels.permute(2, 0, 1).unsqueeze(0)
    for step in (halfway((width, height), size), size):
        if planes.shape[:1:-1] != step:
            planes = _resize_step(planes, step[::-1], resample)
    return planes.squeeze(0).permute(1, 2, 0)


def _resize_step(planes: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resize `[1, 3, height, width]` uint8 to a height and width."""
    # The CPU alone has a kernel for uint8; of a single column, torch 2.13 makes nonsense with it.
    if planes.device.type == "cpu" and size[1] > 1:
        return F.interpolate(planes, size=size, mode=resample, antialias=True)
    return _resize_floats(planes, size, resample)


def _resize_floats(planes: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    levels = F.interpolate(planes.float(), size=size, mode=resample, antialias=True)
    return levels.round_().clamp_(0, 255).to(torch.uint8)
