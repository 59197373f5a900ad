"""What tests of the processor's kernels share: how far off a result is, and numbers of threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROUNDING = 1e-5  # of float32


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest expected number."""
    return float((found.double() - expected.double()).abs().max() / expected.abs().max())


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let torch have so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
