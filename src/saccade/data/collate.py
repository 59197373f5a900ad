"""Samples become one batch: padded rows, normalized views, and which view and which query stands where."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.config import ImageConfig
from saccade.errors import DataError, PlaceholderMismatchError
from saccade.image.transform import normalize
from saccade.prompt.encode import IGNORE, Encoded
from saccade.roles import IMAGE, TEXT, is_query

Side = Literal["right", "left"]
Views = TypeVar("Views", bound=Sized)


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt and its pictures.

    Attributes:
        encoded: The prompt, from `encode`.
        views: The views of all its pictures in order, `[views, 3, side, side]` uint8 from `to_views`, or what a tower
            made of them, `[views, patches, vision_dim]` of a floating type; None without pictures. Samples of one batch
            that hold the very same array (several questions on one picture) share it: its views enter the batch, and
            the vision tower, once.
    """

    encoded: Encoded
    views: NDArray[Any] | None = None


def collate(
    samples: Sequence[Sample],
    *,
    image: ImageConfig,
    pad_id: int,
    tokens_per_view: int,
    num_queries: int,
    padding_side: Side = "right",
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
        With pictures `pixel_values` `[views, 3, side, side]`, float32 (or `image_features` `[views, patches,
        vision_dim]`, for samples that hold patches), and `view_index` `[batch, most views of a row]`,
        which names the views of each row by their place in `pixel_values`, -1 where there is none. With query sets
        `query_positions` `[batch, most query tokens of a row]`, where the query tokens stand, ascending, -1 where
        there is none.

    Raises:
        DataError: when there is no sample, some hold pictures and others patches, or a row has labels to give but none
            of its tokens is trained.
        PlaceholderMismatchError: when the image tokens of a row do not fit its views, or its query tokens do not make
            full sets.
    """
    if not samples:
        raise DataError("a batch needs at least one sample")
    for row, sample in enumerate(samples):
        check_sample(f"row {row}", sample, tokens_per_view, num_queries, labels)
    encoded = [sample.encoded for sample in samples]
    batch = pad_prompts(encoded, pad_id, padding_side)
    if labels:
        batch["labels"] = pad([e.labels for e in encoded], IGNORE, padding_side)
    return batch | stack_views([[sample] for sample in samples], image)


def check_sample(name: str, sample: Sample, tokens_per_view: int, num_queries: int, labels: bool) -> None:
    """Raise what `collate` raises for one sample, which the message calls by `name`."""
    roles = torch.tensor(sample.encoded.roles)
    views = 0 if sample.views is None else len(sample.views)
    found = int((roles == IMAGE).sum())
    if found != views * tokens_per_view:
        raise PlaceholderMismatchError(
            f"{name} holds {views} views of {tokens_per_view} tokens: {views * tokens_per_view} image tokens were "
            f"expected, {found} were found; encode it with the token counts of its own pictures"
        )
    queries = int(is_query(roles).sum())
    if queries and (not num_queries or queries % num_queries):
        raise PlaceholderMismatchError(
            f"{name} holds {queries} query tokens, which do not make sets of {num_queries}: render it with the "
            "prompt configuration of its model"
        )
    if labels and all(label == IGNORE for label in sample.encoded.labels[1:]):  # nothing predicts a first token
        raise DataError(f"{name} has no trained token: give it an answer, or leave it out")


def stack_views(rows: Sequence[Sequence[Sample]], image: ImageConfig) -> dict[str, Tensor]:
    """Stack the views of the samples of each row.

    Returns:
        Nothing without pictures, else `pixel_values` or `image_features`, and `view_index`; see `collate`.

    Raises:
        DataError: when some samples hold pictures and others patches.
    """
    distinct, view_index = place_views([[one.views for one in row if one.views is not None] for row in rows])
    if not distinct:
        return {}
    if len({views.ndim for views in distinct}) > 1:
        raise DataError("some samples hold pictures and others patches of a tower: give all of a batch one kind")
    views = np.concatenate(distinct)
    if views.ndim == 3:
        return {"image_features": torch.from_numpy(views.astype(np.float32)), "view_index": view_index}
    return {"pixel_values": torch.from_numpy(normalize(views, image)), "view_index": view_index}


def pad(rows: Sequence[Sequence[int]], value: int, side: Side) -> Tensor:
    """Stack rows of different length, `[batch, longest]`."""
    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor(
        [[*row, *gap] if side == "right" else [*gap, *row] for row, gap in zip(rows, fill, strict=True)],
        dtype=torch.int64,
    )


def pad_prompts(encoded: Sequence[Encoded], pad_id: int, side: Side) -> dict[str, Tensor]:
    """Stack prompts.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids` (roles), `[batch, seq]`; with query sets also
        `query_positions` `[batch, most query tokens of a row]`.
    """
    batch = {
        "input_ids": pad([e.input_ids for e in encoded], pad_id, side),
        "attention_mask": pad([[1] * len(e.input_ids) for e in encoded], 0, side),
        "mm_token_type_ids": pad([e.roles for e in encoded], TEXT, side),
    }
    positions = [row.nonzero().flatten().tolist() for row in is_query(batch["mm_token_type_ids"])]
    if any(positions):
        batch["query_positions"] = pad(positions, -1, "right")
    return batch


def place_views(rows: Sequence[Sequence[Views]]) -> tuple[list[Views], Tensor]:
    """Say which views stand in which row; an object that several rows hold is stored once.

    Args:
        rows: The pictures of each row in order, each something whose length is its number of views.

    Returns:
        The distinct pictures in order, and `view_index` `[batch, most views of a row]`: places in their concatenation,
        -1 where a row has no further view.
    """
    first: dict[int, int] = {}
    distinct: list[Views] = []
    index: list[list[int]] = []
    total = 0
    for row in rows:
        slots: list[int] = []
        for picture in row:
            if id(picture) not in first:
                first[id(picture)] = total
                distinct.append(picture)
                total += len(picture)
            start = first[id(picture)]
            slots += range(start, start + len(picture))
        index.append(slots)
    return distinct, pad(index, -1, "right")
