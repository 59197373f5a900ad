"""The file that answers go to: appended batch by batch, and gone on with after an interrupt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.errors import DataError
from saccade.vlm.bulk import FileRequest, Row


class Ledger:
    """Rows of answers in a file of JSON lines, in the order of their requests.

    The file belongs to one run. Its settings stand in a second file beside it, and the same settings and requests go on
    where an interrupted run stopped; a last line that was torn is dropped and answered again.

    Args:
        path: The file of answers; made when it is missing.
        settings: What answers depend on beside the requests, as plain JSON types.
        requests: All requests of the run.

    Attributes:
        done: Rows that the file holds.
        failed: Errors among them.

    Raises:
        DataError: when the file belongs to another run, or cannot be read or written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], requests: Sequence[FileRequest]) -> None:
        self._path = path
        if path.is_dir():
            raise DataError(f"{path} is a folder: name a file for the answers")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _claim(path, dict(settings))
            rows = _rows(path)
        except OSError as error:
            raise DataError(f"{path} cannot be used ({error}): choose another file for the answers") from error
        _check(path, rows, requests)
        self.done = len(rows)
        self.failed = sum("error" in row for row in rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Write the next rows; they are in the file when this returns."""
        # A file name that is no UTF-8 holds half characters, which JSON spells as this way of replacing them does.
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self.done += len(rows)
        self.failed += sum("error" in row for row in rows)


def settings_file(path: Path) -> Path:
    """Return the file beside a file of answers that says how they were made."""
    return path.with_name(f"{path.name}.run.json")


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings beside a new file, or compare them with those of an old one."""
    beside = settings_file(path)
    if not path.exists() or not path.stat().st_size:
        beside.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    remedy = f"choose another file for the answers, or delete {path}"
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} exists and {beside} does not tell how it was made ({error}): {remedy}") from error
    for name in sorted(known.keys() | settings.keys()):
        if known.get(name) != settings.get(name):
            raise DataError(
                f"{path} belongs to a run with {name} {known.get(name)!r}, not {settings.get(name)!r}: {remedy}"
            )


def _rows(path: Path) -> list[Row]:
    """Return the whole lines of a file, and drop a torn one at its end."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    rows: list[Row] = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"line {number} of {path} is damaged ({error}): delete the file and ask again") from error
    return rows


def _check(path: Path, rows: Sequence[Row], requests: Sequence[FileRequest]) -> None:
    """Compare the rows with the requests at their places."""
    if len(rows) > len(requests):
        raise DataError(f"{path} holds {len(rows)} rows but there are {len(requests)} requests: choose another file")
    for number, (row, request) in enumerate(zip(rows, requests, strict=False), 1):
        wanted = request.row()
        found = {name: row[name] for name in ("id", "image", "question") if name in row}
        if found != wanted:
            raise DataError(
                f"line {number} of {path} answers {found}, but request {number} is {wanted}: the requests have "
                "changed, choose another file for the answers"
            )
