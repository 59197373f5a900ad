"""The file that answers go to: appended batch by batch, and gone on with after an interrupt."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import torch
from torch import nn

from saccade.errors import DataError
from saccade.vlm.bulk import Row

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from saccade.model import SaccadeForConditionalGeneration

_TOLD = 8  # settings that a message names
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Asked(Protocol):
    """Something that a row answers."""

    def row(self) -> Row:
        """Return the fields that a row repeats from it, as plain JSON types."""
        ...


class Ledger:
    """Rows of answers in a file of JSON lines, in the order of their requests; made by `open_ledger`.

    Attributes:
        done: Rows that the file holds.
        failed: Errors among them.
    """

    def __init__(self, file: BinaryIO, rows: Sequence[Row]) -> None:
        self._file = file
        self.done, self.failed = 0, 0
        self._count(rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Write the next rows; they are in the file when this returns."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A file name that is no UTF-8 holds half characters, which JSON spells as this way of replacing them does.
        self._file.write(lines.encode("utf-8", errors="backslashreplace"))
        self._file.flush()
        self._count(rows)

    def _count(self, rows: Sequence[Row]) -> None:
        self.done += len(rows)
        self.failed += sum("error" in row for row in rows)


@contextmanager
def open_ledger(
    path: Path,
    settings: Mapping[str, Any],
    requests: Sequence[Asked],
    repeated: Sequence[str] = ("id", "image", "question"),
) -> Iterator[Ledger]:
    """Open a file of answers for one run, and close it at the end.

    The file belongs to one run. Its settings stand in a second file beside it, and the same settings and requests go on
    where an interrupted run stopped; a last line that was torn is dropped and answered again. While it is open no other
    process can open it so, where the system knows locks of files (Windows does not know this kind).

    Args:
        path: The file of answers; made when it is missing.
        settings: What answers depend on beside the requests, as plain JSON types.
        requests: All requests of the run.
        repeated: The fields of a row that are its request's.

    Raises:
        DataError: when the file belongs to another run, another process holds it, or it cannot be read or written.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file for the answers")
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("ab"))
            _lock(file, path)
            _claim(path, dict(settings))
            rows = _rows(path, file)
        except OSError as error:
            raise DataError(f"{path} cannot be used ({error}): choose another file for the answers") from error
        _check(path, rows, requests, repeated)
        yield Ledger(file, rows)


def fingerprint(model: SaccadeForConditionalGeneration) -> str:
    """Return a name for a model's configuration and weights, which other weights under the same path do not have."""
    whole = hashlib.sha256(model.config.to_json_string().encode())
    whole.update(weights_hash(model).encode())
    return whole.hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """Return a name for the numbers that a module's weights are, whichever dtype holds them.

    Half precision widens to float32 without loss, so a checkpoint keeps its name when it is loaded wider than it was
    saved; loaded narrower it has other weights. A matrix enters by the sums of its columns and of its rows, its bits
    read as integers that overflow: the same on every device, and nearly as quick as reading the memory. It tells apart
    what training, casting and reordering make of weights; whoever wants to can make two matrices with the same sums.
    """
    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
        bits = tensor.view(_INTEGERS[tensor.element_size()])
        sums = [bits.flatten(1).sum(side, dtype=bits.dtype) for side in (0, 1)] if bits.ndim > 1 else [bits]
        whole.update(f"{name} {list(tensor.shape)}\n".encode())
        for numbers in sums:
            whole.update(numbers.cpu().numpy().tobytes())
    return whole.hexdigest()


def flatten(fields: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return the fields of a mapping and of those inside it by their paths, such as "model.weights"."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{above}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def settings_file(path: Path) -> Path:
    """Return the file beside a file of answers that says how they were made."""
    return path.with_name(f"{path.name}.run.json")


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold the file alone; the system lets go of it when it is closed or the process ends."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another run is writing to {path}: wait for it, or choose another file") from error


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings beside a new file, or compare them with those of an old one."""
    beside = settings_file(path)
    if not path.stat().st_size:
        beside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return
    remedy = f"choose another file for the answers, or delete {path}"
    try:
        known, settings = flatten(dict(json.loads(beside.read_text(encoding="utf-8")))), flatten(settings)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} exists and {beside} does not tell how it was made ({error}): {remedy}") from error
    differ = [name for name in sorted(known.keys() | settings.keys()) if known.get(name) != settings.get(name)]
    if differ:
        told = "; ".join(f"{name} {known.get(name)!r}, not {settings.get(name)!r}" for name in differ[:_TOLD])
        told += f" and {len(differ) - _TOLD} more that differ" if len(differ) > _TOLD else ""
        raise DataError(f"{path} belongs to a run with {told}: {remedy}")


def _rows(path: Path, file: BinaryIO) -> list[Row]:
    """Return the whole lines of a file, and drop a torn one at its end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
    rows: list[Row] = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"line {number} of {path} is damaged ({error}): delete the file and ask again") from error
    return rows


def _check(path: Path, rows: Sequence[Row], requests: Sequence[Asked], repeated: Sequence[str]) -> None:
    """Compare the rows with the requests at their places."""
    if len(rows) > len(requests):
        raise DataError(f"{path} holds {len(rows)} rows but there are {len(requests)} requests: choose another file")
    for number, (row, request) in enumerate(zip(rows, requests, strict=False), 1):
        wanted = request.row()
        found = {name: row[name] for name in repeated if name in row}
        if found != wanted:
            raise DataError(
                f"line {number} of {path} answers {found}, but request {number} is {wanted}: the requests have "
                "changed, choose another file for the answers"
            )
