"""Formats: records become rows. Whatever does not fit is an error of its row; nothing is repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from saccade.data.records import Record
from saccade.data.rows import CaptionRow, ChatRow, Kind, PreferenceRow, ProblemRow, Reason, Row, RowError
from saccade.errors import PromptError
from saccade.image import ImageSource
from saccade.prompt import Turn, parse_messages

# How training data writes where a picture belongs.
PLACEHOLDER = "<image>"
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TALKS = ("conversations", "messages")
_PICTURES = ("image", "images")


def parse_row(record: Record, kind: Kind) -> Row:
    """Return the row that a record holds.

    A talk is `conversations` as LLaVA writes them (`from`, `value`) or `messages` in transformers' chat format (`role`,
    `content`); `image` or `images` is a picture or a list of them. A placeholder `<image>` stands before or after the
    text of a message of the user, one for each picture; the template shows the pictures before the text.

    Args:
        record: Its fields. A chat needs a talk. A caption needs `caption`, or a talk of one question, which the plain
            form leaves out, and its answer. A preference needs `prompt`, a text or messages, `chosen` and `rejected`; a
            problem `problem`, the same, and `solution`. Other fields have no meaning.
        kind: What the row is to be.

    Raises:
        RowError: when it is not that.
    """
    return _PARSERS[kind](record)


def _chat(record: Record) -> ChatRow:
    name = next((name for name in _TALKS if record.fields.get(name) is not None), None)
    if name is None:
        raise _bad(record, f"has neither {_TALKS[0]} nor {_TALKS[1]}: add one, or name another kind of rows")
    turns, pictures = _talk(record, name)
    if turns[-1].role != "assistant":
        raise _bad(record, "ends with a question: add its answer, or leave it out", "order of roles")
    return ChatRow(record.where, pictures, turns)


def _caption(record: Record) -> CaptionRow:
    if record.fields.get("caption") is None:
        talk = _chat(record)
        if [turn.role for turn in talk.turns] != ["user", "assistant"]:
            raise _bad(record, "is no caption but a talk of several turns: name the kind chat")
        row = CaptionRow(record.where, talk.pictures, talk.turns[-1].text)
    else:
        row = CaptionRow(record.where, _pictures(record), _said(record, "caption"))
    if not row.pictures:
        raise _bad(record, "has a caption but no picture: add image", "missing picture")
    return row


def _preference(record: Record) -> PreferenceRow:
    turns, pictures = _question(record, "prompt")
    chosen, rejected = _said(record, "chosen"), _said(record, "rejected")
    if chosen == rejected:
        raise _bad(record, "prefers an answer to itself: leave it out", "chosen equals rejected")
    return PreferenceRow(record.where, pictures, turns, chosen, rejected)


def _problem(record: Record) -> ProblemRow:
    turns, pictures = _question(record, "problem")
    return ProblemRow(record.where, pictures, turns, _said(record, "solution"))


_PARSERS: Mapping[Kind, Callable[[Record], Row]] = {
    "chat": _chat,
    "captions": _caption,
    "preferences": _preference,
    "problems": _problem,
}


def picture_field(where: str, fields: Mapping[str, Any]) -> Any:
    """Return what a record holds as `image` or `images`, None where there is nothing; raises RowError for both."""
    given = [fields[name] for name in _PICTURES if fields.get(name) not in (None, "", [])]
    if len(given) > 1:
        raise RowError.at(where, "has both image and images: keep one of the two")
    return given[0] if given else None


def _bad(record: Record, sentence: str, reason: Reason = "malformed") -> RowError:
    return RowError.at(record.where, sentence, reason)


def _said(record: Record, name: str) -> str:
    """Return a text that is trained or compared with."""
    text = record.fields.get(name)
    if not isinstance(text, str):
        raise _bad(record, f"has no text {name}: add it, or name another kind of rows")
    if not text.strip():
        raise _bad(record, f"has an empty {name}: write it, or leave the row out", "empty answer")
    if PLACEHOLDER in text:
        raise _bad(record, f"holds {PLACEHOLDER} in its {name}: pictures belong to a question", "placeholder count")
    return text


def _question(record: Record, name: str) -> tuple[tuple[Turn, ...], tuple[ImageSource, ...]]:
    """Return the turns up to a question; a text without placeholders is asked about all pictures of the row."""
    asked = record.fields.get(name)
    if isinstance(asked, str):
        pictures = _pictures(record)
        shown, text = _without_placeholders(record, asked)
        if not text.strip():
            raise _bad(record, f"has an empty {name}: write it, or leave the row out")
        question = Turn("user", text, shown or len(pictures))
        _check_count(record, [question], pictures)
        return (question,), pictures
    turns, pictures = _talk(record, name)
    if turns[-1].role != "user":
        raise _bad(record, f"has a {name} that ends with an answer: end it with a question", "order of roles")
    return turns, pictures


def _talk(record: Record, name: str) -> tuple[tuple[Turn, ...], tuple[ImageSource, ...]]:
    """Return the checked turns of a list of messages, and the pictures, which the messages themselves may hold."""
    messages = record.fields.get(name)
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise _bad(record, f"has no list of messages {name}: add it, or name another kind of rows")
    normal = [_message(record, number, message) for number, message in enumerate(messages)]
    try:
        turns = tuple(parse_messages(normal))
    except PromptError as error:
        roles = [message["role"] for message in normal if message["role"] != "system"]
        alternate = roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
        raise _bad(record, str(error), "malformed" if alternate and roles else "order of roles") from error
    for number, turn in enumerate(turns):
        if turn.role == "assistant" and not turn.text.strip():
            raise _bad(record, f"has an empty answer, message {number}: write it, or leave it out", "empty answer")
    held = [
        part["image"]
        for message in normal
        for part in message["content"]
        if isinstance(part, Mapping) and "image" in part
    ]
    pictures = _pictures(record)
    if held and pictures:
        raise _bad(record, "holds pictures both in its messages and beside them: keep one of the two")
    pictures = pictures or tuple(_source(record, value) for value in held)
    _check_count(record, turns, pictures)
    return turns, pictures


def _message(record: Record, number: int, message: Any) -> dict[str, Any]:
    """Return a message in transformers' chat format, its placeholders made parts."""
    if not isinstance(message, Mapping):
        raise _bad(record, f"has a message {number} that is no object: write from and value, or role and content")
    speaker = message["from"] if message.get("from") is not None else message.get("role")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise _bad(
            record, f"has a message {number} from {speaker!r}: write one of {', '.join(_SPEAKERS)}", "unknown role"
        )
    role = _SPEAKERS[speaker]
    content = message["value"] if message.get("value") is not None else message.get("content")
    if isinstance(content, str):
        return {"role": role, "content": _parts(record, role, content)}
    if not isinstance(content, Sequence):
        raise _bad(record, f"has a message {number} without text: write value or content")
    parts: list[Any] = []
    for part in content:
        said = isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        parts += _parts(record, role, part["text"]) if said else [_picture_part(part)]
    return {"role": role, "content": parts}


def _picture_part(part: Any) -> Any:
    """Return a part with its picture, where it holds one, called `image`; columns of tables are empty where unused."""
    if not isinstance(part, Mapping):
        return part
    held = next((part[name] for name in ("image", "path", "url") if part.get(name) is not None), None)
    return {"type": part.get("type")} | ({} if held is None else {"image": held})


def _parts(record: Record, role: str, text: str) -> list[dict[str, str]]:
    shown, text = _without_placeholders(record, text)
    if shown and role != "user":
        raise _bad(
            record, f"holds {PLACEHOLDER} in a message of the {role}: move it to a question", "placeholder count"
        )
    return [{"type": "image"}] * shown + [{"type": "text", "text": text}] * (bool(text) or not shown)


def _without_placeholders(record: Record, text: str) -> tuple[int, str]:
    """Take the placeholders before and after a text away, with the blanks beside them, and count them."""
    shown = 0
    while text.lstrip().startswith(PLACEHOLDER):
        text, shown = text.lstrip().removeprefix(PLACEHOLDER).lstrip(), shown + 1
    while text.rstrip().endswith(PLACEHOLDER):
        text, shown = text.rstrip().removesuffix(PLACEHOLDER).rstrip(), shown + 1
    if PLACEHOLDER in text:
        raise _bad(
            record,
            f"has {PLACEHOLDER} inside a text, but the template shows pictures before it: move it to the front, and "
            "say in words which picture is meant",
            "placeholder count",
        )
    return shown, text


def _check_count(record: Record, turns: Sequence[Turn], pictures: Sequence[ImageSource]) -> None:
    """Raise RowError unless turns show exactly the pictures of the row."""
    shown = sum(turn.images for turn in turns)
    if shown != len(pictures):
        raise _bad(
            record,
            f"has {len(pictures)} pictures and {shown} placeholders {PLACEHOLDER}: write one for each picture where it "
            "is shown first",
            "placeholder count",
        )


def _pictures(record: Record) -> tuple[ImageSource, ...]:
    """Return the pictures that a record names or holds beside its texts."""
    given = picture_field(record.where, record.fields)
    values = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(_source(record, value) for value in values)


def _source(record: Record, value: Any) -> ImageSource:
    """Return a picture as `open_image` takes it."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    elif isinstance(value, Mapping):
        value = value.get("path")
    if isinstance(value, bytes | Image.Image | np.ndarray):
        return value
    if not isinstance(value, str | PathLike) or not str(value):
        raise _bad(record, f"names a picture by {value!r}: write a path", "missing picture")
    if "://" in str(value):
        raise _bad(record, f"names the picture by its address {value}: fetch it, and write its path", "missing picture")
    if record.folder is None:
        raise _bad(record, f"names the picture {value}: say in which folder pictures are (pictures)", "missing picture")
    return record.folder / value
