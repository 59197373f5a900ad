"""The compressor of learned queries that attend the patches: the Q-Former of BLIP-2 (arXiv 2301.12597)."""

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from saccade.config import ResamplerConfig


class Resampler(nn.Module):
    """Learned queries through a Q-Former of transformers; patches carry learned positions.

    Unlike the embedded query it reads no instruction: its tokens are the same whatever is asked.
    """

    def __init__(self, config: ResamplerConfig, dim: int, grid: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(grid**2, dim)
        self.queries = nn.Embedding(config.num_queries, config.hidden_size)
        self.attention = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                cross_attention_frequency=config.cross_attention_frequency,
                encoder_hidden_size=dim,
                # The deviation of torch's linear layers; 0.02, as published, at the published width of 768.
                initializer_range=(3 * config.hidden_size) ** -0.5,
            )
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Compress `[views, patches, dim]` to `[views, num_queries, hidden_size]`."""
        queries = self.queries.weight.expand(patches.shape[0], -1, -1)
        output = self.attention(query_embeds=queries, encoder_hidden_states=patches + self.positions.weight)
        tokens: torch.Tensor = output.last_hidden_state
        return tokens
