"""Compressors that convolve, the peers' that the papers compare with.

LDP and LDPv2: MobileVLM (arXiv 2312.16886) and MobileVLM V2 (arXiv 2402.03766). C-Abstractor: Honeybee (arXiv
2312.06742).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from saccade.config import ConvAbstractorConfig, LdpConfig, LdpV2Config, ProjectorConfig
from saccade.model.compress.windows import AveragePooling
from saccade.model.project import MultiModalProjector


def to_map(patches: torch.Tensor) -> torch.Tensor:
    """Lay patches `[views, patches, dim]`, row-major over a square, out as a map `[views, dim, side, side]`."""
    views, count, dim = patches.shape
    side = math.isqrt(count)
    return patches.transpose(1, 2).reshape(views, dim, side, side)


def from_map(features: torch.Tensor) -> torch.Tensor:
    """Read a map `[views, dim, side, side]` row by row: `[views, tokens, dim]`."""
    return features.flatten(2).transpose(1, 2)


class LayerNorm2d(nn.LayerNorm):
    """A LayerNorm over the channels of a map `[views, dim, side, side]`."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalize every place of the map by itself."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcitation(nn.Module):
    """Scale each channel of a map by a gate computed from the mean of all of them."""

    def __init__(self, dim: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(dim, squeezed, 1), activation, nn.Conv2d(squeezed, dim, 1), gate)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Gate `[views, dim, side, side]`."""
        gated: torch.Tensor = features * self.gate(features.mean(dim=(2, 3), keepdim=True))
        return gated


def _convolution(dim: int, out: int, eps: float, kernel: int = 1, groups: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias that keeps the size up to its stride, and its norm."""
    convolution = nn.Conv2d(dim, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, LayerNorm2d(out, eps=eps))


class LightweightDownsample(nn.Module):
    """LDP: two linear layers, an inverted residual, and one with stride and no skip (MobileVLM).

    The inverted residuals are MobileNetV3's without expansion: depthwise convolution, squeeze-and-excitation,
    pointwise convolution.
    """

    def __init__(self, config: LdpConfig, dim: int) -> None:
        super().__init__()
        self.mlp = _mlp(dim, config.hidden_size)
        self.residual = self._block(config, stride=1)
        self.downsample = self._block(config, stride=config.window)

    @staticmethod
    def _block(config: LdpConfig, stride: int) -> nn.Sequential:
        dim, eps = config.hidden_size, config.layer_norm_eps
        squeezed = max(1, dim // config.squeeze)
        return nn.Sequential(
            _convolution(dim, dim, eps, kernel=3, groups=dim, stride=stride),
            nn.Hardswish(),
            SqueezeExcitation(dim, squeezed, nn.ReLU(), nn.Hardsigmoid()),
            _convolution(dim, dim, eps),
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Compress `[views, patches, dim]` to `[views, tokens, hidden_size]`."""
        features = to_map(self.mlp(patches))
        return from_map(self.downsample(features + self.residual(features)))


class LightweightDownsampleV2(nn.Module):
    """LDPv2: two linear layers, average pooling, a depthwise convolution beside a skip (MobileVLM V2)."""

    def __init__(self, config: LdpV2Config, dim: int) -> None:
        super().__init__()
        self.mlp = _mlp(dim, config.hidden_size)
        self.pool = AveragePooling(config)
        self.position = nn.Conv2d(config.hidden_size, config.hidden_size, 3, padding=1, groups=config.hidden_size)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Compress `[views, patches, dim]` to `[views, tokens, hidden_size]`."""
        features = to_map(self.pool(self.mlp(patches)))
        return from_map(features + self.position(features))


class ResidualBlock(nn.Module):
    """RegNet's block with LayerNorm and SiLU: a bottleneck as wide as its output, convolved depthwise."""

    def __init__(self, config: ConvAbstractorConfig, dim: int) -> None:
        super().__init__()
        out, eps = config.hidden_size, config.layer_norm_eps
        self.body = nn.Sequential(
            _convolution(dim, out, eps),
            nn.SiLU(),
            _convolution(out, out, eps, kernel=3, groups=out),
            nn.SiLU(),
            SqueezeExcitation(out, max(1, dim // config.squeeze), nn.SiLU(), nn.Sigmoid()),
            _convolution(out, out, eps),
        )
        self.skip = nn.Identity() if dim == out else _convolution(dim, out, eps)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Transform `[views, dim, side, side]` to `[views, hidden_size, side, side]`."""
        return F.silu(self.body(features) + self.skip(features))


class ConvAbstractor(nn.Module):
    """C-Abstractor: patches with learned positions, convolved, pooled to any square, convolved (Honeybee)."""

    def __init__(self, config: ConvAbstractorConfig, dim: int, grid: int) -> None:
        super().__init__()
        self.side = config.side
        self.positions = nn.Embedding(grid**2, dim)
        self.before = self._stage(config, dim)
        self.after = self._stage(config, config.hidden_size)

    @staticmethod
    def _stage(config: ConvAbstractorConfig, dim: int) -> nn.Sequential:
        widths = [dim] + [config.hidden_size] * (config.depth - 1)
        return nn.Sequential(*(ResidualBlock(config, width) for width in widths))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Compress `[views, patches, dim]` to `[views, tokens, hidden_size]`."""
        features = self.before(to_map(patches + self.positions.weight))
        return from_map(self.after(F.adaptive_avg_pool2d(features, self.side)))


def _mlp(dim: int, hidden_size: int) -> MultiModalProjector:
    return MultiModalProjector(ProjectorConfig(hidden_sizes=(hidden_size,)), dim, hidden_size)
