"""Compressors: patches of a view `[views, patches, dim]` to visual tokens `[views, tokens, dim]`.

Every compressor is a module built from its config and called on patches; a further kind is one class and one line in
`build_compressor`.
"""

import math

import torch
from torch import nn

from saccade.config import AverageConfig, IdentityConfig, SapConfig


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


class AveragePooling(nn.Module):
    """Each window becomes the mean of its patches."""

    def __init__(self, config: AverageConfig) -> None:
        super().__init__()
        self.window = config.window

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Pool `[views, patches, dim]` to `[views, tokens, dim]`."""
        return to_windows(patches, self.window).mean(dim=-2)


def build_compressor(config: SapConfig | AverageConfig | IdentityConfig, dim: int) -> nn.Module:
    """Build the compressor that `config` describes for patches of width `dim`."""
    if isinstance(config, SapConfig):
        return SpatialAttentionPooling(config, dim)
    if isinstance(config, AverageConfig):
        return AveragePooling(config)
    return nn.Identity()
