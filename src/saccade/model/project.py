"""The projector: visual tokens from their own width to the decoder's."""

from itertools import pairwise

import torch
from torch import nn
from transformers.activations import ACT2FN

from saccade.config import ProjectorConfig
from saccade.errors import ConfigError


class MultiModalProjector(nn.Module):
    """A multilayer perceptron, optionally behind a LayerNorm; the activation stands between the linear layers.

    FlashSloth's has two linear layers, Flash-VL's a LayerNorm and three (Eqs. 2-5).

    Args:
        config: The projector.
        token_dim: Width of the visual tokens.
        text_dim: Width of the decoder.

    Raises:
        ConfigError: when the activation is unknown, or nothing stands between two different widths.
    """

    def __init__(self, config: ProjectorConfig, token_dim: int, text_dim: int) -> None:
        super().__init__()
        if config.activation not in ACT2FN:
            raise ConfigError(f"projector.activation {config.activation!r} is not an activation transformers knows")
        if config.hidden_sizes is None and token_dim != text_dim:
            raise ConfigError(
                f"projector.hidden_sizes is None, but the tokens are {token_dim} wide and the decoder is {text_dim}: "
                "give widths, or () for one linear layer"
            )
        self.norm = nn.LayerNorm(token_dim, eps=config.layer_norm_eps) if config.input_norm else nn.Identity()
        sizes = () if config.hidden_sizes is None else (token_dim, *config.hidden_sizes, text_dim)
        self.linears = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.activation = ACT2FN[config.activation]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Project `[views, tokens, token_dim]` to `[views, tokens, text_dim]`."""
        hidden: torch.Tensor = self.norm(tokens)
        for index, linear in enumerate(self.linears):
            hidden = linear(self.activation(hidden) if index else hidden)
        return hidden
