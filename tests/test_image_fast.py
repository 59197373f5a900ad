"""The fast mode: the exact mode's geometry, its pixels up to rounding, its normalization to the last bit."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from saccade import presets
from saccade.config import ImageConfig
from saccade.errors import ImageError
from saccade.image import fast, normalize, open_image, to_views, transform
from saccade.image.fast import FastPicture, fast_views, normalize_views, open_fast
from small import picture
from test_image_dynamic import random_configs

CONFIGS = {
    "squash": ImageConfig(side=23),
    "pad": ImageConfig(side=23, fit="pad", pad_value=9),
    "tiles": ImageConfig(side=17, layout="tiles", fit="pad", tiles_per_side=3),
    "dynamic": ImageConfig(side=20, layout="dynamic", max_tiles=4, fit="pad", resample="bilinear"),
    "overlapped": ImageConfig(side=24, layout="dynamic", max_tiles=4, margin=4, pad_value=0),
}
SIZES = [(64, 41), (41, 64), (9, 90), (24, 24), (130, 20), (3, 2)]


def noise(width: int, height: int) -> NDArray[np.uint8]:
    """The hardest picture to resize: steep edges everywhere."""
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures() -> Iterator[NDArray[np.uint8]]:
    for size in SIZES:
        yield noise(*size)
        yield np.array(picture(*size))


def difference(array: NDArray[np.uint8], config: ImageConfig) -> NDArray[np.int64]:
    exact = to_views(Image.fromarray(array), config).astype(np.int64)
    found = fast_views(torch.from_numpy(array), config)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    return np.abs(found.numpy() - exact)


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """A photograph's kind of file: smooth, with a corner of its own so that a turn would show."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.where((x < width // 4) & (y < height // 4), 255, 30)], 2)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def follows_pillow() -> bool:
    """Whether this Pillow resizes the height first where it shrinks more, as versions before 13 do not."""
    image = Image.fromarray(noise(10, 100))
    return np.array_equal(image.resize((40, 40)), image.resize((10, 40)).resize((40, 40)))


@pytest.fixture(params=["integers", "floats"])
def device_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's kernel for uint8, and the arithmetic of every other device."""
    if request.param == "floats":
        monkeypatch.setattr(fast, "_resize_step", fast._resize_floats)


@pytest.mark.usefixtures("device_kernels")
@pytest.mark.skipif(not follows_pillow(), reason="this Pillow resizes across first, always: other roundings")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_pixels_differ_by_rounding(config: ImageConfig) -> None:
    for array in pictures():
        found = difference(array, config)
        assert found.max() <= 2
        assert found.mean() < 0.2


def test_the_views_are_those_of_the_exact_mode() -> None:
    """Sharp black and white in a frame: a view that is shifted, or in another place, differs by far more."""
    for width, height, config in random_configs(60):
        array = np.full((height, width, 3), 255, dtype=np.uint8)
        array[height // 2 :, : width // 3] = 0
        found = difference(array, config)
        assert found.max() <= 25, (width, height, config)
        assert found.mean() < 0.5, (width, height, config)


def test_what_is_not_resized_is_the_same() -> None:
    array = noise(24, 24)
    for config in (ImageConfig(side=24), ImageConfig(side=28, margin=2, pad_value=3)):
        assert not difference(array, config).any()


def test_bounds_are_those_of_the_exact_mode() -> None:
    config = ImageConfig(side=8, fit="pad", max_pixels=899)
    with pytest.raises(ImageError, match="30 x 3 pixels would be padded to 30 x 30, more than 899"):
        fast_views(torch.zeros(3, 30, 3, dtype=torch.uint8), config)
    for source in (np.zeros((30, 30, 3), np.uint8), Image.new("RGB", (30, 30))):
        with pytest.raises(ImageError, match="30 x 30 pixels, more than the limit of 899"):
            open_fast(source, config)
    with pytest.raises(ImageError, match=r"must be uint8 \[height, width, 3\], not float32 \[3, 30, 3\]"):
        fast_views(torch.zeros(3, 30, 3), config)
    with pytest.raises(ImageError, match="both sides must be at least 1"):
        open_fast(np.zeros((0, 3, 3), np.uint8), config)


def test_normalized_to_the_last_bit() -> None:
    values = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (2, 3, 16, 16)).copy()
    for build in presets.PRESETS.values():
        config, views = build().image, torch.from_numpy(values)
        expected = torch.from_numpy(normalize(values, config))
        assert torch.equal(normalize_views(views, config), expected)
        assert torch.equal(normalize_views(views, config, torch.bfloat16), expected.bfloat16())


class TestOpened:
    def test_an_array_is_taken_as_it_is(self) -> None:
        array = noise(7, 5)
        assert open_fast(array, ImageConfig(side=4)).pixels is array

    def test_any_other_array_becomes_one_that_torch_takes(self) -> None:
        array = noise(7, 5)
        array.flags.writeable = False
        for source in (array, array[:, ::-1], array[..., ::-1], array[..., 0]):
            opened = open_fast(source, ImageConfig(side=4))
            assert torch.from_numpy(opened.pixels).shape == (5, 7, 3)
            assert np.array_equal(opened.pixels, open_image(source, 99))
            assert opened.size == (7, 5)

    def test_messages_call_it_by_its_name(self) -> None:
        with pytest.raises(ImageError, match=r"'notes.jpg' is not a picture"):
            open_fast(b"shopping list", ImageConfig(side=4), name="'notes.jpg'")


class TestReduced:
    """JPEG files that are decoded at a reduced size."""

    def opened(self, data: bytes, **config: Any) -> tuple[FastPicture, ImageConfig]:
        made = ImageConfig(**{"side": 20} | config)
        return open_fast(data, made), made

    @pytest.mark.parametrize(
        ("size", "reduced"),
        [
            ((79, 79), (79, 79)), ((80, 80), (40, 40)), ((400, 81), (200, 41)), ((321, 320), (41, 40)),
            ((900, 900), (113, 113)),
        ],
    )  # fmt: skip
    def test_twice_the_pixels_of_the_views_are_left(self, size: tuple[int, int], reduced: tuple[int, int]) -> None:
        found, _ = self.opened(jpeg(*size))
        assert found.size == size
        assert found.pixels.shape == (*reduced[::-1], 3)

    def test_other_files_are_not(self) -> None:
        buffer = io.BytesIO()
        Image.fromarray(noise(90, 90)).save(buffer, "PNG")
        assert self.opened(buffer.getvalue())[0].pixels.shape == (90, 90, 3)

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"fit": "pad", "pad_value": 9},
            {"layout": "tiles", "tiles_per_side": 2, "fit": "pad"},
            {"layout": "dynamic", "max_tiles": 6, "grid_side": 100},
        ],
        ids=["squash", "pad", "tiles", "dynamic"],
    )
    def test_views_are_those_of_the_whole_picture(self, config: dict[str, Any], orientation: int) -> None:
        data = jpeg(403, 238, orientation)
        found, made = self.opened(data, **config)
        whole = open_image(data, made.max_pixels)
        assert found.pixels.shape[0] * 2 <= whole.height + 1
        assert found.size == whole.size
        views = fast_views(torch.from_numpy(found.pixels), made, found.size).numpy().astype(int)
        exact = to_views(whole, made).astype(int)
        assert views.shape == exact.shape
        assert np.abs(views - exact).mean() < 2.5


def test_the_exact_mode_knows_nothing_of_it() -> None:
    data = jpeg(900, 700)
    assert transform.open_image(data, 10**6).size == (900, 700)


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_on_the_device(config: ImageConfig) -> None:
    for array in pictures():
        here = fast_views(torch.from_numpy(array), config)
        there = fast_views(torch.from_numpy(array).cuda(), config)
        assert (here.int() - there.cpu().int()).abs().max() <= 2
        assert torch.equal(normalize_views(there, config).cpu(), normalize_views(there.cpu(), config))
