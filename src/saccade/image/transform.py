"""Pixels: a picture from anywhere becomes RGB, RGB becomes uint8 views, views become normalized floats.

Pillow alone touches the pixels, so they do not depend on which other image libraries are installed.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from saccade.config import ImageConfig
from saccade.errors import ImageError, SaccadeWarning
from saccade.image.geometry import PixelBox, views

ImageSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

_Pixels = TypeVar("_Pixels")

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# What Pillow's decoders raise on damaged files, depending on the format.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, IndexError, KeyError, TypeError,
    OverflowError,
)  # fmt: skip
# What the system says of one file, or of an offset in it that damage has moved; Pillow's own errors have no number.
# Any other number, such as that of too many open files, is about the machine.
_OF_A_FILE = (
    None, errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EOVERFLOW, errno.EPERM,
)  # fmt: skip
_WHITE = (255, 255, 255, 255)
# Formats whose further frames are previews or layers: their first frame is the whole picture.
_WHOLE_AT_ONCE = ("MPO", "PSD")
# The filters of warnings belong to the whole process, and pictures are opened in several threads.
_WARNING_FILTERS = threading.Lock()


def open_image(
    source: ImageSource,
    max_pixels: int,
    *,
    name: str | None = None,
    before_decoding: Callable[[Image.Image], None] | None = None,
) -> Image.Image:
    """Return a picture as RGB, upright.

    The EXIF rotation is applied, transparency is laid over white, 16-bit gray keeps its upper 8 bits, and of several
    frames or pages the first is taken, with a `SaccadeWarning`.

    Args:
        source: A path, the bytes of a file, a Pillow image, or a uint8 array `[height, width]`,
            `[height, width, 3]` (RGB) or `[height, width, 4]` (RGBA).
        max_pixels: Pictures with more pixels are refused before they are decoded. Pillow has a limit of its own, twice
            `PIL.Image.MAX_IMAGE_PIXELS`, which holds beside this one.
        name: How messages call the picture; None for its path, or a general word.
        before_decoding: Called with the picture when only its header has been read and its size is allowed.

    Raises:
        ImageError: when there is no such file, it is not a picture, it is damaged or truncated, or it is too large.
        OSError: when the machine fails, not the picture, such as by too many open files.
    """
    name, image = _open(source, name)
    with nullcontext() if image is source else image:  # an error keeps this frame, and must not keep the file open
        check_size(name, *image.size, max_pixels)
        with _told_in_one_sentence(name, "cannot be decoded, it is damaged or truncated"):
            if before_decoding is not None:
                before_decoding(image)
            goes_on = _goes_on(image)
            rgb = _to_rgb(ImageOps.exif_transpose(image), name)
    if goes_on:
        warnings.warn(f"{name} has several frames: the first one is taken", SaccadeWarning, stacklevel=2)
    return rgb


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError where a picture has no pixel, or more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} x {height} pixels: both sides must be at least 1")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels}: make it smaller, or raise "
            "the limit with saccade.load(max_pixels=...) or `saccade ask --max-pixels`"
        )


def check_padded(size: tuple[int, int], config: ImageConfig) -> None:
    """Raise ImageError where padding would make a picture of this width and height larger than pictures may be."""
    for left, top, right, bottom in {view.region for view in views(*size, config)} - {(0, 0, *size)}:
        if (right - left) * (bottom - top) > config.max_pixels:
            raise ImageError(
                f"the picture of {size[0]} x {size[1]} pixels would be padded to {right - left} x {bottom - top}, more "
                f"than {config.max_pixels} pixels, the limit image.max_pixels: cut it to a less extreme shape"
            )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return what is in the file of a picture; raises like `open_image`."""
    name = _name_of_file(path)
    with _told_in_one_sentence(name, "cannot be opened"):
        return Path(path).read_bytes()


def to_views(image: Image.Image, config: ImageConfig) -> NDArray[np.uint8]:
    """Cut and resize an RGB picture into its views.

    Resizing works on uint8 with Pillow's antialiased filters, which is what the published models were trained on. Tiles
    are cut out of one resized picture, so a filter's support reaches across their borders; the frame of
    `ImageConfig.margin` is laid around it after that, with a sharp edge.

    Returns:
        `[views, 3, side, side]`, uint8.

    Raises:
        ImageError: when the picture is not RGB, or too long and narrow to be padded.
    """
    if image.mode != "RGB":
        raise ImageError(f"the picture has mode {image.mode}, views are made from RGB: pass it through open_image")
    gray, resample = config.pad_value, _RESAMPLE[config.resample]
    shown = cut_views(
        image.size,
        config,
        region=lambda box: _window(image, box, gray),
        resize=lambda region, size: _resized(region, size, resample),
        window=lambda resized, box: _window(resized, box, gray),
    )
    return np.stack([np.asarray(view, dtype=np.uint8).transpose(2, 0, 1) for view in shown])


def cut_views(
    size: tuple[int, int],
    config: ImageConfig,
    *,
    region: Callable[[PixelBox], _Pixels],
    resize: Callable[[_Pixels, tuple[int, int]], _Pixels],
    window: Callable[[_Pixels, PixelBox], _Pixels],
) -> list[_Pixels]:
    """Make the views of a picture, whatever holds its pixels: each region is cut out and resized once.

    Args:
        size: Width and height of the picture.
        config: How pictures become views.
        region: Cuts a box out of the picture, gray where it reaches beyond it.
        resize: Resizes what was cut out to a width and height.
        window: Cuts a box out of what was resized, gray where it reaches beyond it.

    Returns:
        One for each of `views`, in their order.

    Raises:
        ImageError: when the picture is too long and narrow to be padded.
    """
    check_padded(size, config)
    shown = views(*size, config)
    resized = {
        (box, target): resize(region(box), target)
        for box, target in dict.fromkeys((view.region, view.size) for view in shown)
    }
    return [window(resized[view.region, view.size], view.crop) for view in shown]


def halfway(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """Return the size between two, as width and height, when one side is resized after the other.

    Levels are whole and clipped in between, so the order matters. Pillow's own differs between its releases; here the
    height goes first where it shrinks more.
    """
    (width, height), (across, down) = before, after
    return (width, down) if down < height and down * width < across * height else (across, height)


def normalize(pixels: NDArray[np.uint8], config: ImageConfig) -> NDArray[np.float32]:
    """Scale uint8 views to [0, 1], subtract the mean and divide by the deviation of each channel.

    The product with 1/255 is rounded to float32 before the mean is subtracted; there are only 256 values a channel, so
    they are computed once and looked up.

    Args:
        pixels: `[..., 3, height, width]`, uint8.
        config: Holds mean and standard deviation.

    Returns:
        The same shape, float32.

    Raises:
        ImageError: when the pixels are not uint8 or do not have three channels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim < 3 or pixels.shape[-3] != 3:
        raise ImageError(
            f"views must be uint8 [..., 3, height, width], not {pixels.dtype} {list(pixels.shape)}: "
            "make them with to_views"
        )
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    output = np.empty(pixels.shape, dtype=np.float32)
    for channel, (mean, std) in enumerate(zip(config.mean, config.std, strict=True)):
        table = (scaled - np.float32(mean)) / np.float32(std)
        output[..., channel, :, :] = table[pixels[..., channel, :, :]]
    return output


def _open(source: ImageSource, name: str | None) -> tuple[str, Image.Image]:
    """Return a name for messages and the picture, whose pixels may not be decoded yet."""
    if isinstance(source, Image.Image):
        return name or "the picture", source
    if isinstance(source, np.ndarray):
        return name or "the array", _from_array(source)
    if isinstance(source, bytes):
        name = name or "the picture"
        return name, _parse(io.BytesIO(source), name)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"an object of type {type(source).__name__} is not a picture: give a path, bytes, a Pillow image or a "
            "uint8 array"
        )
    name = name or _name_of_file(source)
    return name, _parse(source, name)


def _name_of_file(path: str | os.PathLike[str]) -> str:
    if not os.path.isfile(path):
        raise ImageError(f"there is no picture file {str(path)!r}: check the path")
    return repr(str(path))


def _parse(file: str | os.PathLike[str] | io.BytesIO, name: str) -> Image.Image:
    """Read the header of a picture; `max_pixels` takes the place of Pillow's warning about large ones."""
    with _told_in_one_sentence(name, "cannot be opened"), _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


@contextmanager
def _told_in_one_sentence(name: str, complaint: str) -> Iterator[None]:
    """Turn what Pillow raises over a picture into an ImageError; errors of the machine stay what they are."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is larger than what Pillow opens ({error}): make it smaller, or raise the limit with "
            "`saccade ask --max-pixels`, in Python with PIL.Image.MAX_IMAGE_PIXELS and saccade.load(max_pixels=...)"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads: convert it to PNG or JPEG") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno not in _OF_A_FILE:
            raise
        raise ImageError(f"{name} {complaint} ({error}): save it again") from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or not array.size:
        raise ImageError(
            f"an array picture must be uint8 [height, width] or [height, width, 3 or 4], not {array.dtype} "
            f"{list(array.shape)}: convert it first"
        )
    return Image.fromarray(array)


def _goes_on(image: Image.Image) -> bool:
    """Whether more frames or pages follow; one that the caller has turned to is what the caller wants."""
    return image.tell() == 0 and image.format not in _WHOLE_AT_ONCE and getattr(image, "is_animated", False)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decode a picture and return it as RGB."""
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels, whose white is not defined: convert it to 8 bits")
    if image.mode.startswith("I"):
        return _from_16_bit(image, name)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, _WHITE), over).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    """Keep the upper 8 of 16 bits, as Pillow itself does with 16-bit color."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError(f"{name} holds integers beyond 16 bits, whose white is not defined: convert it to 8 bits")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _window(image: Image.Image, box: PixelBox, gray: int) -> Image.Image:
    """Cut a box out of an RGB picture, gray where it reaches beyond the picture; the whole picture is not copied."""
    if box == (0, 0, *image.size):
        return image
    left, top, right, bottom = box
    window = Image.new("RGB", (right - left, bottom - top), (gray,) * 3)
    window.paste(image, (-left, -top))
    return window


def _resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return image.resize(halfway(image.size, size), resample).resize(size, resample)
