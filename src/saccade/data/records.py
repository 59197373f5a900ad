"""Records: rows as they lie in a file, before anyone asks what kind of rows they are."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

_Item_co = TypeVar("_Item_co", covariant=True)


@dataclass(frozen=True, eq=False)
class Record:
    """The fields of one row.

    Attributes:
        where: Where it stands, see `Row`.
        fields: By name, as the file holds them.
        folder: Where relative names of pictures start; None where there is no such place.
    """

    where: str
    fields: Mapping[str, Any]
    folder: Path | None


class Items(Protocol[_Item_co]):
    """A map from numbers to records or rows."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> _Item_co:
        """Return one; raises IndexError beyond the last."""
        ...


class Joined(Generic[_Item_co]):
    """Several maps, one after the other."""

    def __init__(self, parts: Sequence[Items[_Item_co]]) -> None:
        self.parts = parts
        self.ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        """How many there are in all."""
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> _Item_co:
        """Return one by its number in all of them."""
        check_index(index, len(self))
        part = bisect.bisect_right(self.ends, index)
        return self.parts[part][index - (self.ends[part - 1] if part else 0)]


def check_index(index: int, length: int) -> None:
    """Raise IndexError unless 0 <= index < length."""
    if not 0 <= index < length:
        raise IndexError(f"there is no row {index} among {length}")
