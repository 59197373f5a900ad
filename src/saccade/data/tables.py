"""Tables: parquet files, folders saved by the datasets library and data sets of the hub, mapped from disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from saccade.data.records import Record, check_index
from saccade.errors import DataError

# What lies in a folder saved by the datasets library: one data set, or one for each split.
SAVED = ("state.json", "dataset_dict.json")


class Table:
    """The rows of a data set of the datasets library.

    Args:
        name: What errors call it.
        rows: The data set.
        folder: Where relative names of pictures start; None where there is no such place.
    """

    def __init__(self, name: str, rows: Any, folder: Path | None) -> None:
        self.name, self.folder = name, folder
        self.rows = rows.with_format("arrow")  # so that pictures stay the bytes that they are stored as

    @classmethod
    def of_files(cls, paths: Sequence[Path], folder: Path) -> Self:
        """Open parquet files.

        Raises:
            DataError: when the library is missing or a file cannot be read.
        """
        name = str(paths[0] if len(paths) == 1 else paths[0].parent)
        library = _library(name)
        try:
            return cls(name, library.Dataset.from_parquet([str(path) for path in paths]), folder)
        except (OSError, ValueError, library.exceptions.DatasetsError) as error:
            raise DataError(f"{name} cannot be read as parquet ({error}): fetch it again") from error

    @classmethod
    def saved(cls, path: Path, split: str, folder: Path) -> Self:
        """Open a folder written by `save_to_disk`.

        Raises:
            DataError: when the library is missing, the folder cannot be read or has no such split.
        """
        library = _library(str(path))
        try:
            found = library.load_from_disk(str(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a saved data set ({error}): save it again") from error
        if isinstance(found, dict):
            if split not in found:
                raise DataError(f"{path} has no split {split!r}: choose one of {', '.join(found)}")
            found = found[split]
        return cls(str(path), found, folder)

    @classmethod
    def of_hub(cls, name: str, split: str, folder: Path | None) -> Self:
        """Open a data set of the hub, `owner/name` or `owner/name:subset`; what was fetched once is not fetched again.

        Raises:
            DataError: when no data set is named, the library is missing, or the data set cannot be fetched or has no
                such split.
        """
        repository, _, subset = name.partition(":")
        if not repository:
            raise DataError("hf: names no data set: write hf:owner/name or hf:owner/name:subset")
        library = _library(name)
        try:
            return cls(f"hf:{name}", library.load_dataset(repository, subset or None, split=split), folder)
        except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
            raise DataError(
                f"hf:{name}, split {split!r}, cannot be fetched ({error}): check name and network"
            ) from error

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        """Read a row."""
        check_index(index, len(self))
        return Record(f"{self.name}[{index}]", self.rows[index].to_pylist()[0], self.folder)


def _library(what: str) -> ModuleType:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{what} is read by the datasets library, which is not installed: pip install 'saccade[train]'"
        ) from error
