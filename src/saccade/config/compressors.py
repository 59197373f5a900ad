"""How patches become visual tokens, as data.

A compressor takes a view as a square grid of patches, `grid` a side and `dim` wide. Its configuration says how many
tokens come out and how wide they are, so that counts are known before any pixel is read, and which of them stands for
which patch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from saccade.config.frozen import Frozen
from saccade.errors import ConfigError

Owners = NDArray[np.intp]


def _in_squares(grid: int, side: int) -> Owners:
    """Return for each patch the token in whose cell its center lies, when `side` x `side` tokens cover the grid."""
    cell = (2 * np.arange(grid) + 1) * side // (2 * grid)
    return cell[:, None] * side + cell


class _Windowed(Frozen):
    """One token per window of `window` x `window` patches."""

    window: PositiveInt = 3

    def num_tokens(self, grid: int) -> int:
        """Visual tokens of a view; raises ConfigError when the windows do not fill it."""
        if grid % self.window:
            raise ConfigError(f"compressor.window {self.window} does not divide the grid of {grid} patches a side")
        return (grid // self.window) ** 2

    def owners(self, grid: int) -> Owners:
        """Which token stands for each patch `[grid, grid]`."""
        return _in_squares(grid, grid // self.window)

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return dim


class SapConfig(_Windowed):
    """Spatial attention pooling over non-overlapping windows (FlashSloth, Sec. 3.2)."""

    kind: Literal["sap"] = "sap"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class AverageConfig(_Windowed):
    """Average pooling over non-overlapping windows."""

    kind: Literal["average"] = "average"


class IdentityConfig(_Windowed):
    """No compression: one visual token per patch."""

    kind: Literal["none"] = "none"
    window: Literal[1] = 1


class PixelShuffleConfig(_Windowed):
    """A window's patches side by side in one wide token (Flash-VL, Eq. 1).

    Attributes:
        window: Side of a window in patches.
        channels: Layout of a token: "p1p2c" is row in the window, column, channel, slowest first.
        order: Order of the tokens of a view.
    """

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    window: PositiveInt = 2
    channels: Literal["p1p2c", "p2p1c", "cp1p2"] = "p1p2c"
    order: Literal["row_major", "col_major"] = "row_major"

    def owners(self, grid: int) -> Owners:
        """Which token stands for each patch `[grid, grid]`."""
        owners = _in_squares(grid, grid // self.window)
        return owners if self.order == "row_major" else owners.T

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return dim * self.window**2


class CropConfig(Frozen):
    """The inner patches of a view: what its neighbors show too is dropped (Flash-VL, implicit semantic stitching).

    Attributes:
        margin: Patches dropped on each of the four sides.
    """

    kind: Literal["crop"] = "crop"
    margin: PositiveInt = 4

    def num_tokens(self, grid: int) -> int:
        """Visual tokens of a view; raises ConfigError when nothing is left."""
        if 2 * self.margin >= grid:
            raise ConfigError(f"compressor.margin {self.margin} leaves nothing of the grid of {grid} patches a side")
        return (grid - 2 * self.margin) ** 2

    def owners(self, grid: int) -> Owners:
        """Which token stands for each patch `[grid, grid]`, -1 for those that are dropped."""
        inner = grid - 2 * self.margin
        return np.pad(_in_squares(inner, inner), self.margin, constant_values=-1)

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return dim


class _LightweightDownsample(_Windowed):
    """A multilayer perceptron and convolutions that keep one token per window.

    Attributes:
        hidden_size: Width of the tokens; as published the decoder's, so that no projector follows.
    """

    window: PositiveInt = 2
    hidden_size: PositiveInt

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return self.hidden_size


class LdpConfig(_LightweightDownsample):
    """LDP: two linear layers, then two inverted residuals, the second with stride `window` (MobileVLM).

    Attributes:
        squeeze: Squeeze-and-excitation narrows the width by this factor.
        layer_norm_eps: Epsilon of the norms over channels.
    """

    kind: Literal["ldp"] = "ldp"
    squeeze: PositiveInt = 4
    layer_norm_eps: float = 1e-5


class LdpV2Config(_LightweightDownsample):
    """LDPv2: two linear layers, average pooling, a depthwise convolution beside a skip (MobileVLM V2)."""

    kind: Literal["ldpv2"] = "ldpv2"


class ConvAbstractorConfig(Frozen):
    """C-Abstractor: residual convolutions, adaptive average pooling, residual convolutions (Honeybee).

    As published a projector of two linear layers with activation "silu" follows.

    Attributes:
        side: Tokens along one side of a view; any number up to that of the patches.
        hidden_size: Width of the convolutions and of the tokens.
        depth: Blocks before the pooling, and as many after it.
        squeeze: Squeeze-and-excitation narrows a block's input width by this factor.
        layer_norm_eps: Epsilon of the norms over channels.
    """

    kind: Literal["c_abstractor"] = "c_abstractor"
    side: PositiveInt
    hidden_size: PositiveInt
    depth: PositiveInt = 3
    squeeze: PositiveInt = 4
    layer_norm_eps: float = 1e-6

    def num_tokens(self, grid: int) -> int:
        """Visual tokens of a view; raises ConfigError when there would be more than patches."""
        if self.side > grid:
            raise ConfigError(f"compressor.side {self.side} is more than the {grid} patches along a side of a view")
        return self.side**2

    def owners(self, grid: int) -> Owners:
        """Which token stands for each patch `[grid, grid]`; where cells of the pooling overlap, the nearest one."""
        return _in_squares(grid, self.side)

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return self.hidden_size


class ResamplerConfig(Frozen):
    """Learned queries that attend each other and the patches, which carry learned positions (Q-Former, BLIP-2).

    Attributes:
        num_queries: Queries, each of which becomes one visual token.
        hidden_size: Width of queries and tokens.
        num_heads: Attention heads; divides `hidden_size`.
        num_layers: Layers.
        intermediate_size: Width inside a layer's multilayer perceptron.
        cross_attention_frequency: Every how many layers the queries attend the patches, beginning with the first.
        dropout: Dropout of hidden states and of attention.
    """

    kind: Literal["resampler"] = "resampler"
    num_queries: PositiveInt
    hidden_size: PositiveInt
    num_heads: PositiveInt
    num_layers: PositiveInt
    intermediate_size: PositiveInt
    cross_attention_frequency: PositiveInt = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"compressor.num_heads {self.num_heads} does not divide compressor.hidden_size {self.hidden_size}"
            )
        return self

    def num_tokens(self, grid: int) -> int:
        """Visual tokens of a view, whatever the grid."""
        return self.num_queries

    def owners(self, grid: int) -> Owners | None:
        """None: every token is made of all patches."""
        return None

    def width(self, dim: int) -> int:
        """Width of a visual token."""
        return self.hidden_size


CompressorConfig = Annotated[
    SapConfig
    | AverageConfig
    | IdentityConfig
    | PixelShuffleConfig
    | CropConfig
    | LdpConfig
    | LdpV2Config
    | ConvAbstractorConfig
    | ResamplerConfig,
    Field(discriminator="kind"),
]
