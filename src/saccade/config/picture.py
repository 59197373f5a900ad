"""How pictures become views, as data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from saccade.config.frozen import Frozen
from saccade.errors import ConfigError

Fit = Literal["squash", "pad"]


# Which layouts each of these fields has a meaning for; elsewhere it keeps its default.
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "tiles_per_side": ("tiles",),
    "max_tiles": ("dynamic",),
    "grid_side": ("dynamic",),
    "thumbnail": ("tiles", "dynamic"),
    "thumbnail_fit": ("tiles", "dynamic"),
}


class ImageConfig(Frozen):
    """How one picture becomes square views of `side` pixels (see `saccade.image`).

    Attributes:
        side: Side of a view in pixels; equals the vision tower's picture size.
        layout: "single": the whole picture is one view. "tiles": a thumbnail of the whole picture, then the picture
            once more, larger, cut row by row into a square grid of tiles. "dynamic": the same, but the grid has the
            columns and rows, `max_tiles` at most in all, whose shape is nearest to the picture's; a small picture is
            one view.
        fit: How the picture takes the shape that is shown or cut, a square or that of the grid: "squash" ignores the
            aspect ratio, "pad" first centers the picture on a canvas of that shape.
        tiles_per_side: Tiles along one side of the grid ("tiles" only; 1 elsewhere).
        thumbnail_fit: How the picture becomes the square thumbnail, or the one view of a picture that is not cut
            ("tiles" and "dynamic").
        max_tiles: Most tiles of a picture, at least 2 ("dynamic" only; 1 elsewhere).
        grid_side: A picture of this many pixels squared, or fewer, is not cut; one of n times as many gets about n
            tiles ("dynamic" only; None for `side`).
        thumbnail: Whether a view of the whole picture comes before the tiles. A picture that is not cut is one view
            all the same ("tiles" and "dynamic").
        margin: Pixels on each of the four sides of a view in which it repeats its neighbors, so that tiles advance by
            `side - 2 * margin`; at the rim of the picture, and so on all sides of a thumbnail or a single view, they
            are a frame of `pad_value`, laid around the resized picture. A compressor that crops drops them again.
        resample: Interpolation of the resize.
        mean: Per-channel mean subtracted after scaling to [0, 1], RGB.
        std: Per-channel divisor after the mean, RGB.
        pad_value: Gray level of the canvas for "pad" and of the frame of `margin`, 0..255.
        max_pixels: Pictures with more pixels are refused before they are decoded, and so are those that padding would
            give more pixels.
    """

    side: PositiveInt
    layout: Literal["single", "tiles", "dynamic"] = "single"
    fit: Fit = "squash"
    tiles_per_side: PositiveInt = 1
    thumbnail_fit: Fit = "squash"
    max_tiles: PositiveInt = 1
    grid_side: PositiveInt | None = None
    thumbnail: bool = True
    margin: Annotated[int, Field(ge=0)] = 0
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pad_value: Annotated[int, Field(ge=0, le=255)] = 127
    max_pixels: PositiveInt = 178_956_970

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Raise ConfigError where fields that are valid alone do not fit together."""
        if self.layout == "tiles" and self.tiles_per_side == 1:
            raise ConfigError(
                "image.layout 'tiles' with image.tiles_per_side 1 cuts nothing: set tiles_per_side to 2 or more"
            )
        if self.layout == "dynamic" and self.max_tiles == 1:
            raise ConfigError("image.layout 'dynamic' with image.max_tiles 1 cuts nothing: set max_tiles to 2 or more")
        for name, layouts in _MEANT_FOR.items():
            value = getattr(self, name)
            if self.layout not in layouts and value != type(self).model_fields[name].default:
                raise ConfigError(
                    f"image.layout {self.layout!r} has no use for image.{name} {value!r}: leave it out, or set layout "
                    f"to {' or '.join(map(repr, layouts))}"
                )
        if 2 * self.margin >= self.side:
            raise ConfigError(
                f"image.margin {self.margin} on both sides leaves nothing of image.side {self.side}: keep it below half"
            )
