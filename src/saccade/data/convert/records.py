"""Records of published files, one at a time, however large the files are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from saccade.data.json_files import JsonFile
from saccade.data.records import Record
from saccade.data.rows import RowError
from saccade.errors import DataError

_PARQUET_ROWS = 64  # rows with pictures are large, so few are decoded together


def find_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files below a folder that match patterns, in the order of the patterns, then of the names.

    Raises:
        DataError: when a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not matches:
            raise DataError(f"{folder} holds no file {pattern}: fetch it again, or correct `records` of the mixture")
        found += matches
    return found


def read_records(path: Path) -> tuple[int, Iterator[Record | RowError]]:
    """Return how many records a `.json`, `.jsonl` or `.parquet` file has, and the records; an error for a bad one.

    Raises:
        DataError: when the file is of another kind, or cannot be read.
    """
    if path.suffix in (".json", ".jsonl"):
        file = JsonFile(path, path.parent)
        return len(file), (_record(file, index) for index in range(len(file)))
    if path.suffix == ".parquet":
        return _from_parquet(path)
    raise DataError(f"{path} is of no kind that is read here: .json, .jsonl, .parquet")


def _record(file: JsonFile, index: int) -> Record | RowError:
    try:
        return file[index]
    except RowError as error:
        return error


def _from_parquet(path: Path) -> tuple[int, Iterator[Record | RowError]]:
    """Read it in place: the datasets library would first write a copy of it, and each record is wanted only once."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{path} is read by pyarrow, which is not installed: pip install 'saccade[train]'") from error
    try:
        file = ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}): fetch it again") from error

    def records() -> Iterator[Record | RowError]:
        index = 0
        try:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for fields in batch.to_pylist():
                    yield Record(f"{path}[{index}]", fields, path.parent)
                    index += 1
        except (ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read after row {index} ({error}): fetch it again") from error

    return file.metadata.num_rows, records()
