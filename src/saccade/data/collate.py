"""Samples become one batch: padded rows, normalized views, and which view and which query stands where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.config import ImageConfig
from saccade.errors import DataError, PlaceholderMismatchError
from saccade.image.transform import normalize
from saccade.prompt.encode import IGNORE, Encoded
from saccade.roles import IMAGE, TEXT, query_role


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt and its pictures.

    Attributes:
        encoded: The prompt, from `encode`.
        views: The views of all its pictures in order, `[views, 3, side, side]` uint8 from `to_views`; None without
            pictures. Samples of one batch that hold the very same array (several questions on one picture) share it:
            its views enter the batch, and the vision tower, once.
    """

    encoded: Encoded
    views: NDArray[np.uint8] | Tensor | None = None


def collate(
    samples: Sequence[Sample],
    *,
    image: ImageConfig,
    pad_id: int,
    tokens_per_view: int,
    num_queries: int,
    padding_side: Literal["right", "left"] = "right",
    labels: bool,
) -> dict[str, Tensor]:
    """Pad samples to their longest and stack them.

    Args:
        samples: One per row.
        image: How views are normalized.
        pad_id: Id of padding.
        tokens_per_view: Visual tokens of one view.
        num_queries: Query tokens in a set.
        padding_side: "right" to train, "left" to generate.
        labels: Whether to give labels.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (roles) and, asked for, `labels`: `[batch, seq]`, int64.
        With pictures `pixel_values` `[views, 3, side, side]`, float32, and `view_index` `[batch, most views of a row]`,
        which names the views of each row by their place in `pixel_values`, -1 where there is none. With query sets
        `query_positions` `[batch, most query tokens of a row]`, where the query tokens stand, ascending, -1 where
        there is none.

    Raises:
        DataError: when there is no sample, or a row has labels to give but none of its tokens is trained.
        PlaceholderMismatchError: when the image tokens of a row do not fit its views, or its query tokens do not make
            full sets.
    """
    if not samples:
        raise DataError("a batch needs at least one sample")
    for row, sample in enumerate(samples):
        _check(row, sample, tokens_per_view, num_queries, labels)
    encoded = [sample.encoded for sample in samples]
    batch = {
        "input_ids": _pad([e.input_ids for e in encoded], pad_id, padding_side),
        "attention_mask": _pad([[1] * len(e.input_ids) for e in encoded], 0, padding_side),
        "mm_token_type_ids": _pad([e.roles for e in encoded], TEXT, padding_side),
    }
    if labels:
        batch["labels"] = _pad([e.labels for e in encoded], IGNORE, padding_side)
    batch |= _views(samples, image)
    positions = [row.nonzero().flatten().tolist() for row in _is_query(batch["mm_token_type_ids"])]
    if any(positions):
        batch["query_positions"] = _pad(positions, -1, "right")
    return batch


def _check(row: int, sample: Sample, tokens_per_view: int, num_queries: int, labels: bool) -> None:
    roles = torch.tensor(sample.encoded.roles)
    views = 0 if sample.views is None else len(sample.views)
    found = int((roles == IMAGE).sum())
    if found != views * tokens_per_view:
        raise PlaceholderMismatchError(
            f"row {row} holds {views} views of {tokens_per_view} tokens: {views * tokens_per_view} image tokens were "
            f"expected, {found} were found; encode it with the token counts of its own pictures"
        )
    queries = int(_is_query(roles).sum())
    if queries and (not num_queries or queries % num_queries):
        raise PlaceholderMismatchError(
            f"row {row} holds {queries} query tokens, which do not make sets of {num_queries}: render it with the "
            "prompt configuration of its model"
        )
    if labels and all(label == IGNORE for label in sample.encoded.labels):
        raise DataError(f"row {row} has no trained token: give it an answer, or leave it out")


def _is_query(roles: Tensor) -> Tensor:
    return (roles >= query_role(0)) & (roles % 2 == query_role(0) % 2)


def _pad(rows: Sequence[list[int]], value: int, side: str) -> Tensor:
    """Stack rows of different length, `[batch, longest]`."""
    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    pairs = zip(rows, fill, strict=True) if side == "right" else zip(fill, rows, strict=True)
    return torch.tensor([first + second for first, second in pairs], dtype=torch.int64)


def _views(samples: Sequence[Sample], image: ImageConfig) -> dict[str, Tensor]:
    """Stack the views of a batch, one that several samples hold only once, and say which stand where."""
    first: dict[int, int] = {}
    distinct: list[NDArray[np.uint8]] = []
    index: list[list[int]] = []
    total = 0
    for sample in samples:
        if sample.views is None:
            index.append([])
            continue
        if id(sample.views) not in first:
            first[id(sample.views)] = total
            distinct.append(_as_array(sample.views))
            total += len(sample.views)
        start = first[id(sample.views)]
        index.append(list(range(start, start + len(sample.views))))
    if not distinct:
        return {}
    pixels = torch.from_numpy(normalize(np.concatenate(distinct), image))
    return {"pixel_values": pixels, "view_index": _pad(index, -1, "right")}


def _as_array(views: Any) -> NDArray[np.uint8]:
    return views.numpy() if isinstance(views, Tensor) else views
