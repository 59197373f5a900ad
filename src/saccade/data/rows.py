"""Rows: what training data is, wherever it lies. Every row says where it stands, and so does every error about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self

from saccade.errors import DataError
from saccade.image import ImageSource
from saccade.prompt import Turn

Kind = Literal["chat", "captions", "preferences", "problems"]
Reason = Literal[
    "malformed",
    "unknown role",
    "order of roles",
    "empty answer",
    "placeholder count",
    "missing picture",
    "broken picture",
    "chosen equals rejected",
    "too long",
    "nothing trained",
]


class RowError(DataError):
    """One row is bad; the others may be good.

    Attributes:
        where: Where the row stands.
        reason: What is wrong, in the words by which reports count bad rows.
    """

    # All but the sentence has a default: a worker of torch's DataLoader builds the error anew from the sentence alone.
    def __init__(self, sentence: str, *, where: str = "", reason: Reason = "malformed") -> None:
        super().__init__(sentence)
        self.where, self.reason = where, reason

    @classmethod
    def at(cls, where: str, sentence: str, reason: Reason = "malformed") -> Self:
        """Return the error of the row that stands somewhere."""
        return cls(f"{where}: {sentence}", where=where, reason=reason)


@dataclass(frozen=True, eq=False)
class Row:
    """One row of training data.

    Attributes:
        where: File and line, element or member, such as `talks.jsonl:17`, `talks.json[16]` or `0.tar:000017.json`.
        pictures: In order; paths and bytes are not opened yet.
    """

    where: str
    pictures: tuple[ImageSource, ...]


@dataclass(frozen=True, eq=False)
class ChatRow(Row):
    """A conversation that ends with an answer; its turns hold as many pictures as the row."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, eq=False)
class CaptionRow(Row):
    """One or more pictures and what they show."""

    caption: str


@dataclass(frozen=True, eq=False)
class PreferenceRow(Row):
    """A conversation that ends with a question, a good answer to it and a worse one."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True, eq=False)
class ProblemRow(Row):
    """A conversation that ends with a question, and its solution, against which an answer is verified."""

    turns: tuple[Turn, ...]
    solution: str


class Rows(Protocol):
    """A map from numbers to rows, never a stream: an interrupted run goes on at any place without reading the rest."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int, /) -> Row:
        """Return a row; raises RowError for a bad one and IndexError beyond the last."""
        ...
