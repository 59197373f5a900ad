"""The seam: plain modules, whose calls of torch find their way to kernels and to weights in bfloat16."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saccade.engine.cpu import activate, attend  # all three modules register an operator
from saccade.engine.cpu.linear import by_blocks

# What mixes activations with small parameters, or with one another, and wants a single dtype.
_ONE_DTYPE = (
    F.layer_norm, F.rms_norm, F.group_norm, F.conv1d, F.conv2d,
    torch.matmul, torch.Tensor.matmul, torch.bmm, torch.Tensor.bmm, torch.einsum,
)  # fmt: skip


class LowPrecisionWeights(TorchFunctionMode):
    """Inside it, modules with bfloat16 weights run on a CPU with activations of a chosen dtype.

    Linear layers go to the operator `saccade::linear`, attention to `saccade::attend`, and, in bfloat16, GELU and SiLU
    of many numbers to `saccade::activate`. With float32 activations, small parameters are widened where they meet them,
    what an embedding looks up is widened, and a cast of float32 to bfloat16 leaves the tensor as it is: the result is
    that of the same modules in float32, within its rounding. For inference only; it may stand outside a compiled
    function or inside.

    Args:
        activations: float32, or bfloat16 where the processor multiplies matrices of bfloat16.
        kernel: Whether few rows go through the kernel; without it, for float32 alone, all go through the library, which
            is slower and what the kernel is judged by.
    """

    def __init__(self, activations: torch.dtype = torch.float32, *, kernel: bool = True) -> None:
        super().__init__()
        self.activations = activations
        linear, attention = F.linear, F.scaled_dot_product_attention
        self._ways: dict[Callable[..., Any], Callable[..., Any]] = {linear: _linear, attention: _attend}
        if activations == torch.bfloat16:
            self._ways |= {F.gelu: _gelu, F.silu: _silu}
        else:
            attending = _in_one_dtype(_attend if kernel else attention)
            self._ways |= {linear: _linear_widened if kernel else _linear_by_blocks, attention: attending}
            self._ways |= {F.embedding: _embedding, torch.Tensor.to: _to}
            self._ways |= {function: _in_one_dtype(function) for function in _ONE_DTYPE}

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call what stands for `func`, or `func`."""
        way = self._ways.get(func, func)
        return way(*args, **kwargs) if kwargs else way(*args)


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


def _in_one_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})

    return call


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if weight.dtype != torch.bfloat16 or not weight.is_cpu:
        return F.linear(input, weight, bias)
    output: torch.Tensor = torch.ops.saccade.linear.default(input, weight, bias)
    return output


def _linear_widened(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return _linear(_widen(input), weight, bias)


def _linear_by_blocks(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if weight.dtype != torch.bfloat16 or not weight.is_cpu:
        return F.linear(_widen(input), weight, bias)
    output = by_blocks(_widen(input), weight)
    return output if bias is None else output + _widen(bias)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    if attend.takes(query, key, value, attn_mask) and not (dropout_p or is_causal):
        scale = options.get("scale")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        output: torch.Tensor = torch.ops.saccade.attend.default(query, key, value, attn_mask, scale)
        return output
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)


def _gelu(x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    if approximate == "tanh" and activate.takes(x):
        output: torch.Tensor = torch.ops.saccade.activate.default(x, True)
        return output
    return F.gelu(x, approximate=approximate)


def _silu(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    if not inplace and activate.takes(x):
        output: torch.Tensor = torch.ops.saccade.activate.default(x, False)
        return output
    return F.silu(x, inplace)


def _embedding(*args: Any, **kwargs: Any) -> Any:
    return _widen(F.embedding(*args, **kwargs))


def _to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    moved = tensor.to(*args, **kwargs)
    if tensor.dtype == torch.float32 and moved.dtype == torch.bfloat16:
        return tensor.to(memory_format=kwargs.get("memory_format", torch.preserve_format))
    return moved
