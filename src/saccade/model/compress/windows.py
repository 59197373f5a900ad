"""Compressors that regroup, weigh or select the patches of a view where they stand."""

import math

import torch
from torch import nn

from saccade.config import AverageConfig, CropConfig, LdpV2Config, PixelShuffleConfig, SapConfig


def to_windows(patches: torch.Tensor, window: int) -> torch.Tensor:
    """Group a square grid of patches into non-overlapping windows.

    Args:
        patches: `[views, patches, dim]`, row-major over a square grid whose side `window` divides.
        window: Side of a window in patches.

    Returns:
        `[views, tokens, window * window, dim]`; windows and the patches inside a window are row-major.
    """
    views, count, dim = patches.shape
    side = math.isqrt(count) // window
    grid = patches.view(views, side, window, side, window, dim)
    return grid.transpose(2, 3).reshape(views, side * side, window * window, dim)


class SpatialAttentionPooling(nn.Module):
    """SAP: each window becomes the attention-weighted sum of its raw patches (FlashSloth, Sec. 3.2, Eqs. 2-4)."""

    def __init__(self, config: SapConfig, dim: int) -> None:
        super().__init__()
        self.window = config.window
        self.hidden = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(dim, 1)

    def weights(self, windows: torch.Tensor) -> torch.Tensor:
        """Attention `[views, tokens, window * window]` over the patches of each window; sums to 1."""
        scores = self.score(self.dropout(torch.relu(self.hidden(windows))))
        weights: torch.Tensor = scores.squeeze(-1).softmax(dim=-1)
        return weights

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Pool `[views, patches, dim]` to `[views, tokens, dim]`."""
        windows = to_windows(patches, self.window)
        return (self.weights(windows).unsqueeze(-2) @ windows).squeeze(-2)


class PixelShuffle(nn.Module):
    """Each window's patches become one wide token (Flash-VL, Eq. 1)."""

    def __init__(self, config: PixelShuffleConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Regroup `[views, patches, dim]` to `[views, tokens, dim * window * window]`."""
        window, (views, count, dim) = self.config.window, patches.shape
        side = math.isqrt(count) // window
        grid = patches.view(views, side, window, side, window, dim)  # b h p1 w p2 c
        tokens = (1, 3) if self.config.order == "row_major" else (3, 1)
        channels = {"p1p2c": (2, 4, 5), "p2p1c": (4, 2, 5), "cp1p2": (5, 2, 4)}[self.config.channels]
        return grid.permute(0, *tokens, *channels).reshape(views, side * side, window * window * dim)


class Crop(nn.Module):
    """The inner patches of a view, row-major (Flash-VL, implicit semantic stitching)."""

    def __init__(self, config: CropConfig) -> None:
        super().__init__()
        self.margin = config.margin

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Take `[views, tokens, dim]` out of `[views, patches, dim]`."""
        side = math.isqrt(patches.shape[1])
        inner = slice(self.margin, side - self.margin)
        grid = patches.view(-1, side, side, patches.shape[-1])
        return grid[:, inner, inner].flatten(1, 2)


class AveragePooling(nn.Module):
    """Each window becomes the mean of its patches."""

    def __init__(self, config: AverageConfig | LdpV2Config) -> None:
        super().__init__()
        self.window = config.window

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Pool `[views, patches, dim]` to `[views, tokens, dim]`."""
        return to_windows(patches, self.window).mean(dim=-2)
