"""The kernels know nothing of gradients: whether some are recorded, and the refusal."""

import torch

from saccade.errors import ConfigError


def learns(*tensors: torch.Tensor) -> bool:
    """Whether gradients of any of some tensors are recorded."""
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


def refuse_gradients(what: str, *tensors: torch.Tensor) -> None:
    """Raise ConfigError where gradients are recorded, which `what`, a plural, would lose."""
    if learns(*tensors):
        raise ConfigError(f"{what} have no gradient: call them in torch.inference_mode()")
