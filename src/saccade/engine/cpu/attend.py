"""Attention on a CPU, of few queries or of many, as one operator of torch."""

import ctypes
from collections.abc import Callable

import torch
from torch.nn import functional as F

from saccade.engine.cpu.build import load_kernels
from saccade.engine.cpu.gradients import learns, refuse_gradients
from saccade.engine.cpu.scratch import scratch

# Up to so many queries of a head and conversation, each is taken alone; more share what they read.
FEW_ROWS = 16


def takes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None) -> bool:
    """Whether the operator can stand for a call: on a CPU, without gradients, all heads seeing the same."""
    alike = query.is_cpu and query.dim() == 4 and query.shape[:2] == key.shape[:2] and query.shape[3] == value.shape[-1]
    shared = seen is None or (seen.dtype == torch.bool and seen.shape[1] == 1)
    return alike and shared and not learns(query, key, value)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Attend by the kernel that knows how, else by the library.

    Args:
        query: `[batch, heads, rows, head_dim]`, float32 or bfloat16.
        key: `[batch, heads, length, head_dim]` of the same dtype.
        value: As `key`.
        seen: bool `[batch, 1, rows, length]`, or with 1 for rows that all see the same; None where all is seen.
        scale: What products of queries and keys are multiplied by.

    Returns:
        `[batch, heads, rows, head_dim]`, 0 where nothing is seen.

    Raises:
        ConfigError: where gradients are recorded, of which this knows nothing.
    """
    refuse_gradients("the kernels of attention", query, key, value)
    kernels = load_kernels()
    if _alike(query, key, value) and (seen is None or _fits(seen, query, key)):
        if kernels.attend is not None and query.shape[2] <= FEW_ROWS and seen is not None and seen.shape[2] == 1:
            return _attend_few(kernels.attend, query, key, value, seen, scale)
        if kernels.attend_many is not None and query.dtype == torch.bfloat16 and query.shape[3] % 2 == 0:
            return _attend_many(*kernels.attend_many, query, key, value, seen, scale)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    return _empty_like(query).copy_(found)


def _empty_like(query: torch.Tensor, *_: object) -> torch.Tensor:
    """A result: of many queries as they lie where heads were split off, so that heads are joined without a copy."""
    batch, heads, rows, dim = query.shape
    if rows > FEW_ROWS:
        return query.new_empty(batch, rows, heads, dim).transpose(1, 2)
    return query.new_empty(query.shape)


torch.library.define("saccade::attend", "(Tensor query, Tensor key, Tensor value, Tensor? seen, float scale) -> Tensor")
torch.library.impl("saccade::attend", "CPU", attend)
torch.library.register_fake("saccade::attend", _empty_like)


def _alike(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernels, which check nothing, may be given these; torch's own attention refuses what is wrong."""
    batch, heads, _, dim = query.shape
    shape = (batch, heads, key.shape[2], dim)
    return (
        query.dtype in (torch.float32, torch.bfloat16)
        and query.dtype == key.dtype == value.dtype
        and key.shape == value.shape == shape
        and query.stride(3) == key.stride(3) == value.stride(3) == 1
    )


def _fits(seen: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> bool:
    batch, _, rows, _ = query.shape
    shapes = [(batch, 1, each, key.shape[2]) for each in (1, rows)]
    return seen.dtype == torch.bool and seen.shape in shapes and seen.stride(3) == 1


def _attend_few(
    kernel: Callable[..., None],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Terse, because decoding is many such calls."""
    query, y = query.contiguous(), _empty_like(query)
    sizes = (*query.shape, key.shape[2])
    work = scratch(sizes[0] * sizes[1] * sizes[2] * (sizes[3] + sizes[4]))
    addresses = (each.data_ptr() for each in (query, key, value, seen, work, y))
    gaps = (*key.stride()[:3], *value.stride()[:3], seen.stride(0))
    kernel(*addresses, *sizes, *gaps, scale, query.dtype == torch.bfloat16, torch.get_num_threads())
    return y


def _attend_many(
    kernel: Callable[..., None],
    floats: Callable[..., int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    batch, heads, rows, dim = query.shape
    y, length, threads = _empty_like(query), key.shape[2], torch.get_num_threads()
    work = scratch(floats(length, dim) * threads)
    where = None if seen is None else seen.data_ptr()
    addresses = (query.data_ptr(), key.data_ptr(), value.data_ptr(), where, work.data_ptr(), y.data_ptr())
    gaps = [gap for each in (query, key, value, y) for gap in each.stride()[:3]]
    gaps += [0, 0] if seen is None else [seen.stride(0), seen.stride(2) if seen.shape[2] > 1 else 0]
    kernel(*addresses, batch, heads, rows, length, dim, (ctypes.c_long * len(gaps))(*gaps), scale, threads)
    return y
