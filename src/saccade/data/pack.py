"""Packing: several samples in one row, each trained as if it stood alone."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from saccade.config import ImageConfig
from saccade.data.collate import Sample, check_sample, pad, pad_prompts, stack_views
from saccade.errors import DataError
from saccade.prompt.encode import IGNORE, Encoded

# Samples that are packed together: enough to fill rows well, few enough that rows keep the order of the data.
WINDOW = 4096


def pack(lengths: Sequence[int], capacity: int, window: int = WINDOW) -> list[list[int]]:
    """Divide samples among rows, best fit first: the longest of a window goes where it leaves the least room.

    Args:
        lengths: Tokens of each sample.
        capacity: Most tokens of a row.
        window: Samples that are packed together, in the order given.

    Returns:
        The indices of each row's samples, ascending; rows in the order of their first samples, each sample once.

    Raises:
        DataError: when a sample is longer than a row.
    """
    for index, length in enumerate(lengths):
        if length > capacity:
            raise DataError(
                f"sample {index} has {length} tokens, but a row holds {capacity}: leave it out, or give rows more room"
            )
    windows = (range(start, min(start + window, len(lengths))) for start in range(0, len(lengths), window))
    return [row for samples in windows for row in _fill(lengths, samples, capacity)]


def _fill(lengths: Sequence[int], samples: range, capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # free tokens and number of each row, ascending
    for sample in sorted(samples, key=lambda index: -lengths[index]):
        place = bisect_left(rooms, (lengths[sample], 0))
        if place == len(rooms):
            room, row = capacity, len(rows)
            rows.append([])
        else:
            room, row = rooms.pop(place)
        rows[row].append(sample)
        insort(rooms, (room - lengths[sample], row))
    return sorted(sorted(row) for row in rows)


def collate_packed(
    rows: Sequence[Sequence[Sample]],
    *,
    image: ImageConfig,
    pad_id: int,
    tokens_per_view: int,
    num_queries: int,
) -> dict[str, Tensor | int]:
    """Put the samples of each row one behind the other, pad rows to their longest, and stack them, to train.

    Args:
        rows: The samples of each row.
        image: How views are normalized.
        pad_id: Id of padding.
        tokens_per_view: Visual tokens of one view.
        num_queries: Query tokens in a set.

    Returns:
        What `collate` returns, with `position_ids` `[batch, seq]` that restart with every sample instead of an
        `attention_mask`: they say to the model, as to every decoder of transformers, where a sample ends. The padding
        of a row counts as one more. Flash attention takes the boundaries, of all rows on end, as `cu_seq_lens_q` and
        `cu_seq_lens_k` (int32 `[samples + 1]`) and the longest as `max_length_q` and `max_length_k`.

    Raises:
        DataError: when a row has no sample, some samples hold pictures and others patches, or one has no token to
            train.
        PlaceholderMismatchError: when the image tokens of a sample do not fit its views, or its query tokens do not
            make full sets.
    """
    if not rows or not all(rows):
        raise DataError("a batch needs at least one row, and a row at least one sample")
    for number, row in enumerate(rows):
        for place, sample in enumerate(row):
            check_sample(f"sample {place} of row {number}", sample, tokens_per_view, num_queries, labels=True)
    joined = [_join(sample.encoded for sample in row) for row in rows]
    longest = max(len(row.input_ids) for row in joined)
    parts = [_parts(row, longest) for row in rows]
    batch: dict[str, Tensor | int] = {**pad_prompts(joined, pad_id, "right"), **stack_views(rows, image)}
    del batch["attention_mask"]
    batch["labels"] = pad([row.labels for row in joined], IGNORE, "right")
    batch["position_ids"] = torch.stack([torch.cat([torch.arange(part) for part in row]) for row in parts])
    lengths = torch.tensor([0, *(part for row in parts for part in row)])
    for side in "qk":
        batch[f"cu_seq_lens_{side}"] = lengths.cumsum(0, dtype=torch.int32)
        batch[f"max_length_{side}"] = int(lengths.max())
    return batch


def _join(samples: Iterable[Encoded]) -> Encoded:
    """Write samples one behind the other; the last token of one does not predict the first of the next."""
    row = Encoded()
    for sample in samples:
        row.input_ids.extend(sample.input_ids)
        row.labels.extend([IGNORE, *sample.labels[1:]])
        row.roles.extend(sample.roles)
    return row


def _parts(row: Sequence[Sample], longest: int) -> list[int]:
    """Lengths of a row's samples and of its padding."""
    lengths = [len(sample.encoded.input_ids) for sample in row]
    gap = longest - sum(lengths)
    return [*lengths, gap] if gap else lengths
