"""Where rows are: a file, a folder, shards or a data set, said by configuration, and opened where they lie."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from saccade.config import Frozen
from saccade.data.formats import parse_row
from saccade.data.json_files import JsonFile
from saccade.data.records import Items, Joined, Record, check_index
from saccade.data.rows import Kind, Row, Rows
from saccade.data.shards import Shards
from saccade.data.tables import SAVED, Table
from saccade.errors import DataError

HUB = "hf:"


class Source(Frozen):
    """One place that rows come from.

    Attributes:
        path: A file, a folder, a pattern of files such as `shards/*.tar`, or `hf:owner/name` or `hf:owner/name:subset`.
        kind: What its rows are.
        pictures: Folder that relative names of pictures start from; by default that of the file.
        share: Its share of the rows of a mixture; by default each row of it once.
        split: Split of a data set that has several.
        limit: Most rows, the first ones.
    """

    path: str
    kind: Kind
    pictures: str | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    split: str = "train"
    limit: PositiveInt | None = None


def open_rows(source: Source) -> Rows:
    """Open the rows of a source; what stays in memory is where each of them stands.

    A file is JSON lines or one JSON array (`.json`, `.jsonl`), a table (`.parquet`) or a shard (`.tar`). A folder is
    one saved by the datasets library, or holds shards or tables.

    Raises:
        DataError: when there is nothing there, it cannot be read, or holds no row.
    """
    records = _open(source)
    if not len(records):
        raise DataError(f"{source.path} holds no row: write one, or leave it out")
    return _ParsedRows(records, source.kind, min(len(records), source.limit or len(records)))


class _ParsedRows:
    """The first records of a source, each made a row when it is asked for."""

    def __init__(self, records: Items[Record], kind: Kind, length: int) -> None:
        self.records, self.kind, self.length = records, kind, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Row:
        check_index(index, self.length)
        return parse_row(self.records[index], self.kind)


def files_of(path: str) -> list[Path]:
    """Return the files that the path of a source leads to: itself, all below a folder, or those that fit a pattern."""
    place = Path(path)
    named = [path] if place.exists() else glob.glob(path, recursive=True)
    return sorted(file for file in (place.rglob("*") if place.is_dir() else map(Path, named)) if file.is_file())


def _open(source: Source) -> Items[Record]:
    folder = None if source.pictures is None else Path(source.pictures)
    if source.path.startswith(HUB):
        return Table.of_hub(source.path.removeprefix(HUB), source.split, folder)
    path = Path(source.path)
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED):
            return Table.saved(path, source.split, folder or path)
        files = sorted(found for found in path.rglob("*") if found.suffix in (".tar", ".parquet"))
    else:
        files = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(source.path, recursive=True))]
    suffixes = {file.suffix.lower() for file in files}
    if not files:
        raise DataError(
            f"{source.path} is no file of rows, fits none, and is no folder of shards or tables: check the path; JSON "
            f"files of a folder are named by a pattern such as {path / '*.jsonl'}"
        )
    if suffixes == {".tar"}:
        return Shards(files)
    if suffixes == {".parquet"}:
        return Table.of_files(files, folder or files[0].parent)
    if suffixes <= {".json", ".jsonl"}:
        return Joined([JsonFile(file, folder or file.parent) for file in files])
    raise DataError(
        f"{source.path} leads to files of {', '.join(sorted(map(repr, suffixes)))}: name .json and .jsonl files, or "
        ".parquet files, or .tar shards"
    )
