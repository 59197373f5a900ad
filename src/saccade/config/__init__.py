"""Configurations: a model is data. Every behavior is a field here; nothing is inferred from names or paths."""

from saccade.config.frozen import Frozen, to_part
from saccade.config.model import SaccadeConfig
from saccade.config.parts import (
    AverageConfig,
    CompressorConfig,
    Fit,
    IdentityConfig,
    ImageConfig,
    ProjectorConfig,
    PromptConfig,
    QueryConfig,
    SapConfig,
    VisionFeatureConfig,
)

__all__ = [
    "AverageConfig",
    "CompressorConfig",
    "Fit",
    "Frozen",
    "IdentityConfig",
    "ImageConfig",
    "ProjectorConfig",
    "PromptConfig",
    "QueryConfig",
    "SaccadeConfig",
    "SapConfig",
    "VisionFeatureConfig",
    "to_part",
]
