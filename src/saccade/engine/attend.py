"""Who sees whom: every token sees what stands in its slot up to itself."""

import torch


def visible(positions: torch.Tensor, length: int) -> torch.Tensor:
    """Return what each new token sees, bool `[batch, 1, new, length]`.

    Args:
        positions: Places of the new tokens in their slots `[batch, new]`.
        length: Positions that are read.
    """
    return torch.arange(length, device=positions.device) <= positions[:, None, :, None]
