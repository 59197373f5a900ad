"""What an answer looked at: the decoder's attention from every step of it to the visual tokens, given to patches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from saccade.explain.attention import Weights
from saccade.model import SaccadeForConditionalGeneration

_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


def read_by_answer(
    model: SaccadeForConditionalGeneration, inputs: Mapping[str, torch.Tensor], answer_ids: Sequence[int]
) -> Weights:
    """Return how much an answer read each visual token.

    The mean over the answer's tokens, the decoder's layers and their heads of the attention with which each token was
    found, that is at the place before it; so the token that ends the answer counts, and the first one was found at the
    last token of the prompt. Layers that read little of the picture count little: all are added up as they are.

    Args:
        model: The model, in evaluation mode.
        inputs: Those of `attend`, batch 1, on any device; the prompt up to the answer.
        answer_ids: The tokens of the answer, at least one, the end token included where there is one.

    Returns:
        `[views, tokens]`, which sums to 1.
    """
    steps = replay(model, {name: tensor.to(model.device) for name, tensor in inputs.items()}, answer_ids)
    seen = inputs["input_ids"].shape[1] + len(answer_ids) - 1
    # A layer with a sliding window tells of the last places alone.
    layers = [F.pad(weights, (seen - weights.shape[-1], 0)) for weights in steps.attentions]
    mean = torch.stack([weights[0].float().mean(dim=(0, 1)) for weights in layers]).mean(dim=0).cpu()
    shown = (inputs["input_ids"][0] == model.config.image_token_id).nonzero().squeeze(1).cpu()
    read = mean[shown].view(-1, model.config.tokens_per_view)
    normal: Weights = (read / read.sum().clamp(min=torch.finfo(read.dtype).tiny)).numpy()
    return normal


def replay(
    model: SaccadeForConditionalGeneration, inputs: Mapping[str, torch.Tensor], answer_ids: Sequence[int]
) -> Any:
    """Run the steps of an answer again and return the decoder's output, attention weights included.

    Only an eager decoder returns weights, which take memory by the square of the prompt if it reads the prompt. So the
    model reads the prompt as ever, and the steps go through an eager twin of its decoder, which shares its weights; the
    model itself stays as it is, for whoever else is using it.

    Args:
        model: The model, in evaluation mode.
        inputs: Those of `attend`, batch 1, on the model's device.
        answer_ids: The tokens of the answer.

    Returns:
        With `last_hidden_state` `[1, steps, text_dim]` and, for each layer, `attentions` `[1, heads, steps, seen]`.
    """
    prompt = {name: tensor[:, :-1] if name in _PER_TOKEN else tensor for name, tensor in inputs.items()}
    last = inputs["input_ids"][:, -1:]
    steps = torch.cat([last, last.new_tensor([answer_ids[:-1]])], dim=1)
    with torch.inference_mode():
        cache = model.model(**prompt, use_cache=True).past_key_values
        return _eager(model.model.language_model)(input_ids=steps, past_key_values=cache, output_attentions=True)


def to_patches(read: Weights, owners: NDArray[np.intp], within: Weights | None = None) -> Weights:
    """Give the weight of every visual token to the patches that it stands for.

    Args:
        read: `[views, tokens]`.
        owners: `[grid, grid]`, the token that stands for each patch, -1 for none (`compressor.owners`).
        within: `[views, grid, grid]`, what part of its token each patch makes up; None for equal parts.

    Returns:
        `[views, grid, grid]`, which sums as `read` does.
    """
    if within is None:
        within = (1 / np.bincount(owners[owners >= 0])[owners]).astype(np.float32)
    spread: Weights = np.where(owners >= 0, read[:, owners] * within, np.float32(0))
    return spread


def _eager(decoder: Any) -> Any:
    """Return a copy of a decoder that attends eagerly, on the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*decoder.parameters(), *decoder.buffers())}
    twin = copy.deepcopy(decoder, shared)
    twin.set_attn_implementation("eager")
    return twin
