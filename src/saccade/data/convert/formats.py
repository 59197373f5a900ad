"""Published record formats, each turned into a row of ours: plain dictionaries, pictures still as they were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import Any, Literal

from saccade.config import Frozen
from saccade.data.formats import PLACEHOLDER
from saccade.data.rows import Kind
from saccade.errors import DataError

_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}

Picture = str | bytes  # a path as the record spells it, or the bytes of a picture file
Row = dict[str, Any]  # "image" holds a list of `Picture`


class Columns(Frozen):
    """Where a data set keeps what.

    Attributes:
        picture: Column of the picture or pictures, or a file name made of other columns, such as `{id}.jpg`.
        question: Columns of the question, joined by newlines; empty ones are passed over.
        ask: What to ask where no column holds a question.
        answer: Column of the answer; of a list of answers the most frequent one, of several such the first.
        placeholder: How the data set spells the place of a picture in a text.
    """

    picture: str = "image"
    question: tuple[str, ...] = ()
    ask: str | None = None
    answer: str = "answer"
    placeholder: str = PLACEHOLDER


@dataclass(frozen=True)
class Dropped:
    """A sound record of which no row is made.

    Attributes:
        reason: Why; records are counted by it.
    """

    reason: str


Format = Callable[[Mapping[str, Any], Columns, Kind], Row | Dropped]


def conversation(record: Mapping[str, Any], columns: Columns, kind: Kind) -> Row:
    """Turn a conversation (LLaVA's `conversations`, or `messages` of role and content) into a chat row.

    A conversation with pictures but no placeholder gets them in front of its first question, where LLaVA shows them.

    Raises:
        DataError: when it has no turns, a turn has no text or an unknown speaker, or placeholders and pictures differ.
    """
    said = record.get("conversations") or record.get("messages") or record.get("conversation")
    if not said:
        raise DataError("holds no conversation")
    turns = [_turn(turn, columns.placeholder) for turn in said]
    pictures = _pictures(record, columns)
    asked = [turn for turn in turns if turn["from"] == "human"]
    if not asked:
        raise DataError("holds no turn of a human")
    placed = sum(turn["value"].count(PLACEHOLDER) for turn in asked)
    if pictures and not placed:
        asked[0]["value"] = f"{PLACEHOLDER}\n" * len(pictures) + asked[0]["value"]
    elif placed != len(pictures):
        raise DataError(f"holds {len(pictures)} pictures but {placed} placeholders for pictures")
    return {"image": pictures, "conversations": turns}


def question(record: Mapping[str, Any], columns: Columns, kind: Kind) -> Row:
    """Turn columns of question and answer into a chat row, a problem with its solution, or a caption.

    Raises:
        DataError: when a column is missing or empty.
    """
    pictures = _pictures(record, columns)
    answer = _text(_most_frequent(record.get(columns.answer)), columns.answer)
    if kind == "captions":
        return {"image": pictures, "caption": answer}
    texts = [text for text in (record.get(name) for name in columns.question) if text]
    asked = _text("\n".join(map(str, texts)) or columns.ask, " or ".join(columns.question))
    if kind == "problems":
        return {"image": pictures, "problem": asked, "solution": answer}
    asked = f"{PLACEHOLDER}\n" * len(pictures) + asked.replace(columns.placeholder, "").strip()
    return {"image": pictures, "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]}


def feedback(record: Mapping[str, Any], columns: Columns, kind: Kind) -> Row | Dropped:
    """Turn rated answers (VLFeedback, arXiv 2410.09421) into a pair: the best mean rating against the worst.

    Flash-VL's paper does not say how its pairs were made; this is the widest margin that the ratings give. An answer
    that is not rated by a number on every aspect cannot be ranked and takes no part.

    Returns:
        A preference row, or that the ratings tell no two answers apart, or prefer an answer to itself.

    Raises:
        DataError: when prompt, picture or answers are missing.
    """
    prompt = _text(record.get("prompt"), "prompt")
    answers = _rows_of(record.get("completions"))
    if not answers:
        raise DataError("holds no completions")
    rated = [(rating, answer) for answer in answers if (rating := _mean_rating(answer)) is not None]
    if len(rated) < 2:
        return Dropped("fewer than two rated answers")
    best, worst = (pick(rated, key=lambda pair: pair[0]) for pick in (max, min))
    if best[0] == worst[0]:
        return Dropped("ties")
    if best[1].get("response") == worst[1].get("response"):
        return Dropped("one answer rated twice")
    return {
        "image": _pictures(record, columns),
        "prompt": prompt,
        "chosen": _text(best[1].get("response"), "response"),
        "rejected": _text(worst[1].get("response"), "response"),
    }


FORMATS: dict[str, Format] = {
    "conversation": conversation,
    "question": question,
    "feedback": feedback,
}
FormatName = Literal["conversation", "question", "feedback"]


def _turn(turn: Mapping[str, Any], placeholder: str) -> dict[str, str]:
    speaker = turn.get("from", turn.get("role"))
    if speaker not in _SPEAKERS:
        raise DataError(f"a turn is said by {speaker!r}: known are {', '.join(_SPEAKERS)}")
    text = turn.get("value", turn.get("content"))
    return {
        "from": _SPEAKERS[speaker],
        "value": _text(text, f"the turn of {speaker}").replace(placeholder, PLACEHOLDER),
    }


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"holds no text for {name}")
    return value


def _most_frequent(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return Counter(value).most_common(1)[0][0]
    return value


def _pictures(record: Mapping[str, Any], columns: Columns) -> list[Picture]:
    if "{" in columns.picture:
        return [columns.picture.format_map(record)]
    found = record.get(columns.picture)
    return [_picture(one) for one in (found if isinstance(found, list) else [found] if found else [])]


def _picture(value: Any) -> Picture:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str | bytes) or not value:
        raise DataError("a picture is neither a path nor the bytes of a file")
    return value


def _rows_of(table: Any) -> list[Mapping[str, Any]]:
    """Rows of a table, which `datasets` writes column by column."""
    if isinstance(table, Mapping):
        return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return list(table or [])


def _mean_rating(answer: Mapping[str, Any]) -> float | None:
    try:
        rating = mean(float(aspect["Rating"]) for aspect in answer["annotations"].values())
    except (ValueError, TypeError, KeyError):  # "N/A", no rating, no aspects
        return None
    return rating if isfinite(rating) else None
