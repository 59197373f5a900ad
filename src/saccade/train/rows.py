"""The rows that a stage learns from: opened where they lie, and checked before its first step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.data.check import Bad, check_rows
from saccade.data.encoder import Encoder
from saccade.data.mixed import Mixed
from saccade.data.mixtures import listing
from saccade.data.records import Joined
from saccade.data.rows import Kind, Row, RowError, Rows
from saccade.data.sources import Source, files_of, open_rows
from saccade.data.world_rows import WorldChats, WorldPreferences, WorldProblems
from saccade.errors import ConfigError, DataError, ImageError
from saccade.image import open_image, to_views
from saccade.train.tasks import Listed, RowTask, World

KINDS: dict[str, tuple[Kind, ...]] = {
    "tuning": ("chat", "captions"),
    "preferences": ("preferences",),
    "problems": ("problems",),
}
WORLD: dict[str, Any] = {"tuning": WorldChats, "preferences": WorldPreferences, "problems": WorldProblems}
SHOWN = 10  # bad rows that an error names
# What a check found, in the folder of its stage: the tokens of each row, 0 of a bad one, and the bad ones with reasons.
MEASURED, BAD_ROWS = "rows.npz", "bad_rows.jsonl"


@dataclass(frozen=True, eq=False)
class Checked:
    """Rows that can be trained on.

    Attributes:
        rows: In the order of the passes through them.
        lengths: Tokens of each row of each part of `rows`, visual tokens counted.
    """

    rows: Mixed
    lengths: list[NDArray[np.int64]]

    def length(self, number: int) -> int:
        """Tokens of a row by its number in the endless run of passes."""
        part, index = self.rows.locate(number)
        return int(self.lengths[part][index])


def open_checked(
    task: RowTask,
    encoder: Encoder,
    notes: Path,
    *,
    data: Path,
    seed: int,
    workers: int = 0,
    skip_bad: bool = False,
) -> Checked:
    """Open the rows of a task and check each of them, or recall what a check of the same rows found.

    Args:
        task: Says where the rows are.
        encoder: Of the model that learns from them.
        notes: Folder that keeps what was found, and which rows are bad.
        data: Folder that mixtures were fetched to.
        seed: Draws the order of the rows.
        workers: Processes that help.
        skip_bad: Leave bad rows out instead of stopping.

    Raises:
        ConfigError: when a source holds rows that the task does not read.
        DataError: when rows are missing, or are bad and not to be skipped.
    """
    sources = sources_of(task, data)
    parts, shares = _open(task, sources)
    Mixed(parts, shares, seed)  # shares that do not fit are refused before a long check, not after it
    joined = Joined[Row](parts)
    key = _fingerprint(task, sources, joined, encoder)
    measured = _recalled(notes, key)
    if measured is None:
        findings = check_rows(joined, encoder, max_length=task.max_length, workers=workers)
        measured = findings.measures[:, 0]
        _keep(notes, key, measured, findings.bad)
    if not measured.all() and not skip_bad:
        raise DataError(_told(notes / BAD_ROWS, len(measured)))
    if not measured.any():
        raise DataError(f"none of {len(measured)} rows can be trained on: see {notes / BAD_ROWS}")
    each = np.split(measured, joined.ends[:-1])
    good = [_Kept(part, np.flatnonzero(lengths)) for part, lengths in zip(parts, each, strict=True)]
    full = [number for number, part in enumerate(good) if len(part)]
    rows = Mixed([good[number] for number in full], [shares[number] for number in full], seed)
    return Checked(rows, [each[number][each[number] > 0] for number in full])


class _Kept:
    """Some of the rows of a source."""

    def __init__(self, rows: Rows, numbers: NDArray[np.int64]) -> None:
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Row:
        return self.rows[int(self.numbers[index])]


def sources_of(task: RowTask, data: Path) -> list[Source]:
    """Return where the rows of a task are, of mixtures the files that they were fetched to.

    Raises:
        ConfigError: when a source holds rows that the task does not read.
        DataError: when a mixture was not fetched, or cannot be.
    """
    found: list[Source] = []
    for one in task.data:
        if isinstance(one, Source):
            found.append(one)
        elif isinstance(one, Listed):
            listed = listing(one.mixture).sources(data, one.only)
            if not listed:
                raise DataError(
                    f"nothing of the mixture {one.mixture} was published: give the stage data of your own, with "
                    "--set stages.NAME.task.data"
                )
            found += listed
    wrong = [source for source in found if source.kind not in KINDS[task.kind]]
    if wrong:
        raise ConfigError(
            f"{wrong[0].path} holds {wrong[0].kind}, but a stage of {task.kind} reads {' and '.join(KINDS[task.kind])}"
        )
    return found


def open_views(row: Row, encoder: Encoder) -> tuple[NDArray[np.uint8] | None, list[tuple[int, int]]]:
    """Open the pictures of a row.

    Returns:
        The views of all of them `[views, 3, side, side]`, None where there is no picture; width and height of each.

    Raises:
        RowError: when a picture cannot be read.
    """
    image = encoder.config.image
    try:
        pictures = [open_image(picture, image.max_pixels) for picture in row.pictures]
        views = [to_views(picture, image) for picture in pictures]
    except ImageError as error:
        raise RowError.at(row.where, str(error), "broken picture") from error
    return np.concatenate(views) if views else None, [picture.size for picture in pictures]


def _open(task: RowTask, sources: Sequence[Source]) -> tuple[list[Rows], list[float | None]]:
    parts: list[Rows] = []
    shares: list[float | None] = []
    for source in sources:
        parts.append(open_rows(source))
        shares.append(source.share)
    for world in (one for one in task.data if isinstance(one, World)):
        parts.append(WORLD[task.kind](world.families, world.rows, pictures=world.pictures, first=world.first))
        shares.append(None)
    return parts, shares


def _fingerprint(task: RowTask, sources: Sequence[Source], rows: Joined[Row], encoder: Encoder) -> str:
    """Return what changes when a check might find something else."""
    files = [
        (str(path), status.st_size, status.st_mtime_ns)
        for source in sources
        for path in files_of(source.path)
        for status in (path.stat(),)
    ]
    definition = encoder.config.definition()
    reads = {name: definition.get(name) for name in ("image", "prompt", "compressor", "query")}
    told = [task.model_dump(mode="json"), files, len(rows), reads, encoder.tokenizer.backend_tokenizer.to_str()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _keep(notes: Path, key: str, measured: NDArray[np.int64], bad: Sequence[Bad]) -> None:
    notes.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"where": one.where, "reason": one.reason, "detail": one.detail}) for one in bad]
    (notes / BAD_ROWS).write_text("".join(f"{line}\n" for line in lines))
    unfinished = notes / f"rows.{os.getpid()}.npz"  # where machines share no disk, several processes write it
    np.savez(unfinished, key=np.array(key), lengths=measured)
    unfinished.replace(notes / MEASURED)


def _recalled(notes: Path, key: str) -> NDArray[np.int64] | None:
    if not (notes / MEASURED).is_file() or not (notes / BAD_ROWS).is_file():
        return None
    with np.load(notes / MEASURED) as kept:
        lengths: NDArray[np.int64] = kept["lengths"]
        return lengths if str(kept["key"]) == key else None


def _told(file: Path, rows: int) -> str:
    bad: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    shown = "; ".join(f"{one['where']} {one['detail']}" for one in bad[:SHOWN])
    return (
        f"{len(bad)} of {rows} rows cannot be trained on: {shown}{'; ...' if len(bad) > SHOWN else ''}. Mend them (all "
        f"are listed in {file}), or leave them out with --skip-bad"
    )
