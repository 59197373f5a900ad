"""Models without weights, and models with weights that were never trained: what is needed to count and to time."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from saccade.config import SaccadeConfig
from saccade.errors import ConfigError, SaccadeError
from saccade.model import SaccadeForConditionalGeneration

DEVIATION = 0.02  # what transformers starts most matrices with
BLOCK = (1 << 20) + 7  # random numbers drawn; odd, so that repeats do not line up with the rows of a matrix


def skeleton(config: SaccadeConfig) -> SaccadeForConditionalGeneration:
    """Build a model without weights: every tensor has a shape and no content.

    Raises:
        ConfigError: when the configuration contradicts itself or no such backbone can be built.
    """
    with torch.device("meta"):
        model: SaccadeForConditionalGeneration = build(config)
    return model.requires_grad_(False)  # torch's counter stumbles over views of what has a gradient


def parameters(config: PreTrainedConfig) -> int:
    """Count the parameters of a model, tied ones once; raises ConfigError when no such model can be built."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def random_model(config: PreTrainedConfig, device: str | torch.device, dtype: torch.dtype, seed: int) -> Any:
    """Build a model with random weights on a device, each written once; speed does not depend on the values.

    Matrices get one block of normal numbers over and over, scales are 1, shifts are 0. Buffers, such as the
    frequencies of rotary positions, are computed as the library computes them and keep their precision.

    Args:
        config: Of this package or of any picture-and-text model of transformers.
        device: Where the weights go.
        dtype: Their type.
        seed: Of the block.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConfigError: when no such model can be built.
    """
    with init_empty_weights(include_buffers=False):
        model = build(config)
    model.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    block = (torch.randn(BLOCK, generator=generator) * DEVIATION).to(device, dtype)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(_filled(name, parameter.shape, block), requires_grad=False)
            setattr(module, name, made[id(parameter)])
    return model.to(device).eval()


def build(config: PreTrainedConfig) -> Any:
    """Build a model with weights where the context puts them; raises ConfigError when no such model can be built."""
    try:
        if isinstance(config, SaccadeConfig):
            return SaccadeForConditionalGeneration(config)
        return AutoModelForImageTextToText.from_config(config)
    except SaccadeError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"no {config.model_type} model can be built from its configuration ({error})") from error


def _filled(name: str, shape: torch.Size, block: torch.Tensor) -> torch.Tensor:
    """Return a tensor of a parameter's kind, filled by copies that double in length."""
    if len(shape) == 1:
        return torch.full(shape, 0.0 if "bias" in name else 1.0, dtype=block.dtype, device=block.device)
    tensor = torch.empty(shape, dtype=block.dtype, device=block.device)
    flat = tensor.view(-1)
    done = min(len(block), len(flat))
    flat[:done] = block[:done]
    while done < len(flat):
        more = min(done, len(flat) - done)
        flat[done : done + more] = flat[:more]
        done += more
    return tensor
