"""Attention weights of one forward pass: how SAP pooled, and what EmbQ's queries read, for every row of a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import PromptError
from saccade.model import SaccadeForConditionalGeneration
from saccade.model.compress import SpatialAttentionPooling, to_windows
from saccade.model.query import EmbeddedQuery, QueryContext

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Attention:
    """What one row of a batch looked at.

    `layers` counts the calls of EmbQ's layers in order, over all decoder layers that the module stands before.

    Attributes:
        sap: `[views, grid, grid]`, the weight of each patch in its window; a window sums to 1. None for another
            compressor (FlashSloth, Eq. 3).
        query_image: `[layers, heads, queries, views, grid, grid]`, EmbQ's weights over the patches of all views, which
            sum to 1 for every query (Eq. 6). None without EmbQ.
        query_text: `[layers, heads, queries, seq]`, EmbQ's weights over the tokens of the row, which sum to 1 over the
            instruction that a query reads (Eq. 5). None without EmbQ.
    """

    sap: Weights | None
    query_image: Weights | None
    query_text: Weights | None


def attend(model: SaccadeForConditionalGeneration, inputs: Mapping[str, torch.Tensor]) -> list[Attention]:
    """Run a batch of prompts through the model once and return what each row looked at.

    The weights are those that the modules return or compute in their own forward; nothing is generated. A model with
    neither SAP nor EmbQ has none.

    Args:
        model: The model, in evaluation mode.
        inputs: `input_ids`, `attention_mask` and `mm_token_type_ids` `[batch, seq]`, `image_features`
            `[views, patches, vision_dim]` and `view_index` `[batch, slots]`, on any device.

    Returns:
        One for every row.

    Raises:
        PromptError: when no row shows a picture or, with EmbQ, none has query tokens, and without `view_index`.
    """
    if "image_features" not in inputs:
        raise PromptError("there is no picture to look at: give every question its picture")
    if "view_index" not in inputs:
        raise PromptError(
            "there is no view_index, which says whose the views are: give each row the indices of its own"
        )
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    sap = _pooled(model, inputs["image_features"])
    read = _read(model, inputs)
    return [_row(row, index[index >= 0], sap, read) for row, index in enumerate(inputs["view_index"])]


@dataclass(frozen=True)
class _Read:
    """EmbQ's weights for a batch: `[layers, batch, heads, queries, slots, grid, grid]` and `[..., queries, seq]`."""

    image: Weights
    text: Weights
    queries: list[int]


def _pooled(model: SaccadeForConditionalGeneration, patches: torch.Tensor) -> Weights | None:
    """SAP's weights `[views, grid, grid]`, put back where the patches of each window lie."""
    compressor, grid = model.model.compressor, model.config.grid
    if not isinstance(compressor, SpatialAttentionPooling):
        return None
    window = compressor.window
    with torch.inference_mode():
        weights = compressor.weights(to_windows(patches.to(model.dtype), window))
    side = grid // window
    return _array(weights.view(-1, side, side, window, window).transpose(2, 3).reshape(-1, grid, grid))


def _read(model: SaccadeForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> _Read | None:
    """Run the decoder and return what EmbQ read on the way."""
    if model.config.query is None:
        return None
    positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)  # as generation counts them
    with torch.inference_mode(), _listen(model.model.embedded_query) as heard:
        model.model(**inputs, position_ids=positions, use_cache=False)
    if not heard:
        raise PromptError("no row has query tokens, so there is nothing that they looked at: ask after each picture")
    grid = model.config.grid
    text, image = (torch.stack(weights) for weights in zip(*(call[:2] for call in heard), strict=True))
    context = heard[0][2]
    queries: list[int] = (context.positions >= 0).sum(dim=1).tolist()
    return _Read(_array(image.unflatten(-1, (-1, grid, grid))), _array(text), queries)


@contextmanager
def _listen(module: EmbeddedQuery) -> Iterator[list[tuple[torch.Tensor, torch.Tensor, QueryContext]]]:
    """Collect the weights over text and picture, and the context, of every call of the module's layers in the block."""
    heard: list[tuple[torch.Tensor, torch.Tensor, QueryContext]] = []
    thread = threading.get_ident()  # another thread may be using the same module

    def hear(_: Any, args: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        if threading.get_ident() == thread:
            heard.append((output[1], output[2], args[-1]))

    handles = [layer.register_forward_hook(hear) for layer in module.layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _row(row: int, views: torch.Tensor, sap: Weights | None, read: _Read | None) -> Attention:
    return Attention(
        sap=None if sap is None else sap[views.cpu().numpy()],
        query_image=None if read is None else read.image[:, row, :, : read.queries[row], : len(views)],
        query_text=None if read is None else read.text[:, row, :, : read.queries[row]],
    )


def _array(weights: torch.Tensor) -> Weights:
    array: Weights = weights.float().cpu().numpy()
    return array
