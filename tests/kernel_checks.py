"""What tests of the processor's kernels share: how far off a result is, numbers of threads, and a mark."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from saccade.engine.cpu import build

ROUNDING = 1e-5  # of float32
WITH_COMPILER = pytest.mark.skipif(build.load_kernels().linear is None, reason=build.load_kernels().story)


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
