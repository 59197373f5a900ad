"""JSON on disk, one row a line or one array of rows: only where each row stands is kept in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from saccade.data.records import Record, check_index
from saccade.data.rows import RowError
from saccade.data.watched import watched
from saccade.errors import DataError

CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
# An escape of half a character: without its other half no tokenizer, file or terminal takes the text.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_NEWLINE, _QUOTE, _BACKSLASH, _COMMA = b'\n"\\,'
# By how much a byte outside of strings changes the depth.
_STEPS = np.zeros(256, np.int64)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


class JsonFile:
    """The objects of a file: JSON lines, or one JSON array, told apart by the first character.

    Args:
        path: The file, in UTF-8.
        folder: Where relative names of pictures start.

    Raises:
        DataError: when the file cannot be read, or is an array that is not closed.
    """

    def __init__(self, path: Path, folder: Path, *, chunk: int = CHUNK) -> None:
        self.path, self.folder = path, folder
        try:
            with path.open("rb") as file:
                start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
                self.is_array = _first_character(file, start) == b"["
                size = path.stat().st_size
                find = find_elements if self.is_array else find_lines
                with watched(f"reading {path.name}", size - start) as advance:
                    self.starts, self.ends = find(file, start, chunk, advance)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): check the path") from error
        except ValueError as error:
            raise DataError(f"{path} is not one JSON array ({error}): write it again, or as JSON lines") from error

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.starts)

    def __getitem__(self, index: int) -> Record:
        """Read a row; raises RowError where it is no JSON object."""
        check_index(index, len(self))
        where = f"{self.path}[{index}]" if self.is_array else f"{self.path}:{index + 1}"
        with self.path.open("rb") as file:
            text = _read(file, int(self.starts[index]), int(self.ends[index]))
        return Record(where, parse_object(text, where), self.folder)


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object that a text is, or raise RowError."""
    if not text.strip():
        raise RowError.at(where, "is empty: remove it, or write a JSON object there")
    try:
        fields = json.loads(text.decode("utf-8"))
        if _HALF.search(text):
            json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RowError.at(where, f"is not JSON ({error}): write one object for every row") from error
    if not isinstance(fields, dict):
        raise RowError.at(where, f"is a {type(fields).__name__}: write one JSON object for every row")
    return fields


Found = tuple[NDArray[np.int64], NDArray[np.int64]]


def find_lines(file: BinaryIO, start: int, chunk: int, advance: Callable[[int], None]) -> Found:
    """Find where lines start and end, but for empty ones at the end of the file.

    Args:
        file: What is read.
        start: Where the first line starts.
        chunk: Bytes at once.
        advance: Told of the bytes that were read.
    """
    ends, at = [np.empty(0, np.int64)], start
    for data in _chunks(file, start, chunk, advance):
        ends.append(np.flatnonzero(data == _NEWLINE) + at)
        at += len(data)
    stops = np.concatenate([*ends, np.array([at])])
    starts = np.concatenate([[start], stops[:-1] + 1])
    rows = len(stops)
    while rows and not _read(file, int(starts[rows - 1]), int(stops[rows - 1])).strip():
        rows -= 1
    return starts[:rows], stops[:rows]


def find_elements(file: BinaryIO, start: int, chunk: int, advance: Callable[[int], None]) -> Found:
    """Find where the elements of a JSON array start and end, without reading what they are.

    A quote opens or closes a string unless an odd number of backslashes precedes it; a bracket or comma counts outside
    of strings; a comma at depth 1 ends an element. In UTF-8 no byte of another character looks like any of these.

    Raises:
        ValueError: when the array is not closed, or something follows it.
    """
    cuts, ends = [np.empty(0, np.int64)], 0
    at, in_string, depth, slashes = start, 0, 0, 0
    for data in _chunks(file, start, chunk, advance):
        places = np.arange(len(data))
        # The last place that is no backslash, at each place: how far it lies back is the length of the run.
        other = np.maximum.accumulate(np.where(data == _BACKSLASH, -1 - slashes, places))
        run = places - np.concatenate([[-1 - slashes], other[:-1]]) - 1
        strings = in_string + np.cumsum((data == _QUOTE) & (run % 2 == 0))
        plain = strings % 2 == 0
        step = plain * _STEPS[data]
        depths = depth + np.cumsum(step)
        end = (step < 0) & (depths == 0)
        cut = end | ((depths == 1) & ((step > 0) | (plain & (data == _COMMA))))
        cuts.append(np.flatnonzero(cut) + at)
        ends += int(end.sum())
        at, in_string, depth, slashes = (
            at + len(data),
            int(strings[-1] % 2),
            int(depths[-1]),
            int(places[-1] - other[-1]),
        )
    found = np.concatenate(cuts)
    if depth > 0 or in_string:
        raise ValueError("it ends before the array does")
    if depth or ends != 1 or _read(file, int(found[-1]) + 1, at).strip():
        raise ValueError("something follows the array")
    starts, stops = found[:-1] + 1, found[1:]
    is_empty = len(starts) == 1 and not _read(file, int(starts[0]), int(stops[0])).strip()
    return (starts[:0], stops[:0]) if is_empty else (starts, stops)


def _chunks(file: BinaryIO, start: int, chunk: int, advance: Callable[[int], None]) -> Iterator[NDArray[np.uint8]]:
    file.seek(start)
    while data := file.read(chunk):
        yield np.frombuffer(data, np.uint8)
        advance(len(data))


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _first_character(file: BinaryIO, start: int) -> bytes:
    """Return the first byte that is no blank, empty where there is none."""
    file.seek(start)
    while (character := file.read(1)).isspace():
        pass
    return character
