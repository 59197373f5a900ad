"""Activations of many rows on a CPU, in one pass, as one operator of torch."""

import torch
from torch.nn import functional as F

from saccade.engine.cpu.build import load_kernels
from saccade.engine.cpu.gradients import learns, refuse_gradients

# Fewer numbers are not worth a call of its own, and compiled code joins what it makes of them to its neighbors.
MANY = 1 << 18


def takes(x: torch.Tensor) -> bool:
    """Whether the operator can stand for an activation of x, and is worth it: many bfloat16, without gradients."""
    alike = x.dtype == torch.bfloat16 and x.is_cpu and x.numel() >= MANY and x.is_contiguous()
    return alike and not learns(x)


def activate(x: torch.Tensor, gelu: bool) -> torch.Tensor:
    """Apply GELU, in its form with tanh, or SiLU, in float32, by the kernel if there is one.

    Args:
        x: Any shape.
        gelu: Whether it is GELU.

    Returns:
        As x.

    Raises:
        ConfigError: where gradients are recorded, of which this knows nothing.
    """
    refuse_gradients("the kernels of activations", x)
    kernel = load_kernels().activate
    if kernel is None or x.dtype != torch.bfloat16 or not x.is_contiguous():
        return F.gelu(x, approximate="tanh") if gelu else F.silu(x)
    y = torch.empty_like(x)
    kernel(x.data_ptr(), y.data_ptr(), x.numel(), gelu, torch.get_num_threads())
    return y


torch.library.define("saccade::activate", "(Tensor x, bool gelu) -> Tensor")
torch.library.impl("saccade::activate", "CPU", activate)


@torch.library.register_fake("saccade::activate")
def _(x: torch.Tensor, gelu: bool) -> torch.Tensor:
    return torch.empty_like(x)
