"""Converted rows go to a file of JSON lines; a conversion that was killed goes on where it stood."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from saccade.data.convert.formats import Dropped, Picture, Row
from saccade.data.records import Record
from saccade.data.rows import RowError
from saccade.errors import DataError

MOST_BAD = 100  # bad records after which the whole data set is taken to be in another format
_SHOWN = 10
_SAVE_EVERY = 256  # records between two notes of how far it has come
_FOLDER_OF = 1000  # pictures in a folder

Make = Callable[[Mapping[str, Any]], Row | Dropped]


@dataclass
class Progress:
    """How far a conversion has come.

    Attributes:
        records: Records read.
        rows: Rows written.
        bytes: Length of the file of rows.
        bad: Records that no row can be made of: where, and why.
        dropped: Sound records without a row, counted by the reason.
    """

    records: int = 0
    rows: int = 0
    bytes: int = 0
    bad: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


def write_rows(
    records: Iterable[Record | RowError],
    make: Make,
    target: Path,
    *,
    pictures: Path,
    skip_bad: bool = False,
) -> Progress:
    """Write one row a record to `target`, whose folder relative names of pictures start from.

    Pictures that come as bytes are stored beside it; of those that come as names it is checked that they exist. Until
    it is whole the file is called `.part`, and `.part.json` says how far it is; the same call goes on from there, with
    the same result as one that was never stopped.

    Args:
        records: The records, and errors in place of those that cannot be read.
        make: Makes a row.
        target: File of the rows.
        pictures: Folder that the names of pictures in the records start from, below that of `target`.
        skip_bad: Leave bad records out instead of stopping.

    Raises:
        DataError: when records are bad and not skipped, with where they stand; at the end, or as soon as there are more
            than `MOST_BAD`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    note = target.with_name(target.name + ".part.json")
    progress = _resume(part, note, skip_bad)
    store = _Pictures(target, pictures)
    with part.open("ab") as file:
        file.truncate(progress.bytes)
        for record in islice(records, progress.records, None):
            _one(file, record, make, store, progress)
            progress.records += 1
            if len(progress.bad) > MOST_BAD and not skip_bad:
                break
            if progress.records % _SAVE_EVERY == 0:
                _save(progress, file, note)
        _save(progress, file, note)
    if progress.bad and not skip_bad:
        raise DataError(_complaint(target, progress))
    os.replace(part, target)
    note.unlink()
    return progress


def _one(
    file: BinaryIO,
    record: Record | RowError,
    make: Make,
    store: _Pictures,
    progress: Progress,
) -> None:
    if isinstance(record, RowError):
        progress.bad.append(str(record))
        return
    try:
        row = make(record.fields)
        if isinstance(row, Dropped):
            progress.dropped[row.reason] = progress.dropped.get(row.reason, 0) + 1
            return
        names = [store.name(picture, f"{progress.rows:08d}-{number}") for number, picture in enumerate(row["image"])]
    except DataError as error:
        progress.bad.append(f"{record.where}: {error}")
        return
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # published by others: anything may stand there
        progress.bad.append(f"{record.where}: is in another format than expected ({type(error).__name__}: {error})")
        return
    rest = {key: value for key, value in row.items() if key != "image"}
    line = (
        {"id": record.where.rpartition("/")[2]}
        | ({"image": names if len(names) > 1 else names[0]} if names else {})
        | rest
    )
    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    progress.rows += 1


class _Pictures:
    """Finds the pictures of records and stores those that have no file yet."""

    def __init__(self, target: Path, root: Path) -> None:
        self.base = target.parent
        self.folder = self.base / "pictures" / target.stem
        self.root = root

    def name(self, picture: Picture, stem: str) -> str:
        """Return the name of a picture's file, from the folder of the rows."""
        path = self._stored(picture, stem) if isinstance(picture, bytes) else self.root / picture
        if not os.path.isfile(path):  # that of Path raises for long names
            raise DataError(f"the picture {path} is missing")
        if not path.is_relative_to(self.base):
            raise DataError(f"the picture {path} lies outside of {self.base}: move it there")
        return path.relative_to(self.base).as_posix()

    def _stored(self, content: bytes, stem: str) -> Path:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(content)) as opened:
                suffix = (opened.format or "").lower()
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise DataError("the bytes of a picture are no picture") from error
        path = self.folder / f"{int(stem.partition('-')[0]) // _FOLDER_OF:05d}" / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def _resume(part: Path, note: Path, skip_bad: bool) -> Progress:
    """Read how far it has come; from the start again where bad records stopped it, for they may be mended by now."""
    if not (part.is_file() and note.is_file()):
        return Progress()
    progress = Progress(**json.loads(note.read_text(encoding="utf-8")))
    is_whole = part.stat().st_size >= progress.bytes  # a machine that failed may have kept the note and lost rows
    return progress if is_whole and (skip_bad or not progress.bad) else Progress()


def _save(progress: Progress, file: BinaryIO, note: Path) -> None:
    file.flush()
    progress.bytes = file.tell()
    unfinished = note.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    os.replace(unfinished, note)


def _complaint(target: Path, progress: Progress) -> str:
    shown = "; ".join(progress.bad[:_SHOWN])
    more = f"; and {len(progress.bad) - _SHOWN} more" if len(progress.bad) > _SHOWN else ""
    return (
        f"{len(progress.bad)} of {progress.records} records cannot go into {target.name}: {shown}{more}. Mend them, or "
        "leave them out with --skip-bad"
    )
