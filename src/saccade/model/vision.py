"""The vision tower: a transformers model, cut to the layers that are used."""

import copy

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from saccade.config import VisionFeatureConfig
from saccade.errors import ConfigError


def build_vision_tower(config: PreTrainedConfig, features: VisionFeatureConfig) -> nn.Module:
    """Build the tower with the layers up to `features.layer`; the final norm is an identity where it is not applied.

    Args:
        config: The tower's configuration as published, all layers counted.
        features: Which hidden state is used.

    Returns:
        The tower; its `last_hidden_state` is the used feature.

    Raises:
        ConfigError: when the tower has no module of the name `features.norm_module`.
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers += features.layer + 1
    tower: nn.Module = AutoModel.from_config(config)
    if not features.post_norm:
        if not hasattr(tower, features.norm_module):
            raise ConfigError(
                f"the tower {type(tower).__name__} has no {features.norm_module!r}: "
                "set vision.norm_module to the name of its final norm"
            )
        setattr(tower, features.norm_module, nn.Identity())
    return tower


def extract_patches(
    tower: nn.Module, pixel_values: torch.Tensor, features: VisionFeatureConfig, patches_per_view: int
) -> torch.Tensor:
    """Encode views `[views, 3, side, side]` into raw patches `[views, patches, vision_dim]`, row-major.

    Raises:
        ConfigError: when what is left of a view without its prefix tokens is not `patches_per_view` patches.
    """
    hidden: torch.Tensor = tower(pixel_values).last_hidden_state
    patches = hidden[:, features.num_prefix_tokens :]
    if patches.shape[1] != patches_per_view:
        raise ConfigError(
            f"vision.num_prefix_tokens {features.num_prefix_tokens} leaves {patches.shape[1]} of the tower's "
            f"{hidden.shape[1]} vectors a view, but a view has {patches_per_view} patches: set it to the number of "
            "vectors that stand before the patches"
        )
    return patches
