"""Pictures cut to their own shape: the grid, tiles that overlap inside a frame, and where their patches lie."""

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers_vlm import tiny_config
from saccade import presets
from saccade.config import ImageConfig, SaccadeConfig
from saccade.errors import ConfigError, ImageError
from saccade.explain import grid_boxes, to_map
from saccade.image import View, num_image_tokens, num_views, to_views, view_rows, views
from saccade.image.transform import halfway
from small import picture

SIDE, MARGIN = 24, 4
STEP = SIDE - 2 * MARGIN
# Views of 24 pixels, 16 of which are a tile's own; a picture of 24 x 24 is the largest that is not cut.
DYNAMIC = ImageConfig(side=SIDE, layout="dynamic", max_tiles=4, pad_value=9)
FRAMED = ImageConfig(side=SIDE, layout="dynamic", max_tiles=4, pad_value=9, margin=MARGIN)


def random_configs(count: int) -> Iterator[tuple[int, int, ImageConfig]]:
    """Sizes from thin to wide with settings of every kind."""
    rng = random.Random(5)
    for _ in range(count):
        side = rng.randint(3, 12)
        fields: dict[str, Any] = {"side": side, "fit": rng.choice(("squash", "pad"))}
        fields["margin"] = rng.randint(0, (side - 1) // 2)
        layout = rng.choice(("single", "tiles", "dynamic", "dynamic", "dynamic"))
        if layout != "single":
            fields["thumbnail"] = rng.random() < 0.5
            fields["thumbnail_fit"] = rng.choice(("squash", "pad"))
        if layout == "tiles":
            fields["tiles_per_side"] = rng.randint(2, 4)
        if layout == "dynamic":
            fields["max_tiles"] = rng.randint(2, 12)
            fields["grid_side"] = rng.choice((None, rng.randint(1, 30)))
        width, height = (round(math.exp(rng.uniform(0, math.log(300)))) for _ in range(2))
        yield width, height, ImageConfig(layout=layout, **fields)


def tiles_of(width: int, height: int, config: ImageConfig) -> tuple[View, ...]:
    """The views without those of the whole picture."""
    return views(width, height, config)[view_rows(width, height, config)[0] :]


class TestGrid:
    @pytest.mark.parametrize(
        ("sizes", "rows", "tokens", "stitched"),
        [
            (((336, 336), (448, 448)), (1,), 256, 576),
            (((450, 450), (600, 600), (480, 640)), (1, 1, 1), 768, 1728),
            (((640, 480), (800, 500)), (1, 2), 768, 1728),
            (((700, 700), (800, 600), (1024, 768)), (1, 2, 2), 1280, 2880),
            (((1280, 720), (1920, 1080)), (1, 3), 1024, 2304),
            (((1080, 1920),), (1, 1, 1, 1), 1024, 2304),
            (((2000, 400), (3000, 500)), (1, 4), 1280, 2880),
        ],
    )
    def test_worked_examples(
        self, sizes: tuple[tuple[int, int], ...], rows: tuple[int, ...], tokens: int, stitched: int
    ) -> None:
        for preset, expected in ((presets.flashvl_dynamic(), tokens), (presets.flashvl_iss(), stitched)):
            for size in sizes:
                assert view_rows(*size, preset.image) == rows, size
                assert num_image_tokens(*size, preset.image, preset.tokens_per_view) == expected, size

    @pytest.mark.parametrize(
        ("size", "rows"),
        [
            ((448, 448), (1, 1, 1)),
            ((512, 512), (1, 2, 2)),
            ((600, 600), (1, 2, 2)),
            ((640, 480), (1, 2, 2)),
            ((800, 500), (1, 2, 2)),
            ((1920, 1080), (1, 3)),
            ((3000, 500), (1, 4)),
        ],
    )
    def test_a_smaller_scale_cuts_earlier(self, size: tuple[int, int], rows: tuple[int, ...]) -> None:
        image = presets.flashvl_iss().image.model_copy(update={"grid_side": 336})
        assert view_rows(*size, image) == rows

    @pytest.mark.parametrize("most", [2, 3, 4, 6, 9])
    def test_the_rule_is_that_of_minicpm(self, most: int) -> None:
        module = pytest.importorskip("transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6")
        theirs = module.MiniCPMV4_6ImageProcessorPil()
        config = ImageConfig(side=28, layout="dynamic", max_tiles=most)
        rng = random.Random(most)
        sizes = [(rng.randint(1, 200), rng.randint(1, 200)) for _ in range(1500)]
        for width, height in [*sizes, *((side, side) for side in range(1, 120))]:
            rows, columns = theirs.get_sliced_grid((height, width), most, 28) or (0, 0)
            if most > 4 and width == height:  # rounded logarithms break ties there, such as that of 2 x 3 and 3 x 2
                columns, rows = sorted((columns, rows))
            assert view_rows(width, height, config) == (1, *[columns] * rows), (width, height)

    def test_of_two_shapes_equally_near_the_one_with_fewer_columns(self) -> None:
        assert view_rows(30, 30, DYNAMIC)[1:] == (1, 1), "not 2 x 1"
        most = DYNAMIC.model_copy(update={"max_tiles": 12})
        assert view_rows(120, 60, most)[1:] == (4, 4, 4), "not 6 x 2, which is as much wider as this is narrower"
        assert view_rows(60, 120, most)[1:] == (2,) * 6, "not 3 x 4"

    def test_without_a_thumbnail(self) -> None:
        alone = DYNAMIC.model_copy(update={"thumbnail": False})
        assert view_rows(60, 20, alone) == (0, 3)
        assert views(60, 20, alone) == views(60, 20, DYNAMIC)[1:]
        assert view_rows(20, 20, alone) == (1,)
        assert views(20, 20, alone) == views(20, 20, DYNAMIC)
        tiles = ImageConfig(side=7, layout="tiles", tiles_per_side=2, thumbnail=False)
        assert view_rows(60, 20, tiles) == (0, 2, 2)

    def test_layouts_that_do_not_look_at_the_size(self) -> None:
        assert view_rows(60, 20, ImageConfig(side=7)) == (1,)
        assert view_rows(60, 20, ImageConfig(side=7, layout="tiles", tiles_per_side=3)) == (1, 3, 3, 3)

    @pytest.mark.parametrize("size", [(0, 4), (4, 0), (-3, -3)])
    def test_nothing_to_show(self, size: tuple[int, int]) -> None:
        for count in (view_rows, views, num_views):
            with pytest.raises(ImageError, match="nothing to show"):
                count(*size, FRAMED)


class TestEverySize:
    def test_counts(self) -> None:
        for width, height, config in random_configs(3000):
            rows, cut = view_rows(width, height, config), views(width, height, config)
            tiles = rows[1:]
            assert len(cut) == sum(rows) == num_views(width, height, config)
            assert rows[0] == (config.thumbnail or not tiles)
            if config.layout == "dynamic":
                large = width * height > (config.grid_side or config.side) ** 2
                assert 2 <= sum(tiles) <= config.max_tiles if large else not tiles

    def test_what_the_tiles_keep_covers_the_canvas_once(self) -> None:
        for width, height, config in random_configs(1500):
            tiles, rows = tiles_of(width, height, config), view_rows(width, height, config)[1:]
            if not tiles:
                continue
            (canvas,) = {tile.size for tile in tiles}
            covered = np.zeros(canvas[::-1], dtype=int)
            for tile in tiles:
                left, top, right, bottom = tile.kept
                covered[top:bottom, left:right] += 1
            assert (covered == 1).all()
            tops = [tile.kept[1] for tile in tiles]
            assert [tops.count(top) for top in sorted(set(tops))] == list(rows)
            assert [tile.kept[1::-1] for tile in tiles] == sorted(tile.kept[1::-1] for tile in tiles)

    def test_every_view_is_a_square_of_the_right_side(self) -> None:
        for width, height, config in random_configs(1500):
            for view in views(width, height, config):
                left, top, right, bottom = view.crop
                assert (right - left, bottom - top) == (config.side, config.side)
                assert view.kept == (
                    left + config.margin,
                    top + config.margin,
                    right - config.margin,
                    bottom - config.margin,
                )

    def test_a_point_goes_into_a_view_and_comes_back(self) -> None:
        rng = random.Random(6)
        for width, height, config in random_configs(800):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            owners = 0
            for view in tiles_of(width, height, config) or views(width, height, config):
                left, top, right, bottom = view.box
                u, v = (x - left) / (right - left) * config.side, (y - top) / (bottom - top) * config.side
                inner = config.side - config.margin
                owners += config.margin <= u < inner and config.margin <= v < inner
                # The way back goes through the canvas, not through the box.
                over = (view.region[2] - view.region[0]) / view.size[0]
                down = (view.region[3] - view.region[1]) / view.size[1]
                assert (view.crop[0] + u) * over + view.region[0] == pytest.approx(x, abs=1e-6)
                assert (view.crop[1] + v) * down + view.region[1] == pytest.approx(y, abs=1e-6)
            assert owners == 1

    def test_a_padded_canvas_has_the_shape_of_the_grid(self) -> None:
        for width, height, config in random_configs(1500):
            for view in views(width, height, config):
                left, top, right, bottom = view.region
                if (left, top, right, bottom) == (0, 0, width, height):
                    continue
                assert (right - left) * view.size[1] == (bottom - top) * view.size[0]
                assert left <= 0 <= width <= right
                assert top <= 0 <= height <= bottom
                assert 0 <= (right - width) - -left <= 1
                assert 0 <= (bottom - height) - -top <= 1


class TestPixels:
    @pytest.mark.parametrize("size", [(20, 20), (23, 57), (50, 20), (90, 30), (61, 60)])
    def test_a_frame_and_tiles_that_overlap(self, size: tuple[int, int]) -> None:
        image = picture(*size)
        whole, *tiles = to_views(image, FRAMED)
        rows = view_rows(*size, FRAMED)[1:]
        assert np.array_equal(whole, framed(image, STEP, STEP))
        canvas = framed(image, STEP * max(rows, default=0), STEP * len(rows)) if rows else None
        for number, tile in enumerate(tiles):
            assert canvas is not None
            top, left = (STEP * place for place in divmod(number, rows[0]))
            assert np.array_equal(tile, canvas[:, top : top + SIDE, left : left + SIDE])

    @pytest.mark.parametrize("size", [(23, 57), (90, 30), (61, 60)])
    def test_what_tiles_keep_joined_is_the_resized_picture(self, size: tuple[int, int]) -> None:
        rows, inner = view_rows(*size, FRAMED)[1:], slice(MARGIN, SIDE - MARGIN)
        kept = to_views(picture(*size), FRAMED)[1:, :, inner, inner]
        joined = kept.reshape(len(rows), rows[0], 3, STEP, STEP).transpose(2, 0, 3, 1, 4)
        expected = np.asarray(picture(*size).resize((STEP * rows[0], STEP * len(rows)), Image.Resampling.BICUBIC))
        assert np.array_equal(joined.reshape(3, STEP * len(rows), STEP * rows[0]), expected.transpose(2, 0, 1))

    def test_plain_tiles_are_those_without_a_margin(self) -> None:
        whole, *tiles = to_views(picture(90, 30), DYNAMIC)
        large = np.asarray(picture(90, 30).resize((3 * SIDE, SIDE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.array_equal(np.concatenate(tiles, axis=2), large)
        assert np.array_equal(whole, to_views(picture(90, 30), ImageConfig(side=SIDE))[0])

    @pytest.mark.parametrize("fields", [{}, {"layout": "tiles", "tiles_per_side": 2}])
    def test_a_frame_in_other_layouts(self, fields: dict[str, Any]) -> None:
        cut = to_views(picture(30, 20), ImageConfig(side=SIDE, margin=MARGIN, pad_value=9, **fields))
        assert np.array_equal(cut[0], framed(picture(30, 20), STEP, STEP))
        assert len(cut) == (5 if fields else 1)
        if fields:
            assert np.array_equal(cut[4], framed(picture(30, 20), 2 * STEP, 2 * STEP)[:, -SIDE:, -SIDE:])

    def test_padding_to_the_grid(self) -> None:
        white = Image.new("RGB", (90, 20), "white")
        config = DYNAMIC.model_copy(update={"fit": "pad", "max_tiles": 3})
        assert view_rows(90, 20, config) == (1, 3)
        tiles = to_views(white, config)[1:]
        assert (tiles[:, :, [0, 1, -2, -1]] == 9).all()
        assert (tiles[:, :, 10:14] == 255).all()

    def test_canvases_beyond_the_limit_are_not_made(self) -> None:
        config = DYNAMIC.model_copy(update={"fit": "pad", "max_pixels": 10_000})
        assert to_views(Image.new("RGB", (190, 40)), config).shape[0] == 5
        with pytest.raises(ImageError, match=r"900 x 1 pixels would be padded to 900 x 300, more than 10000 pixels"):
            to_views(Image.new("RGB", (900, 1)), config)

    @pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
    def test_extreme_shapes_are_shown(self, size: tuple[int, int]) -> None:
        assert len(to_views(Image.new("RGB", size), FRAMED)) == num_views(*size, FRAMED)


def framed(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """A picture resized and put into a frame of MARGIN pixels, `[3, height, width]`."""
    first = image.resize(halfway(image.size, (width, height)), Image.Resampling.BICUBIC)
    resized = np.asarray(first.resize((width, height), Image.Resampling.BICUBIC))
    return np.pad(resized, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=9).transpose(2, 0, 1)


class TestExplained:
    """Patches of 4 pixels, 6 a side of a view; with the frame of 4 pixels the outer ring of patches is margin."""

    @pytest.fixture
    def config(self) -> SaccadeConfig:
        return tiny_config(image=FRAMED)

    @pytest.mark.parametrize("size", [(200, 200), (400, 150), (150, 400), (20, 20)])
    def test_boxes_lie_where_the_patches_get_their_pixels(self, size: tuple[int, int], config: SaccadeConfig) -> None:
        width, height = size
        ramp = np.zeros((height, width, 3), dtype=np.uint8)
        ramp[..., 0] = np.round(np.linspace(20, 220, width))
        ramp[..., 1] = np.round(np.linspace(20, 220, height))[:, None]
        cut = to_views(Image.fromarray(ramp), config.image).astype(float)
        patches = cut.reshape(len(cut), 3, 6, 4, 6, 4).mean(axis=(3, 5))
        steps = (np.arange(6) + 0.5) / 6
        for view, (left, top, right, bottom) in zip(patches, grid_boxes(width, height, config), strict=True):
            x, y = left + steps * (right - left), top + steps * (bottom - top)
            across, down = (x > 0) & (x < width), (y > 0) & (y < height)
            red, green = (view[channel][np.ix_(down, across)] for channel in (0, 1))
            np.testing.assert_allclose(red, np.broadcast_to(20 + 200 * x[across] / width, red.shape), atol=6)
            np.testing.assert_allclose(green, np.broadcast_to(20 + 200 * y[down, None] / height, green.shape), atol=6)
            assert (view[:, ~down] == 9).all(), "what lies outside is frame"
            assert (view[:, :, ~across] == 9).all()

    @pytest.mark.parametrize("size", [(200, 200), (400, 150), (20, 20)])
    def test_a_frame_gets_nothing_of_the_picture(self, size: tuple[int, int], config: SaccadeConfig) -> None:
        boxes = grid_boxes(*size, config)
        inner = np.zeros((len(boxes), 6, 6), dtype=np.float32)
        inner[:, 1:-1, 1:-1] = np.random.default_rng(1).random((len(boxes), 4, 4))
        assert to_map(inner, boxes, *size).sum() == pytest.approx(inner.sum(), rel=1e-4)
        thumbnail = np.ones_like(inner[:1])
        thumbnail[:, 1:-1, 1:-1] = 0
        np.testing.assert_allclose(to_map(thumbnail, boxes[:1], *size), 0, atol=1e-6)

    def test_the_kept_patches_of_tiles_show_everything_once(self, config: SaccadeConfig) -> None:
        boxes = grid_boxes(400, 150, config)
        kept = np.zeros((len(boxes), 6, 6), dtype=np.float32)
        kept[1:, 1:-1, 1:-1] = 1
        laid = to_map(kept, boxes, 400, 150)
        np.testing.assert_allclose(laid, kept.sum() / (400 * 150), rtol=1e-5)

    def test_neighbors_see_the_margin_twice(self, config: SaccadeConfig) -> None:
        boxes = grid_boxes(400, 100, config)
        assert len(boxes) == 5
        laid = to_map(np.ones((5, 6, 6), dtype=np.float32)[1:], boxes[1:], 400, 100)
        assert laid[50, 110] == pytest.approx(2 * laid[50, 50], rel=1e-5)


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({"layout": "dynamic"}, "'dynamic' with image.max_tiles 1 cuts nothing: set max_tiles to 2 or more"),
            ({"layout": "dynamic", "max_tiles": 4, "tiles_per_side": 2}, "no use for image.tiles_per_side 2: leave"),
            ({"max_tiles": 4}, "'single' has no use for image.max_tiles 4: leave it out, or set layout to 'dynamic'"),
            ({"layout": "tiles", "tiles_per_side": 2, "max_tiles": 4}, "'tiles' has no use for image.max_tiles 4"),
            ({"grid_side": 8}, "'single' has no use for image.grid_side 8"),
            ({"thumbnail": False}, "no use for image.thumbnail False: .* set layout to 'tiles' or 'dynamic'"),
            ({"thumbnail_fit": "pad"}, "no use for image.thumbnail_fit 'pad'"),
            ({"margin": 4}, "image.margin 4 on both sides leaves nothing of image.side 8: keep it below half"),
            ({"margin": 5, "layout": "dynamic", "max_tiles": 2}, "image.margin 5"),
            ({"margin": -1}, "margin: Input should be greater than or equal to 0"),
            ({"layout": "dynamic", "max_tiles": 0}, "max_tiles: Input should be greater than 0"),
        ],
    )
    def test_settings_that_do_not_fit(self, fields: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint):
            ImageConfig(side=8, **fields)
