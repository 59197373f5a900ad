"""A linear layer with bfloat16 weights, as one operator of torch; eager and compiled code call the same."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from saccade.engine.cpu.build import load_kernels
from saccade.engine.cpu.gradients import refuse_gradients
from saccade.engine.cpu.scratch import scratch

# Up to so many rows of activations the kernel of few is as fast as the library, or faster. Where activations are
# bfloat16, the processor has units for matrices of them, and it is overtaken earlier.
FEW_ROWS = {torch.float32: 64, torch.bfloat16: 8}
# Up to so many it is as fast as the kernel of many, where there is that.
FEW_BESIDE_MANY = 4
# With fewer columns of the product for each of its threads the kernel of many is behind the library.
COLUMNS_OF_A_THREAD = 48
# float32 weights of one block: large enough for the library's product to run as on the whole matrix (blocks of a
# quarter cost it 8 %), small enough for the last-level cache of a server.
BLOCK_BYTES = 16 << 20


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Apply a linear layer whose weights are bfloat16, summed in float32.

    Args:
        x: `[..., in]`, float32 or bfloat16.
        weight: bfloat16 `[out, in]`.
        bias: bfloat16 `[out]`, or None.

    Returns:
        `[..., out]` of x's dtype.

    Raises:
        ConfigError: where gradients are recorded, of which this knows nothing.
    """
    refuse_gradients("the kernels of low-precision weights", x, weight)
    kernels = load_kernels()
    if kernels.linear is not None and _suits(x, weight, bias):
        rows = x.numel() // x.shape[-1]
        if kernels.linear_many is not None and rows > FEW_BESIDE_MANY and _suits_many(x, weight):
            return _by_many(*kernels.linear_many, x, weight, bias)
        if rows <= FEW_ROWS[x.dtype]:
            y = _by_few(kernels.linear, x if kernels.pairs else x.float(), weight, bias)
            return y if y.dtype == x.dtype else y.to(x.dtype)
    if x.dtype == torch.bfloat16:
        return F.linear(x, weight, bias)
    y = by_blocks(x, weight)
    return y if bias is None else y.add_(bias)


# Not `custom_op`, whose wrapping costs a call 10 µs more, and a decoding step makes some two hundred.
torch.library.define("saccade::linear", "(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")
torch.library.impl("saccade::linear", "CPU", linear)


@torch.library.register_fake("saccade::linear")
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _suits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether the kernels, which check nothing, may be given these; torch's own product refuses what is wrong."""
    known = x.dtype in FEW_ROWS and x.numel() > 0
    fits = weight.dtype == torch.bfloat16 and weight.stride(1) == 1 and weight.shape[1] == x.shape[-1]
    if bias is None:
        return known and fits
    return known and fits and bias.dtype == torch.bfloat16 and bias.shape == weight.shape[:1] and bias.stride(0) == 1


def _suits_many(x: torch.Tensor, weight: torch.Tensor) -> bool:
    wide = weight.shape[0] >= COLUMNS_OF_A_THREAD * torch.get_num_threads()
    return x.dtype == torch.bfloat16 and wide and weight.shape[1] % 2 == 0


def _by_few(
    multiply: Callable[..., None], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Multiply x with each weight read once; terse, because decoding is many such calls."""
    x = x.contiguous()
    out, width = weight.shape
    y = x.new_empty((*x.shape[:-1], out))
    sums, rounded = (scratch(y.numel()), y.data_ptr()) if y.dtype == torch.bfloat16 else (y, None)
    added = None if bias is None else bias.data_ptr()
    addresses = (x.data_ptr(), weight.data_ptr(), added, sums.data_ptr(), rounded)
    multiply(*addresses, x.numel() // width, width, out, weight.stride(0), torch.get_num_threads())
    return y


def _by_many(
    multiply: Callable[..., None],
    floats: Callable[..., int],
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Multiply x, packed once, with the weights as they lie."""
    x = x.contiguous()
    out, width = weight.shape
    rows, threads = x.numel() // width, torch.get_num_threads()
    y, work = x.new_empty((*x.shape[:-1], out)), scratch(floats(rows, width, threads))
    added = None if bias is None else bias.data_ptr()
    addresses = (x.data_ptr(), weight.data_ptr(), added, work.data_ptr(), y.data_ptr())
    multiply(*addresses, rows, width, out, weight.stride(0), threads)
    return y


def by_blocks(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply float32 x with block after block of the weights, each made float32 in the cache."""
    out, width = weight.shape
    rows = x.reshape(-1, x.shape[-1])
    step = min(out, max(1, BLOCK_BYTES // (4 * width)))
    block = scratch(step * width)[: step * width].view(step, width)
    y = x.new_empty(rows.shape[0], out)
    for begin in range(0, out, step):
        end = min(begin + step, out)
        part = block[: end - begin]
        part.copy_(weight[begin:end])
        torch.mm(rows, part.T, out=y[:, begin:end])
    return y.view(*x.shape[:-1], out)
