"""Which way linear layers with low-precision weights go on this CPU, chosen once, with the reason."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from saccade.engine.cpu.build import load_kernels
from saccade.engine.cpu.mode import LowPrecisionWeights

# Names in torch.cpu.get_capabilities() of units that multiply matrices of bfloat16, and how people call them.
_MATRIX_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}


@dataclass(frozen=True, slots=True)
class LinearPath:
    """How linear layers run.

    Attributes:
        activations: The dtype to give to the model: its pixels, its embeddings, its cache.
        reason: Why, one sentence without a full stop.
        routed: Whether calls must be routed; see `mode`.
    """

    activations: torch.dtype
    reason: str
    routed: bool

    def mode(self) -> AbstractContextManager[object]:
        """Return the context to run the model in."""
        return LowPrecisionWeights(self.activations) if self.routed else nullcontext()


def choose_linear(weights: torch.dtype, device: torch.device) -> LinearPath:
    """Choose the path for a model with weights of a dtype on a device; compiles the CPU's kernel at its first use."""
    if device.type != "cpu":
        return LinearPath(weights, f"library kernels of the {device.type}", False)
    if weights != torch.bfloat16:
        return LinearPath(weights, f"library: the weights are {str(weights).removeprefix('torch.')}", False)
    kernel, unit = load_kernels(), _matrix_unit()
    if unit is None:
        how = kernel.story if kernel.linear else f"converted block by block because {kernel.story}"
        reason = f"bfloat16 weights with float32 activations: this CPU has no bfloat16 matrix unit; {how}"
        return LinearPath(torch.float32, reason, True)
    if kernel.linear is None:
        reason = f"library bfloat16: {unit}; decode reads weights below the memory's rate because {kernel.story}"
        return LinearPath(torch.bfloat16, reason, False)
    whole = f"bfloat16: {unit}; for linear layers and attention {kernel.story}"
    partly = f"library bfloat16: {unit}; for few rows and attention of one token {kernel.story}"
    return LinearPath(torch.bfloat16, whole if kernel.linear_many else partly, True)


def _matrix_unit() -> str | None:
    """Name the unit that makes the library's bfloat16 product faster than its float32 one, if there is one."""
    if not torch.backends.mkldnn.is_available():
        return None
    # Not every supported release of torch tells; float32 activations are right everywhere.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return next((name for flag, name in _MATRIX_UNITS.items() if capabilities.get(flag)), None)
