"""Several sources as one map of rows, shuffled anew in every pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.data.rows import Row, Rows
from saccade.data.sources import Source, open_rows
from saccade.errors import DataError


class Mixed:
    """Rows of several sources in an order drawn from a seed; each pass has its own order.

    Without shares a pass shows every row once. With shares a pass is as long, but each source has its share of it: a
    source goes through all its rows before it shows one a second time, be that in one pass or over several.

    A number beyond the first pass is a row of a later one: `mixture[n]` is row `n % len(mixture)` of the order of pass
    `n // len(mixture)`. One pass's order is kept in memory, eight bytes a row.

    Args:
        parts: The rows of each source.
        shares: The share of each source, in any unit; None for each row once. All or none have one.
        seed: Draws the orders.

    Raises:
        DataError: when there is no source, only some have a share, or one's is too small for a single row.
    """

    def __init__(self, parts: Sequence[Rows], shares: Sequence[float | None], seed: int) -> None:
        given = [share for share in shares if share is not None]
        if not parts or len(given) not in (0, len(parts)):
            raise DataError(f"{len(given)} of {len(parts)} sources have a share: give one to all of them, or to none")
        self.parts, self.seed = parts, seed
        lengths = [len(part) for part in parts]
        self.starts = [sum(lengths[:number]) for number in range(len(parts))]
        self.counts = _apportioned(given, sum(lengths)) if given else lengths
        if min(self.counts) == 0:
            raise DataError(
                f"the share of source {self.counts.index(0) + 1} is below one row in {sum(lengths)}: raise it, or "
                "leave it out"
            )
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @classmethod
    def of(cls, sources: Sequence[Source], seed: int) -> Mixed:
        """Open sources and mix them by their shares."""
        return cls([open_rows(source) for source in sources], [source.share for source in sources], seed)

    def __len__(self) -> int:
        """Number of rows in a pass."""
        return sum(self.counts)

    def __getitem__(self, number: int) -> Row:
        """Return a row by its number in the endless run of passes; raises RowError for a bad one."""
        part, index = self.locate(number)
        return self.parts[part][index]

    def locate(self, number: int) -> tuple[int, int]:
        """Return the source of a number and the row in it."""
        if number < 0:
            raise IndexError(f"there is no row {number}: rows count from 0")
        epoch, place = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, self._drawn(epoch))
        row = int(self._order[1][place])
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return part, row - self.starts[part]

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of a pass in order, counted through all sources."""
        rows = np.concatenate([self._turns(part, epoch) + start for part, start in enumerate(self.starts)])
        return self._dice(0, epoch).permutation(rows)

    def _turns(self, part: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows that a source gives to a pass: the next of an endless run of shuffles of all its rows."""
        length, count = len(self.parts[part]), self.counts[part]
        first, after = epoch * count // length, math.ceil((epoch + 1) * count / length)
        shuffles = [self._dice(1 + part, turn).permutation(length) for turn in range(first, after)]
        start = epoch * count - first * length
        turns: NDArray[np.int64] = np.concatenate(shuffles)[start : start + count]
        return turns

    def _dice(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Divide a number of rows in proportion to shares: whole numbers that sum to it."""
    ends = [round(total * sum(shares[: number + 1]) / sum(shares)) for number in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
