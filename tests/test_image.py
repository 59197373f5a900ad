"""Pictures: costs known before they are read, every format becomes RGB, and the pixels are the reference's."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features
from safetensors.numpy import load_file

from conftest import GOLDEN
from saccade import presets
from saccade.config import ImageConfig
from saccade.errors import ImageError
from saccade.image import View, normalize, num_image_tokens, num_views, open_image, to_views, views
from saccade.image.transform import halfway
from small import picture

MANY = 10**6
FLASHSLOTH = GOLDEN / "flashsloth"
AVIF = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF"))
STORED = Path(__file__).parent / "data" / "views.npz"
TILES: dict[str, Any] = {"layout": "tiles", "fit": "pad", "tiles_per_side": 3}


def ramp(width: int, height: int) -> NDArray[np.uint8]:
    """The small picture as numbers, `[height, width, 3]`."""
    return np.asarray(picture(width, height))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class TestGeometry:
    @pytest.mark.parametrize(
        ("width", "height", "box"),
        [
            (6, 6, (0, 0, 6, 6)),
            (5, 2, (0, -1, 5, 4)),
            (2, 5, (-1, 0, 4, 5)),
            (4, 1, (0, -1, 4, 3)),
            (1, 8, (-3, 0, 5, 8)),
        ],
    )
    def test_the_square_around_a_picture(self, width: int, height: int, box: tuple[int, int, int, int]) -> None:
        config = ImageConfig(side=7, fit="pad")
        assert [view.box for view in views(width, height, config)] == [box]

    def test_the_whole_picture(self) -> None:
        assert [view.box for view in views(9, 4, ImageConfig(side=7))] == [(0, 0, 9, 4)]

    @pytest.mark.parametrize(("width", "height", "square"), [(5, 2, (0, -1, 5, 4)), (2, 5, (-1, 0, 4, 5))])
    def test_a_thumbnail_and_tiles(self, width: int, height: int, square: tuple[int, int, int, int]) -> None:
        thumbnail, *tiles = views(width, height, ImageConfig(side=7, **TILES))
        assert thumbnail == View((0, 0, width, height), (7, 7), (0, 0, 7, 7))
        assert {(tile.region, tile.size) for tile in tiles} == {(square, (21, 21))}
        assert [tile.crop for tile in tiles] == [
            (0, 0, 7, 7), (7, 0, 14, 7), (14, 0, 21, 7),
            (0, 7, 7, 14), (7, 7, 14, 14), (14, 7, 21, 14),
            (0, 14, 7, 21), (7, 14, 14, 21), (14, 14, 21, 21),
        ]  # fmt: skip

    def test_what_a_tile_shows_may_end_between_pixels(self) -> None:
        boxes = [view.box for view in views(5, 2, ImageConfig(side=7, **(TILES | {"tiles_per_side": 2})))]
        assert boxes == [(0, 0, 5, 2), (0, -1, 2.5, 1.5), (2.5, -1, 5, 1.5), (0, 1.5, 2.5, 4), (2.5, 1.5, 5, 4)]

    @pytest.mark.parametrize(("config", "count"), [({}, 1), (TILES, 10)], ids=["single", "tiles"])
    def test_counts(self, config: dict[str, Any], count: int) -> None:
        for size in ((900, 4), (3, 700), (1, 1)):
            assert num_views(*size, ImageConfig(side=7, **config)) == count
            assert num_image_tokens(*size, ImageConfig(side=7, **config), tokens_per_view=16) == 16 * count

    @pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
    def test_nothing_to_show(self, size: tuple[int, int]) -> None:
        for count in (views, num_views):
            with pytest.raises(ImageError, match="nothing to show"):
                count(*size, ImageConfig(side=7))


class TestOpened:
    def test_sources_agree(self, tmp_path: Path) -> None:
        array = ramp(7, 5)
        path = tmp_path / "ramp.png"
        path.write_bytes(encoded(Image.fromarray(array)))
        for source in (array, Image.fromarray(array), path, str(path), path.read_bytes()):
            assert np.array_equal(np.asarray(open_image(source, MANY)), array)

    def test_transparency_lies_on_white(self) -> None:
        pixels = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 128]]], dtype=np.uint8)
        opened = np.asarray(open_image(encoded(Image.fromarray(pixels)), MANY))[0]
        assert opened[:2].tolist() == [[255, 255, 255], [200, 100, 0]]
        assert np.abs(opened[2].astype(int) - [227, 177, 127]).max() <= 1
        assert np.array_equal(np.asarray(open_image(pixels, MANY))[0], opened)

    @pytest.mark.parametrize("mode", ["P", "L", "LA", "1"])
    def test_transparent_palettes_and_grays(self, mode: str) -> None:
        image = Image.new("LA", (2, 1), (0, 0)) if mode == "LA" else Image.new(mode, (2, 1), 0)
        stored = encoded(image) if mode == "LA" else encoded(image, transparency=0)
        assert np.asarray(open_image(stored, MANY)).tolist() == [[[255] * 3] * 2]

    def test_a_palette_without_transparency(self) -> None:
        palette = Image.fromarray(ramp(4, 4)).quantize(4)
        assert np.array_equal(np.asarray(open_image(encoded(palette), MANY)), np.asarray(palette.convert("RGB")))

    def test_sixteen_bits(self) -> None:
        gray = Image.fromarray(np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16))
        assert np.asarray(open_image(encoded(gray), MANY))[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]
        wide = Image.fromarray(np.array([[0, 0xFFFF]], dtype=np.int32))
        assert np.asarray(open_image(wide, MANY))[0].tolist() == [[0] * 3, [255] * 3]

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
    def test_other_color_spaces(self, mode: str) -> None:
        image = Image.fromarray(ramp(6, 6))
        image = image if mode == "LAB" else image.convert(mode)
        assert open_image(image, MANY).mode == "RGB"


class TestRefused:
    def test_no_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.png", tmp_path):
            with pytest.raises(ImageError, match="there is no picture file"):
                open_image(path, MANY)

    def test_not_a_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.jpg"
        path.write_text("shopping list")
        with pytest.raises(ImageError, match=r"notes.jpg.* not a picture"):
            open_image(path, MANY)
        with pytest.raises(ImageError, match="not a picture"):
            open_image(b"", MANY)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
    def test_truncated(self, kind: str) -> None:
        whole = encoded(Image.fromarray(ramp(64, 64)), kind)
        with pytest.raises(ImageError, match=r"damaged|not a picture|cannot be opened"):
            open_image(whole[: len(whole) // 2], MANY)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", AVIF])
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_damage_is_never_another_error(self, kind: str) -> None:
        whole, noise = encoded(Image.fromarray(ramp(20, 20)), kind), np.random.default_rng(7)
        for _ in range(60):
            broken = bytearray(whole)
            for position in noise.integers(0, len(whole), 6):
                broken[position] = noise.integers(0, 256)
            try:
                assert open_image(bytes(broken), MANY).mode == "RGB"
            except ImageError:
                continue

    def test_too_many_pixels(self) -> None:
        stored = encoded(Image.new("RGB", (30, 10)))
        assert open_image(stored, 300).size == (30, 10)
        # Cut short: were it decoded before it is measured, the error would be another one.
        with pytest.raises(ImageError, match="30 x 10 pixels, more than the limit of 299"):
            open_image(stored[:60], 299)

    def test_pillows_own_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_image(encoded(Image.new("RGB", (15, 10))), 150).size == (15, 10)
        with pytest.raises(ImageError, match=r"larger than what Pillow opens .*saccade ask --max-pixels"):
            open_image(encoded(Image.new("RGB", (30, 10))), MANY)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((2, 2, 3), dtype=np.float32),
            np.zeros((3, 2, 2), dtype=np.uint8),
            np.zeros((2, 2, 2, 3), dtype=np.uint8),
            np.zeros((0, 2, 3), dtype=np.uint8),
        ],
        ids=lambda array: f"{array.dtype} {array.shape}",
    )
    def test_arrays(self, array: NDArray[Any]) -> None:
        with pytest.raises(ImageError, match="an array picture must be uint8"):
            open_image(array, MANY)

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            (7, "type int is not a picture"),
            (Image.new("F", (2, 2)), "floating-point"),
            (Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32)), "beyond 16 bits"),
            (Image.new("RGB", (0, 3)), "both sides must be at least 1"),
        ],
    )
    def test_others(self, source: Any, complaint: str) -> None:
        with pytest.raises(ImageError, match=complaint):
            open_image(source, MANY)


class TestViews:
    @pytest.mark.parametrize("fit", ["squash", "pad"])
    @pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
    def test_stored_pixels(self, fit: str, resample: str) -> None:
        config = ImageConfig(side=9, fit=fit, resample=resample, pad_value=127)
        stored = np.load(STORED)[f"{fit}_{resample}"]
        assert np.array_equal(to_views(Image.fromarray(ramp(23, 14)), config), stored)

    @pytest.mark.parametrize(("shape", "size"), [("landscape", (23, 14)), ("portrait", (14, 23))])
    def test_stored_tiles(self, shape: str, size: tuple[int, int]) -> None:
        stored = np.load(STORED)[f"tiles_{shape}"]
        assert np.array_equal(to_views(picture(*size), ImageConfig(side=9, **TILES)), stored)

    @pytest.mark.parametrize("thumbnail_fit", ["squash", "pad"])
    @pytest.mark.parametrize("fit", ["squash", "pad"])
    def test_tiles_joined_are_the_picture_at_a_larger_side(self, fit: str, thumbnail_fit: str) -> None:
        image, config = picture(23, 14), {**TILES, "fit": fit, "thumbnail_fit": thumbnail_fit}
        thumbnail, *tiles = to_views(image, ImageConfig(side=9, **config))
        rows = [np.concatenate(tiles[start : start + 3], axis=2) for start in (0, 3, 6)]
        assert np.array_equal(thumbnail, to_views(image, ImageConfig(side=9, fit=thumbnail_fit))[0])
        assert np.array_equal(np.concatenate(rows, axis=1), to_views(image, ImageConfig(side=27, fit=fit))[0])

    def test_the_margin_is_gray(self) -> None:
        config = ImageConfig(side=8, fit="pad", pad_value=77)
        view = to_views(Image.new("RGB", (8, 3), "white"), config)[0]
        assert (view[:, [0, 1, 5, 6, 7]] == 77).all()
        assert (view[:, 2:5] == 255).all()

    def test_a_square_beyond_the_limit_is_not_made(self) -> None:
        config = ImageConfig(side=8, fit="pad", max_pixels=899)
        with pytest.raises(
            ImageError, match=r"30 x 3 pixels would be padded to 30 x 30, more than 899 pixels, the limit"
        ):
            to_views(Image.new("RGB", (30, 3)), config)
        assert to_views(Image.new("RGB", (29, 3)), config).shape == (1, 3, 8, 8)

    def test_a_picture_of_the_right_size_stays(self) -> None:
        array = ramp(9, 9)
        view = to_views(Image.fromarray(array), ImageConfig(side=9))
        assert view.dtype == np.uint8
        assert np.array_equal(view[0], array.transpose(2, 0, 1))

    def test_only_rgb(self) -> None:
        with pytest.raises(ImageError, match="mode L"):
            to_views(Image.new("L", (3, 3)), ImageConfig(side=3))


class TestNormalized:
    def test_every_value(self) -> None:
        config = ImageConfig(side=16, mean=(0.5, 0.485, 0.1), std=(0.5, 0.229, 0.3))
        pixels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (2, 3, 16, 16))
        expected = (pixels * (1 / 255)).astype(np.float32)
        expected -= np.array(config.mean, dtype=np.float32)[:, None, None]
        expected /= np.array(config.std, dtype=np.float32)[:, None, None]
        output = normalize(pixels, config)
        assert output.dtype == np.float32
        assert np.array_equal(output, expected)
        assert (output[:, 0].min(), output[:, 0].max()) == (-1, 1)

    @pytest.mark.parametrize(
        "pixels", [np.zeros((1, 3, 2, 2)), np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2), np.uint8)]
    )
    def test_refused(self, pixels: NDArray[Any]) -> None:
        with pytest.raises(ImageError, match="views must be uint8"):
            normalize(pixels, ImageConfig(side=2))


class TestLibrary:
    """Pixels of transformers' own processors on Pillow, equal to the last bit."""

    @pytest.mark.parametrize("size", [(700, 433), (200, 512), (512, 512)])
    def test_the_whole_picture_bilinear(self, size: tuple[int, int]) -> None:
        module = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")
        config = presets.flashvl_static().image
        theirs = module.SiglipImageProcessorPil(size={"height": 512, "width": 512}, resample=2)
        expected = theirs(picture(*size), return_tensors="np")["pixel_values"]
        assert np.array_equal(normalize(to_views(picture(*size), config), config), expected)

    def test_views_of_the_right_size_are_only_normalized(self) -> None:
        module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
        config = presets.flashvl_iss().image
        side = config.side
        theirs = module.CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}, resample=3
        )
        views = to_views(picture(900, 500), config)
        expected = theirs([Image.fromarray(view.transpose(1, 2, 0)) for view in views], return_tensors="np")
        assert len(views) == 3
        assert np.array_equal(normalize(views, config), expected["pixel_values"])


# Which of the six pictures that the reference stored a preset makes.
OF_PRESET = {"flashsloth": slice(0, 1), "flashsloth_hd": slice(1, 6)}


@pytest.mark.golden
class TestReference:
    """Pixels of the reference's own preprocessing, equal to the last bit."""

    def pixels(self, name: str, **config: Any) -> NDArray[np.float32]:
        image, settings = open_image(FLASHSLOTH / "images" / f"{name}.png", MANY), ImageConfig(**config)
        return normalize(to_views(image, settings), settings)

    def test_squashed(self) -> None:
        single = load_file(FLASHSLOTH / "cases" / "single_image.safetensors")["pixel_values"]
        assert np.array_equal(self.pixels("landscape", side=84), single)
        pair = load_file(FLASHSLOTH / "cases" / "batch_padded.safetensors")["pixel_values"]
        assert np.array_equal(np.concatenate([self.pixels(n, side=84) for n in ("portrait", "square")]), pair)

    def test_padded(self) -> None:
        expected = load_file(FLASHSLOTH / "cases" / "preprocess_84.safetensors")["portrait.pad"]
        assert np.array_equal(self.pixels("portrait", side=84, fit="pad")[0], expected)

    def test_tiles(self) -> None:
        expected = load_file(FLASHSLOTH / "cases" / "hd_five_tiles.safetensors")["pixel_values"]
        assert np.array_equal(self.pixels("landscape", side=84, **presets.FLASHSLOTH_TILES), expected[0])
        stored = load_file(FLASHSLOTH / "cases" / "preprocess_84.safetensors")["portrait.hd_uint8"]
        image, config = Image.open(FLASHSLOTH / "images" / "portrait.png"), presets.FLASHSLOTH_TILES
        assert np.array_equal(to_views(image, ImageConfig(side=84, **config)), stored)

    @pytest.mark.parametrize("preset", ["flashsloth", "flashsloth_hd"])
    @pytest.mark.parametrize("name", ["landscape", "portrait"])
    def test_at_full_size(self, name: str, preset: str) -> None:
        expected = load_file(FLASHSLOTH / "cases" / "preprocess_384.safetensors")
        image = presets.preset(preset).image
        pixels, stored = self.pixels(name, **image.model_dump()), OF_PRESET[preset]
        assert np.array_equal(pixels[:, :, 100:104], expected[f"{name}.rows"][stored])
        assert np.allclose(pixels.mean((2, 3)), expected[f"{name}.mean"][stored], atol=1e-6)
        assert np.allclose(pixels.std((2, 3)), expected[f"{name}.std"][stored], atol=1e-5)

    @pytest.mark.parametrize("preset", ["flashsloth", "flashsloth_hd"])
    def test_uint8_at_full_size(self, preset: str) -> None:
        column = np.asarray(Image.open(FLASHSLOTH / "images" / "landscape_expected_384.png"))
        expected = column.reshape(6, 384, 384, 3).transpose(0, 3, 1, 2)[OF_PRESET[preset]]
        image = open_image(FLASHSLOTH / "images" / "landscape.png", MANY)
        assert np.array_equal(to_views(image, presets.preset(preset).image), expected)


def test_the_height_is_resized_first_where_it_shrinks_more() -> None:
    assert halfway((100, 300), (50, 50)) == (100, 50)
    assert halfway((300, 100), (50, 50)) == (50, 100)
    assert halfway((50, 50), (60, 70)) == (60, 50)
    levels = np.random.default_rng(0).integers(0, 256, (300, 100, 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    config = ImageConfig(side=50)
    by_hand = image.resize((100, 50), Image.Resampling.BICUBIC).resize((50, 50), Image.Resampling.BICUBIC)
    assert np.array_equal(to_views(image, config)[0].transpose(1, 2, 0), np.asarray(by_hand))
