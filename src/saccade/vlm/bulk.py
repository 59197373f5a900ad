"""Many questions about many pictures: requests in, one row each out, in order; an error stays with its own row."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from saccade.errors import DataError, ImageError, PromptError, SaccadeWarning

if TYPE_CHECKING:
    from saccade.vlm.answers import Answer
    from saccade.vlm.inputs import CutImage, EncodedImage
    from saccade.vlm.vlm import VLM

_FIELDS = {"image", "question", "id"}
# What is wrong with a row; any other error is about the model or the options, and ends the run.
_OF_A_ROW = (ImageError, PromptError)
# Encoded pictures that are kept for later requests; one that was dropped is encoded again. A large picture in tiles is
# some ten megabytes on the model's device.
KEPT = 64

Row = dict[str, Any]
_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One question about one picture file.

    Attributes:
        path: Where the file is.
        image: How rows call it: its path as written in the file of requests, or from the folder that was walked.
        question: What is asked.
        id: The name that the file of requests gives to it.
    """

    path: Path
    image: str
    question: str
    id: str | None = None

    def row(self) -> Row:
        """Return the fields that a row repeats from its request."""
        return {**({} if self.id is None else {"id": self.id}), "image": self.image, "question": self.question}


def requests_of_folder(folder: Path, question: str, leave_out: Sequence[Path] = ()) -> list[FileRequest]:
    """Ask one question about every file below a folder, sorted by path.

    What is a picture is known only when it is opened, so every regular file is asked about, and every link to a file,
    broken ones too; hidden files and folders are not.

    Args:
        folder: Walked with all its folders; links to folders are not followed.
        question: What is asked.
        leave_out: Files below it that are not pictures, such as the one the answers go to.

    Raises:
        DataError: when there is no file, or a folder cannot be read.
    """
    skipped, names = {os.path.realpath(path) for path in leave_out}, []
    try:
        for place, folders, files in os.walk(folder, onerror=_raised):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths = [Path(place, name) for name in files if not name.startswith(".")]
            found = [path for path in paths if path.is_symlink() or path.is_file()]
            names += [path.relative_to(folder) for path in found if os.path.realpath(path) not in skipped]
    except OSError as error:
        raise DataError(f"{folder} cannot be read whole ({error}): name a folder that can") from error
    if not names:
        raise DataError(f"there is no file below {folder}: name a folder of pictures")
    return [FileRequest(folder / name, name.as_posix(), question) for name in sorted(names, key=Path.as_posix)]


def requests_of_file(file: Path, question: str | None = None) -> list[FileRequest]:
    """Read requests from lines of JSON: `{"image": ..., "question": ..., "id": ...}`.

    Args:
        file: The lines; a picture's path is absolute, or starts at the folder of this file.
        question: Asked by lines that hold no question of their own.

    Raises:
        DataError: when the file cannot be read or holds no request, or a line is not one.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): name a file of JSON lines") from error
    requests = [_request(file, n, line, question) for n, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise DataError(f'{file} holds no request: write lines such as {{"image": "photo.jpg", "question": "..."}}')
    return requests


def answer_requests(
    vlm: VLM, requests: Sequence[FileRequest], batch_size: int, max_new_tokens: int, *, skip: int = 0
) -> Iterator[list[Row]]:
    """Answer requests batch by batch with the likeliest words.

    The answers are those of asking one by one, up to rounding in half precision (see `VLM.ask_batch`). A picture goes
    through the tower once and is kept until the last request that shows it, or until `KEPT` others were asked about.

    Args:
        vlm: What is asked.
        requests: In the order of the rows.
        batch_size: Requests at once.
        max_new_tokens: Most tokens of an answer.
        skip: Requests at the start that were answered before.

    Yields:
        The rows of a batch: the request with `answer` and `finish_reason`, or with `error`, which holds `type` and
        `message`; and `warnings` where there is something to be said about the picture.

    Raises:
        OSError: when the machine fails, not a picture.
        ConfigError: when `max_new_tokens` is no number of tokens.
    """
    todo = requests[skip:]
    left = Counter(request.path for request in todo)
    seen: dict[Path, _Seen] = {}  # the one that was used last at the end
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        seen |= _see(vlm, list(dict.fromkeys(request.path for request in batch if request.path not in seen)))
        asked = [(shown, r.question) for r in batch if not isinstance(shown := seen[r.path].shown, _Error)]
        answers = iter(_each(lambda part: vlm.ask_batch(part, max_new_tokens=max_new_tokens), asked))
        rows = []
        for request in batch:
            shown, notes = seen[request.path]
            result = shown if isinstance(shown, _Error) else next(answers)
            rows.append({**request.row(), **_told(result), **({"warnings": notes} if notes else {})})
        left.subtract(request.path for request in batch)
        _forget(seen, [request.path for request in batch], left)
        yield rows


class _Error(NamedTuple):
    """What a row tells of an error; the error itself would keep alive all that its frames hold."""

    type: str
    message: str


class _Seen(NamedTuple):
    """A picture that was encoded, or why it was not, and what is to be said about it."""

    shown: EncodedImage | _Error
    notes: list[str]


def _raised(error: OSError) -> NoReturn:
    raise error


def _request(file: Path, number: int, line: str, question: str | None) -> FileRequest:
    """Check one line of a file of requests."""
    where = f"line {number} of {file}"
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error}): write one object a line") from error
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise DataError(f"{where} is not an object of strings: write image, question and, if you like, id")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise DataError(f"{where} has the unknown fields {', '.join(unknown)}: it may hold image, question and id")
    if "image" not in fields:
        raise DataError(f"{where} names no image: add the path of a picture")
    asked = fields.get("question", question)
    if asked is None:
        raise DataError(f"{where} holds no question: add one there, or give one for all lines")
    return FileRequest(file.parent / fields["image"], fields["image"], asked, fields.get("id"))


def _see(vlm: VLM, paths: Sequence[Path]) -> dict[Path, _Seen]:
    """Open files one after the other, and run the tower on those that are pictures at once."""
    cut = {path: _cut(vlm, path) for path in paths}
    whole = iter(vlm.encode_batch([image for image, _ in cut.values() if not isinstance(image, _Error)]))
    return {
        path: _Seen(image if isinstance(image, _Error) else next(whole), notes) for path, (image, notes) in cut.items()
    }


def _cut(vlm: VLM, path: Path) -> tuple[CutImage | _Error, list[str]]:
    """Open a file and cut it; return with it what is to be said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SaccadeWarning)
        (image,) = _each(lambda part: [vlm.cut(path) for path in part], [path])
    return image, [str(note.message) for note in caught if issubclass(note.category, SaccadeWarning)]


def _forget(seen: dict[Path, _Seen], used: Sequence[Path], left: Counter[Path]) -> None:
    """Drop the pictures that no request shows any more, and those used longest ago beyond `KEPT`."""
    for path in dict.fromkeys(used):
        last = seen.pop(path)
        if left[path]:
            seen[path] = last
    for path in list(seen)[:-KEPT]:
        del seen[path]


def _each(work: Callable[[Sequence[_Input]], Sequence[_Output]], inputs: Sequence[_Input]) -> list[_Output | _Error]:
    """Work on a batch; one that fails is halved until the error stands alone in its place."""
    try:
        return [*work(inputs)]
    except _OF_A_ROW as error:
        if len(inputs) == 1:
            return [_Error(type(error).__name__, str(error))]
        half = len(inputs) // 2
        return [*_each(work, inputs[:half]), *_each(work, inputs[half:])]


def _told(result: Answer | _Error) -> Row:
    if isinstance(result, _Error):
        return {"error": result._asdict()}
    return {"answer": result.text, "finish_reason": result.finish_reason}
