"""Rows are checked before anything is trained: each is read, its pictures measured, its prompt encoded. No GPU."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.utils.data import DataLoader, Dataset

from saccade.data.encoder import Encoder, Size
from saccade.data.rows import Reason, Row, RowError, Rows
from saccade.data.watched import watched
from saccade.errors import ImageError, PromptError, SaccadeWarning
from saccade.image import ImageSource, open_image
from saccade.image.transform import check_padded
from saccade.prompt.encode import IGNORE

CHUNK = 64  # rows that a worker takes at once
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Bad:
    """A row that cannot be trained on.

    Attributes:
        index: Its number among the rows.
        where: Where it stands.
        reason: What is wrong, as it is counted.
        detail: What is wrong and the remedy.
    """

    index: int
    where: str
    reason: Reason
    detail: str


class Measure(NamedTuple):
    """What a good row takes.

    Attributes:
        longest: Tokens of its longest prompt; a preference has two.
        tokens: Tokens of all its prompts.
        trained: Those of them that are trained.
        pictures: Its pictures.
    """

    longest: int
    tokens: int
    trained: int
    pictures: int


@dataclass(frozen=True, eq=False)
class Findings:
    """What a check found.

    Attributes:
        bad: The bad rows, in order.
        notes: Where something is to be said about a good row, and what.
        measures: The fields of `Measure` of every row, `[rows, 4]`; of bad rows zeros.
    """

    bad: list[Bad]
    notes: list[tuple[str, str]]
    measures: NDArray[np.int64]

    def good(self) -> NDArray[np.int64]:
        """Return the numbers of the good rows."""
        return np.flatnonzero(self.measures[:, 0])

    def summary(self) -> dict[str, Any]:
        """Return counts and lengths in plain JSON types; lengths are in tokens, None where no row is good."""
        longest, tokens, trained, pictures = self.measures[self.good()].T
        reasons = defaultdict(list)
        for bad in self.bad:
            reasons[bad.reason].append({"where": bad.where, "detail": bad.detail})
        any_good = len(longest) > 0
        return {
            "rows": len(self.measures),
            "bad_rows": len(self.bad),
            "pictures": int(pictures.sum()),
            "text_only_rows": int((pictures == 0).sum()),
            "tokens_mean": round(float(longest.mean()), 1) if any_good else None,
            "tokens_95_percent": int(np.percentile(longest, 95, method="higher")) if any_good else None,
            "tokens_max": int(longest.max()) if any_good else None,
            "trained_share": round(float(trained.sum() / tokens.sum()), 4) if any_good else None,
            "bad": dict(reasons),
            "notes": [{"where": where, "note": note} for where, note in self.notes],
        }


def check_rows(
    rows: Rows, encoder: Encoder, *, max_length: int | None = None, workers: int = 0, whole: bool = True
) -> Findings:
    """Check every row; the findings do not depend on the number of workers.

    Args:
        rows: What is checked.
        encoder: Of the model that they are for.
        max_length: Most tokens of a prompt, visual tokens counted; the positions of the decoder where None.
        workers: Processes beside this one.
        whole: Whether pictures are read to their end, which finds damaged ones; otherwise only their headers are.

    Raises:
        OSError: when the machine fails, not a row.
    """
    inspection = _Inspection(rows, encoder, max_length or positions(encoder), whole)
    bad, notes, measures = list[Bad](), list[tuple[str, str]](), np.zeros((len(rows), len(Measure._fields)), np.int64)
    chunks = DataLoader(
        inspection, batch_size=None, num_workers=min(workers, len(inspection) - 1), collate_fn=_unchanged
    )
    with watched("checking rows", len(rows)) as advance:
        for chunk in chunks:
            for index, found, told in chunk:
                if isinstance(found, Bad):
                    bad.append(found)
                else:
                    measures[index] = found
                    notes += told
            advance(len(chunk))
    return Findings(bad, notes, measures)


def find_bad(
    rows: Rows, encoder: Encoder, max_length: int | None = None, *, workers: int = 0, whole: bool = True
) -> list[Bad]:
    """Return the bad rows, in order; see `check_rows`."""
    return check_rows(rows, encoder, max_length=max_length, workers=workers, whole=whole).bad


def positions(encoder: Encoder) -> int:
    """Return the tokens for which the decoder of an encoder's model has positions."""
    return int(encoder.config.text_config.max_position_embeddings)


def measure(row: Row, encoder: Encoder, max_length: int, *, whole: bool = True) -> Measure:
    """Return what a row takes.

    Args:
        row: What is measured.
        encoder: Of the model that it is for.
        max_length: Most tokens of a prompt.
        whole: Whether its pictures are read to their end.

    Raises:
        RowError: when a picture cannot be read, a prompt is too long or nothing of one is trained.
    """
    sizes = picture_sizes(row, encoder, whole=whole)
    try:
        encoded = encoder.row(row, sizes)
    except PromptError as error:
        raise RowError.at(row.where, str(error)) from error
    lengths = [len(one.input_ids) for one in encoded]
    if max(lengths) > max_length:
        raise RowError.at(
            row.where,
            f"takes {max(lengths)} tokens with its pictures, more than {max_length}: shorten it, or leave it out",
            "too long",
        )
    trained = [sum(label != IGNORE for label in one.labels) for one in encoded]
    if not all(trained):
        raise RowError.at(row.where, "has no token that is trained: give it an answer", "nothing trained")
    return Measure(max(lengths), sum(lengths), sum(trained), len(row.pictures))


def picture_sizes(row: Row, encoder: Encoder, *, whole: bool = False) -> list[Size]:
    """Return width and height in pixels of the pictures of a row, from their headers unless they are read whole.

    Raises:
        RowError: when one cannot be opened, or is no shape that a view can be made of.
    """
    sizes = []
    for number, picture in enumerate(row.pictures, 1):
        try:
            sizes.append(_size(picture, encoder.config.image.max_pixels, f"picture {number}", whole))
            check_padded(sizes[-1], encoder.config.image)
        except ImageError as error:
            missing = isinstance(picture, Path) and not os.path.isfile(picture)  # that of Path raises for long names
            raise RowError.at(row.where, str(error), "missing picture" if missing else "broken picture") from error
    return sizes


class _Enough(Exception):  # noqa: N818
    """Keeps a picture from being decoded when its header has said what was asked."""


def _size(picture: ImageSource, max_pixels: int, name: str, whole: bool) -> Size:
    found: list[Size] = []

    def read_header(image: Image.Image) -> None:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
        found.append((height, width) if turned else (width, height))
        if not whole:
            raise _Enough
        if image is not picture:
            image.draft("RGB", (1, 1))  # a JPEG is then read to its end, but decoded at an eighth of its size

    with suppress(_Enough):
        open_image(picture, max_pixels, name=None if isinstance(picture, Path) else name, before_decoding=read_header)
    return found[0]


class _Inspection(Dataset[Any]):
    """Chunks of rows, each row with its number, what was found, and what is to be said about it."""

    def __init__(self, rows: Rows, encoder: Encoder, max_length: int, whole: bool) -> None:
        self.rows, self.encoder, self.max_length, self.whole = rows, encoder, max_length, whole

    def __len__(self) -> int:
        return (len(self.rows) + CHUNK - 1) // CHUNK

    def __getitem__(self, chunk: int) -> list[tuple[int, Measure | Bad, list[tuple[str, str]]]]:
        return [self._inspect(index) for index in range(len(self.rows))[chunk * CHUNK : (chunk + 1) * CHUNK]]

    def _inspect(self, index: int) -> tuple[int, Measure | Bad, list[tuple[str, str]]]:
        try:
            row = self.rows[index]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", SaccadeWarning)
                found = measure(row, self.encoder, self.max_length, whole=self.whole)
        except RowError as error:
            return index, Bad(index, error.where, error.reason, str(error).removeprefix(f"{error.where}: ")), []
        said = [str(note.message) for note in caught if issubclass(note.category, SaccadeWarning)]
        return index, found, [(row.where, note) for note in said]


def _unchanged(value: _Value) -> _Value:
    """Keep the DataLoader from making tensors."""
    return value


def spread_samples(findings: Findings, count: int) -> list[int]:
    """Return the numbers of some good rows, as far from one another as can be."""
    good: Sequence[int] = findings.good().tolist()
    return (
        [good[place * len(good) // count] for place in range(min(count, len(good)))] if len(good) > count else [*good]
    )
