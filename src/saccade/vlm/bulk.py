"""Many questions about many pictures: requests in, one row each out, in order; an error stays with its own row."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saccade.errors import DataError, ImageError, PromptError, SaccadeError, SaccadeWarning
from saccade.image.transform import open_image

if TYPE_CHECKING:
    from saccade.vlm.answers import Answer
    from saccade.vlm.inputs import EncodedImage
    from saccade.vlm.vlm import VLM

_FIELDS = {"image", "question", "id"}
# What is wrong with a row; any other error is about the model or the options, and ends the run.
_OF_A_ROW = (ImageError, PromptError)

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

    What is a picture is known only when it is opened, so every regular file is asked about; hidden files and folders
    are not.

    Args:
        folder: Walked with all its folders; links to folders are not followed.
        question: What is asked.
        leave_out: Files below it that are not pictures, such as the one the answers go to.

    Raises:
        DataError: when there is no file.
    """
    skipped = {path.resolve() for path in leave_out}
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(place, name) for name in files if not name.startswith(".")]
        names += [path.relative_to(folder) for path in paths if path.is_file() and path.resolve() not in skipped]
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
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): name a file of JSON lines") from error
    requests = [_request(file, n, line, question) for n, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise DataError(f'{file} holds no request: write lines such as {{"image": "photo.jpg", "question": "..."}}')
    return requests


def answer_requests(
    vlm: VLM, requests: Sequence[FileRequest], batch_size: int, max_new_tokens: int, *, skip: int = 0
) -> Iterator[list[Row]]:
    """Answer requests batch by batch with the likeliest words; the answers are those of asking one by one.

    A picture goes through the tower once and is kept until the last request that shows it.

    Args:
        vlm: What is asked.
        requests: In the order of the rows.
        batch_size: Requests at once.
        max_new_tokens: Most tokens of an answer.
        skip: Requests at the start that were answered before.

    Yields:
        The rows of a batch: the request with `answer` and `finish_reason`, or with `error`, which holds `type` and
        `message`; and `warnings` where there is something to be said about the picture.
    """
    todo = requests[skip:]
    left = Counter(request.path for request in todo)
    seen: dict[Path, EncodedImage | SaccadeError] = {}
    notes: dict[Path, list[str]] = {}
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        fresh = list(dict.fromkeys(request.path for request in batch if request.path not in seen))
        seen |= zip(fresh, _encode(vlm, fresh, notes), strict=True)
        asked = [(shown, r.question) for r in batch if not isinstance(shown := seen[r.path], SaccadeError)]
        answers = iter(_each(lambda part: vlm.ask_batch(part, max_new_tokens=max_new_tokens), asked))
        rows = []
        for request in batch:
            shown = seen[request.path]
            result = shown if isinstance(shown, SaccadeError) else next(answers)
            told = notes.get(request.path)
            rows.append({**request.row(), **_told(result), **({"warnings": told} if told else {})})
            left[request.path] -= 1
            if not left[request.path]:
                del seen[request.path]
                notes.pop(request.path, None)
        yield rows


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


def _encode(vlm: VLM, paths: Sequence[Path], notes: dict[Path, list[str]]) -> list[EncodedImage | SaccadeError]:
    """Run the tower on files; what is to be said about a file goes into `notes`."""

    def opened(part: Sequence[Path]) -> list[Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SaccadeWarning)
            images = [open_image(path, vlm.model.config.image.max_pixels) for path in part]
        said = [str(note.message) for note in caught if issubclass(note.category, SaccadeWarning)]
        notes.update((path, said) for path in part if said)
        return images

    images = [image for path in paths for image in _each(opened, [path])]
    whole = iter(_each(vlm.encode_batch, [image for image in images if not isinstance(image, SaccadeError)]))
    return [image if isinstance(image, SaccadeError) else next(whole) for image in images]


def _each(
    work: Callable[[Sequence[_Input]], Sequence[_Output]], inputs: Sequence[_Input]
) -> list[_Output | SaccadeError]:
    """Work on a batch; one that fails is halved until the error stands alone in its place."""
    try:
        return [*work(inputs)]
    except _OF_A_ROW as error:
        if len(inputs) == 1:
            return [error]
        half = len(inputs) // 2
        return [*_each(work, inputs[:half]), *_each(work, inputs[half:])]


def _told(result: Answer | SaccadeError) -> Row:
    if isinstance(result, SaccadeError):
        return {"error": {"type": type(result).__name__, "message": str(result)}}
    return {"answer": result.text, "finish_reason": result.finish_reason}
