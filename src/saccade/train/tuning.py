"""Rows as a map from numbers to what a batch is made of, in the order in which a stage goes through them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from saccade.data.collate import Sample
from saccade.data.encoder import Encoder
from saccade.data.pack import WINDOW, collate_packed, pack
from saccade.data.rows import Row
from saccade.train.rows import Checked, open_views
from saccade.train.stages import Stage
from saccade.train.tasks import Tuning

STEPS_SORTED = 50  # steps whose rows are sorted by length together, as transformers does


class TuningDataset(Dataset[list[Sample]]):
    """Items of a stage, each a list of samples: one row, or the rows that share a packed sequence.

    Args:
        checked: The rows.
        encoder: Of the model.
        stage: Says how many steps it takes, of how many items, in which order.
        seed: Shuffles steps of rows of one length.
    """

    def __init__(self, checked: Checked, encoder: Encoder, stage: Stage, seed: int) -> None:
        assert isinstance(stage.task, Tuning)
        self.checked, self.encoder, self.seed, self.batch = checked, encoder, seed, stage.batch
        self.order, self.capacity = stage.task.order, stage.task.max_length
        self.window = WINDOW if self.order == "packed" else STEPS_SORTED * stage.batch
        # Without a number of passes there is no last row.
        self.rows = sys.maxsize if stage.epochs is None else stage.rows_shown(len(checked.rows))
        self.ends = self._count(stage) if self.order == "packed" else None
        items = self.rows if self.ends is None else int(self.ends[-1])
        self.steps = stage.steps_for(items)
        self._last: tuple[int, list[list[int]]] = (-1, [])

    def __len__(self) -> int:
        """Items of all steps; what the last step lacks is of a further pass, or packed sequences once more."""
        return self.steps * self.batch

    def __getitem__(self, number: int) -> list[Sample]:
        """Return the samples of an item; raises RowError where a picture can no longer be read."""
        return [to_sample(self.checked.rows[row], self.encoder) for row in self.rows_of(number)]

    def rows_of(self, number: int) -> list[int]:
        """Return the numbers of an item's rows in the endless run of passes."""
        if self.order == "drawn":
            return [number]
        if self.ends is None:
            window, place = divmod(number, self.window)
        else:
            number %= int(self.ends[-1])
            window = int(np.searchsorted(self.ends, number, side="right"))
            place = number - (int(self.ends[window - 1]) if window else 0)
        if self._last[0] != window:
            self._last = (window, self._packed(window) if self.order == "packed" else self._sorted(window))
        return self._last[1][place]

    def _lengths(self, numbers: range) -> list[int]:
        return [self.checked.length(number) for number in numbers]

    def _sorted(self, window: int) -> list[list[int]]:
        """Arrange the rows of a window so that those of a step are about equally long, the steps in any order.

        The last window ends with the stage: its rows are those that would have come without arranging them.
        """
        numbers = range(window * self.window, min((window + 1) * self.window, len(self)))
        order = np.argsort(self._lengths(numbers), kind="stable").reshape(-1, self.batch)
        steps = np.random.default_rng([self.seed, window]).permutation(order)
        return [[numbers[row]] for row in steps.flat]

    def _packed(self, window: int) -> list[list[int]]:
        """Pack the rows of a window; the last pass ends in the middle of one."""
        numbers = range(window * self.window, min((window + 1) * self.window, self.rows))
        return [[numbers[row] for row in rows] for rows in pack(self._lengths(numbers), self.capacity)]

    def _count(self, stage: Stage) -> NDArray[np.int64]:
        """Return how many sequences there are up to the end of each window, until there are enough."""
        ends, wanted = [0], sys.maxsize if stage.steps is None else stage.steps * stage.batch
        while (len(ends) - 1) * self.window < self.rows and ends[-1] < wanted:
            ends.append(ends[-1] + len(self._packed(len(ends) - 1)))
        return np.array(ends[1:])


def to_sample(row: Row, encoder: Encoder) -> Sample:
    """Open the pictures of a row, and encode it with all that is trained of it.

    Raises:
        RowError: when a picture cannot be read.
    """
    views, sizes = open_views(row, encoder)
    (encoded,) = encoder.row(row, sizes)
    return Sample(encoded, views)


def collator(encoder: Encoder, task: Tuning) -> Callable[[list[list[Sample]]], dict[str, Any]]:
    """Return what makes a batch of items of a task."""
    return partial(_collate, encoder, packed=task.order == "packed")


def _collate(encoder: Encoder, items: list[list[Sample]], *, packed: bool) -> dict[str, Any]:
    config = encoder.config
    batch: dict[str, torch.Tensor | int] = (
        collate_packed(
            items,
            image=config.image,
            pad_id=encoder.tokenizer.pad_token_id,
            tokens_per_view=config.tokens_per_view,
            num_queries=config.prompt.num_queries,
        )
        if packed
        else dict(encoder.collate(items))
    )
    # The loss needs no logits beyond those that it makes itself, piece by piece.
    return batch | {"logits_to_keep": 1}
