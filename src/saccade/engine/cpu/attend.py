"""Attention of few queries on a CPU, as one operator of torch; eager and compiled code call the same."""

import torch
from torch.nn import functional as F

from saccade.engine.cpu.build import load_kernels
from saccade.engine.cpu.scratch import scratch

# Up to so many queries of a head and conversation; for more, a library shares what it reads among them.
FEW_ROWS = 16


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend with few queries.

    Args:
        query: `[batch, heads, rows, head_dim]`, float32 or bfloat16.
        key: `[batch, heads, length, head_dim]` of the same dtype.
        value: As `key`.
        seen: bool `[batch, 1, 1, length]`, the same for all heads and rows.
        scale: What products of queries and keys are multiplied by.

    Returns:
        `[batch, heads, rows, head_dim]`, 0 where nothing is seen.
    """
    kernel = load_kernels().attend
    batch, heads, rows, dim = query.shape
    length = key.shape[2]
    if kernel is None or not _suits(query, key, value, seen):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    query = query.contiguous()
    y = torch.empty_like(query)
    work = scratch(batch * heads * rows * (length + dim))
    addresses = (each.data_ptr() for each in (query, key, value, seen, work, y))
    sizes, gaps = (batch, heads, rows, dim, length), (*key.stride()[:3], *value.stride()[:3], seen.stride(0))
    kernel(*addresses, *sizes, *gaps, scale, query.dtype == torch.bfloat16, torch.get_num_threads())
    return y


torch.library.define("saccade::attend", "(Tensor query, Tensor key, Tensor value, Tensor seen, float scale) -> Tensor")
torch.library.impl("saccade::attend", "CPU", attend)


@torch.library.register_fake("saccade::attend")
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, scale: float) -> torch.Tensor:
    return query.new_empty(query.shape)


def _suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor) -> bool:
    """Whether the kernel, which checks nothing, may be given these; torch's own attention refuses what is wrong."""
    batch, heads, _, dim = query.shape
    shape = (batch, heads, key.shape[2], dim)
    return (
        query.dtype in (torch.float32, torch.bfloat16)
        and query.dtype == key.dtype == value.dtype
        and key.shape == value.shape == shape
        and seen.dtype == torch.bool
        and seen.shape == (batch, 1, 1, key.shape[2])
        and key.stride(3) == value.stride(3) == seen.stride(3) == 1
    )
