"""Attention whose keys are read as they stand, where several heads of queries share one of keys."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "saccade_grouped"


def attend_grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' sdpa does, which in compiled code copies the keys of a group for each of its heads.

    Of one new token a conversation, the heads that share keys become the rows of one head. More go to transformers.

    Args:
        module: The attention layer.
        query: `[batch, heads, new, head_dim]`.
        key: `[batch, groups, length, head_dim]`.
        value: As `key`.
        attention_mask: bool `[batch, 1, new, length]`.
        dropout: 0.
        scaling: What products of queries and keys are multiplied by.
        options: As transformers has them.

    Returns:
        `[batch, new, heads, head_dim]`, and None where others give weights.
    """
    batch, heads, new, dim = query.shape
    if new > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    rows = query.reshape(batch, key.shape[1], -1, dim)
    output = F.scaled_dot_product_attention(rows, key, value, attention_mask, dropout, scale=scaling)
    return output.reshape(batch, 1, heads, dim), None


AttentionInterface.register(NAME, attend_grouped)
# Who generates with the same model in another thread meanwhile attends so, too, and needs the masks of it.
AttentionMaskInterface.register(NAME, sdpa_mask)

_taken = threading.Lock()


@contextmanager
def grouped_keys(decoder: PreTrainedConfig) -> Iterator[None]:
    """Let a decoder, known by its configuration, attend by `attend_grouped` inside the block, one block at a time."""
    with _taken:
        before = decoder._attn_implementation
        decoder._attn_implementation = NAME
        try:
            yield
        finally:
            decoder._attn_implementation = before
