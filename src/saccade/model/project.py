"""The projector: visual tokens from patch width to decoder width."""

from itertools import pairwise

import torch
from torch import nn
from transformers.activations import ACT2FN

from saccade.config import ProjectorConfig
from saccade.errors import ConfigError


class MultiModalProjector(nn.Module):
    """A multilayer perceptron, optionally behind a LayerNorm; the activation stands between the linear layers."""

    def __init__(self, config: ProjectorConfig, vision_dim: int, text_dim: int) -> None:
        super().__init__()
        if config.activation not in ACT2FN:
            raise ConfigError(f"projector.activation {config.activation!r} is not an activation transformers knows")
        self.norm = nn.LayerNorm(vision_dim, eps=config.layer_norm_eps) if config.input_norm else nn.Identity()
        sizes = (vision_dim, *config.hidden_sizes, text_dim)
        self.linears = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.activation = ACT2FN[config.activation]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Project `[views, tokens, vision_dim]` to `[views, tokens, text_dim]`."""
        hidden: torch.Tensor = self.linears[0](self.norm(tokens))
        for linear in self.linears[1:]:
            hidden = linear(self.activation(hidden))
        return hidden
