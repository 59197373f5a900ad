"""Working memory of the CPU's operators, the same at every call of a thread."""

import threading

import torch

_local = threading.local()


def scratch(size: int) -> torch.Tensor:
    """Return a float32 vector of at least `size` numbers, of no value in particular, until the thread's next call."""
    kept: torch.Tensor | None = getattr(_local, "vector", None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # a tensor made for inference could not be written outside of it
            kept = _local.vector = torch.empty(size, dtype=torch.float32, device="cpu")
    return kept
