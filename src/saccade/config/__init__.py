"""Configurations: a model is data. Every behavior is a field here; nothing is inferred from names or paths."""

from saccade.config.compressors import (
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
from saccade.config.frozen import Frozen, to_part
from saccade.config.model import SaccadeConfig
from saccade.config.parts import ProjectorConfig, QueryConfig, VisionFeatureConfig
from saccade.config.picture import Fit, ImageConfig
from saccade.config.template import PromptConfig

__all__ = [
    "AverageConfig",
    "CompressorConfig",
    "ConvAbstractorConfig",
    "CropConfig",
    "Fit",
    "Frozen",
    "IdentityConfig",
    "ImageConfig",
    "LdpConfig",
    "LdpV2Config",
    "PixelShuffleConfig",
    "ProjectorConfig",
    "PromptConfig",
    "QueryConfig",
    "ResamplerConfig",
    "SaccadeConfig",
    "SapConfig",
    "VisionFeatureConfig",
    "to_part",
]
