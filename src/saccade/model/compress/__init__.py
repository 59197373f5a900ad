"""Compressors: patches of a view `[views, patches, dim]` to visual tokens `[views, tokens, token_dim]`.

Every compressor is a module built from its config and called on patches; a further kind is one class and one line in
`build_compressor`.
"""

from torch import nn

from saccade.config import (
    AverageConfig,
    CompressorConfig,
    ConvAbstractorConfig,
    CropConfig,
    IdentityConfig,
    LdpConfig,
    LdpV2Config,
    PixelShuffleConfig,
    ResamplerConfig,
    SapConfig,
)
from saccade.model.compress.convolution import ConvAbstractor, LightweightDownsample, LightweightDownsampleV2
from saccade.model.compress.resample import Resampler
from saccade.model.compress.windows import AveragePooling, Crop, PixelShuffle, SpatialAttentionPooling, to_windows

__all__ = ["SpatialAttentionPooling", "build_compressor", "to_windows"]


def build_compressor(config: CompressorConfig, dim: int, grid: int) -> nn.Module:
    """Build the compressor that `config` describes for views of `grid` x `grid` patches of width `dim`."""
    match config:
        case SapConfig():
            return SpatialAttentionPooling(config, dim)
        case AverageConfig():
            return AveragePooling(config)
        case IdentityConfig():
            return nn.Identity()
        case PixelShuffleConfig():
            return PixelShuffle(config)
        case CropConfig():
            return Crop(config)
        case LdpConfig():
            return LightweightDownsample(config, dim)
        case LdpV2Config():
            return LightweightDownsampleV2(config, dim)
        case ConvAbstractorConfig():
            return ConvAbstractor(config, dim, grid)
        case ResamplerConfig():
            return Resampler(config, dim, grid)
