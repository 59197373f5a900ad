"""The files that public sets come in, made rows: the hub's tables, tables with pictures in base64, and JSON."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from saccade.data.json_files import JsonFile
from saccade.data.tables import Table
from saccade.errors import DataError
from saccade.image import ImageSource

LONGEST_CELL = 1 << 30  # a picture in base64; the csv module's own limit is 128 KiB
LONGEST_REFERENCE = 64  # what is longer in a column of pictures is one, what is shorter names the row that holds it


@dataclass(frozen=True)
class Row:
    """A row of a set.

    Attributes:
        where: File and row, for errors.
        number: Its place in the set, from 0.
        fields: By column, without the picture.
        picture: Reads the picture.
    """

    where: str
    number: int
    fields: Mapping[str, Any]
    picture: Callable[[], ImageSource]

    def text(self, column: str) -> str:
        """Return what stands in a column, a number as its digits; raises DataError where nothing does."""
        found = self.optional(column)
        if not found:
            raise self.bad(column, "holds no text")
        return found

    def optional(self, column: str) -> str:
        """Return what stands in a column, empty where nothing does."""
        held = self.fields.get(column)
        if held is None:
            return ""
        if isinstance(held, bool) or not isinstance(held, str | int):
            raise self.bad(column, f"holds a {type(held).__name__} where text belongs")
        return str(held)

    def texts(self, column: str) -> tuple[str, ...]:
        """Return the texts of a column; raises DataError where it holds none, or something else."""
        held = self.fields.get(column)
        if isinstance(held, str):
            return (held,)
        if not isinstance(held, Sequence) or not held or not all(isinstance(text, str) for text in held):
            raise self.bad(column, "holds no list of texts")
        return tuple(held)

    def picture_name(self) -> str:
        """Return what rows that show the same picture share, and only they, whether or not the set names pictures.

        Raises:
            DataError: when the row holds no picture.
        """
        shown = self.picture()
        return hashlib.sha256(shown).hexdigest()[:16] if isinstance(shown, bytes) else str(shown)

    def bad(self, column: str, what: str) -> DataError:
        """Return the error of a column of this row."""
        return DataError(f"{self.where}, column {column!r}, {what}: fetch the set again, or correct the row")


def table_texts(table: Table, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each row of a table stands, and its fields of some columns, those of them that it has."""
    texts = table.rows.select_columns([name for name in columns if name in table.rows.column_names])
    for number, fields in enumerate(texts.to_list()):
        yield f"{table.name}[{number}]", fields


def table_rows(files: Sequence[Path], columns: Sequence[str], picture: str = "image") -> Iterator[Row]:
    """Read tables as the hub holds them, each picture when it is asked for.

    Args:
        files: Parquet files.
        columns: The columns that are wanted beside the picture; one that is not there is missed when it is asked for.
        picture: The column of pictures.

    Raises:
        DataError: when a file cannot be read, or has no column of pictures.
    """
    table = Table.of_files(files, files[0].parent)
    if picture not in table.rows.column_names:
        raise DataError(f"{table.name} has no column {picture!r}: fetch the set again, with its pictures")
    pictures = table.rows.select_columns([picture])
    for number, (where, fields) in enumerate(table_texts(table, columns)):
        yield Row(where, number, fields, partial(_of_table, pictures, picture, number, where))


def _of_table(pictures: Any, column: str, number: int, where: str) -> bytes:
    held = pictures[number].to_pylist()[0][column]
    found = held.get("bytes") if isinstance(held, Mapping) else held
    if not isinstance(found, bytes):
        raise DataError(f"{where}, column {column!r}, holds no picture: fetch the set again")
    return found


def tsv_rows(files: Sequence[Path], renamed: Mapping[str, str]) -> Iterator[Row]:
    """Read tables as VLMEvalKit publishes them: tab-separated, pictures in base64 or as the index of an earlier row.

    Args:
        files: The files; they are read into memory, as they hold a picture once however many rows show it.
        renamed: Names that the hub's tables give to columns, and those that these tables give them.

    Raises:
        DataError: when a file cannot be read, or a row has no picture.
    """
    csv.field_size_limit(LONGEST_CELL)
    numbers = count()
    for file in files:
        shown: dict[str, str] = {}
        for place, cells in enumerate(_cells(file)):
            where = f"{file}[{place}]"
            image = cells.pop("image", "")
            index = cells.get("index", str(place))
            shown[index] = image if len(image) > LONGEST_REFERENCE else shown.get(image, "")
            if not shown[index]:
                raise DataError(f"{where}, column 'image', holds no picture and no index of one: fetch the file again")
            fields = cells | {name: cells[theirs] for name, theirs in renamed.items() if theirs in cells}
            yield Row(where, next(numbers), fields, partial(_of_base64, shown[index], where))


def _cells(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for place, cells in enumerate(csv.DictReader(lines, delimiter="\t")):
                if None in cells:
                    raise DataError(f"{file}[{place}] has more cells than the table has columns: fetch the file again")
                yield {name: cell for name, cell in cells.items() if cell}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a tab-separated table ({error}): fetch it again") from error


def _of_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DataError(f"{where}, column 'image', is not base64 ({error}): fetch the file again") from error


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file; raises DataError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text ({error}): fetch it again") from error


def json_fields(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each object of a JSON array, of JSON lines, or of the array `data` of an object stands, and it."""
    if (held := _whole(file)) is not None and isinstance(held.get("data"), list):
        for number, fields in enumerate(held["data"]):
            where = f"{file}[{number}]"
            yield where, json_question(where, fields)
        return
    rows = JsonFile(file, file.parent)
    yield from ((row.where, row.fields) for row in (rows[number] for number in range(len(rows))))


def json_object(file: Path) -> Mapping[str, Any]:
    """Return the JSON object that a file is; raises DataError."""
    if (held := _whole(file)) is None:
        raise DataError(f"{file} is not one JSON object: fetch it again")
    return held


def _whole(file: Path) -> Mapping[str, Any] | None:
    try:
        held = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check the path") from error
    except ValueError:
        return None
    return held if isinstance(held, dict) else None


def json_question(where: str, held: Any) -> Mapping[str, Any]:
    """Return a question of a JSON file; raises DataError where something else stands."""
    if not isinstance(held, dict):
        raise DataError(f"{where} is a {type(held).__name__}, no question: fetch the set again")
    return held


def json_row(where: str, number: int, fields: Mapping[str, Any], places: Sequence[Path]) -> Row:
    """Return a row whose picture is the first of several files that is there.

    Raises:
        DataError: when none is.
    """
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"{where}: there is no picture {' or '.join(map(str, places))}: put the pictures beside the file"
        )
    return Row(where, number, fields, lambda: found)


def open_rows(
    files: Sequence[Path],
    columns: Sequence[str],
    of_json: Callable[[Path], Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]],
    renamed: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Read rows of any of the forms, told apart by the names of the files.

    Args:
        files: Files of one form.
        columns: Columns of the hub's tables that are wanted beside the picture.
        of_json: Yields where each question of an original file stands, its fields by the names of the hub's columns,
            and where its picture may lie.
        renamed: See `tsv_rows`.

    Raises:
        DataError: when a file cannot be read, or a row has no picture.
    """
    suffix = files[0].suffix.lower()
    if suffix == ".parquet":
        yield from table_rows(files, columns)
    elif suffix == ".tsv":
        yield from tsv_rows(files, renamed or {})
    else:
        questions = (question for file in files for question in of_json(file))
        for number, (where, fields, places) in enumerate(questions):
            yield json_row(where, number, fields, places)
