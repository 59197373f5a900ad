"""Questions with lettered options: how the tools word them, how their judges find the letter, circular evaluation."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Judge, Judgment, Protocol, Sample, whole_units
from saccade.evaluate.benchmarks.files import Row
from saccade.evaluate.letters import Options, mentioned_letter

_CHINESE = re.compile("[\u4e00-\u9fff]")
_MISSING = "nan"  # how some tables write a cell that is empty


def cell(row: Row, column: str) -> str:
    """Return the text of a cell, empty where it is missing."""
    held = row.fields.get(column)
    is_empty = held == _MISSING or (isinstance(held, float) and math.isnan(held))
    return "" if is_empty else row.optional(column)


def options_of(row: Row, column: str) -> dict[str, str]:
    """Return the options of a row by their letters: a list in a column, or a column for each letter.

    Raises:
        DataError: when there are fewer than two, more than letters, or a letter between two is missing.
    """
    if row.fields.get(column) is not None:
        texts = row.texts(column)
        if len(texts) > len(string.ascii_uppercase):
            raise row.bad(column, f"holds {len(texts)} options: there are {len(string.ascii_uppercase)} letters")
        found = dict(zip(string.ascii_uppercase, texts, strict=False))
    else:
        found = {letter: text for letter in string.ascii_uppercase if (text := cell(row, letter))}
    if len(found) < 2 or "".join(found) != string.ascii_uppercase[: len(found)]:
        raise row.bad(column, f"holds the options {', '.join(found) or 'none'}: there must be A, B and so on")
    return found


def answer_of(row: Row, options: Options) -> str:
    """Return the letter of the right option, which tables hold as a letter or as a number from 0.

    Raises:
        DataError: when it is missing, as in splits that are scored by their authors, or names no option.
    """
    held = cell(row, "answer")
    if not held:
        raise row.bad("answer", "is empty, as in splits that are scored by their authors: name a split with answers")
    letter = list(options)[int(held)] if held.isdecimal() and int(held) < len(options) else held
    if letter not in options:
        raise row.bad("answer", f"is {held!r}, none of {', '.join(options)}")
    return letter


def lettered(options: Options) -> str:
    """Return the options, a line each."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def ask(question: str, protocol: Protocol) -> str:
    """Return a question with the protocol's request behind it, in Chinese where the question is."""
    is_chinese = protocol.suffix_chinese is not None and _CHINESE.search(question)
    return question + (protocol.suffix_chinese if is_chinese and protocol.suffix_chinese else protocol.suffix)


def ask_with_hint(hint: str, question: str, options: Options, protocol: Protocol) -> str:
    """Return a question as VLMEvalKit's wrapper words it: hint, question and options, a line each."""
    return ask("\n".join([*([hint] if hint else []), question, lettered(options)]), protocol)


def details(options: Options, protocol: Protocol) -> dict[str, Any]:
    """Return what the judge needs."""
    return {"tool": protocol.tool, "options": dict(options)}


def letter_judge(of_lmms_eval: Callable[[str, Options], str]) -> Judge:
    """Return the judge that takes an answer for right whose letter is that of the right option.

    Args:
        of_lmms_eval: How lmms-eval finds the letter in this set. VLMEvalKit has one way for all.
    """

    def judge(sample: Sample, said: str) -> dict[str, Any]:
        find = of_lmms_eval if sample.details["tool"] == "lmms-eval" else mentioned_letter
        letter = find(said, sample.details["options"])
        return {"score": float(letter == sample.answers[0]), "parsed": letter}

    return judge


def rotations(options: Mapping[str, str], answer: str) -> list[tuple[dict[str, str], str]]:
    """Return every rotation of options, as they are first, each with the letter of the right one.

    MMBench, arXiv 2307.06281, section 4.3 (CircularEval): a model that likes a letter cannot be right in all of them.
    """
    letters, texts = list(options), list(options.values())
    return [
        (
            dict(zip(letters, texts[shift:] + texts[:shift], strict=True)),
            letters[(letters.index(answer) - shift) % len(letters)],
        )
        for shift in range(len(letters))
    ]


def circular(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
    """Return the fraction of questions right in every rotation, of single rotations, and of questions by group."""
    right: dict[str, float] = {"accuracy": 0.0}
    asked: dict[str, float] = {"accuracy": 0.0}
    for sample, (is_whole, share) in zip(samples, whole_units(samples, judged), strict=True):
        for name in ("accuracy", *([sample.group] if sample.group else [])):
            right[name] = right.get(name, 0.0) + share * is_whole
            asked[name] = asked.get(name, 0.0) + share
    scores = {name: right[name] / asked[name] for name in right}
    single = sum(judgment["score"] for judgment in judged) / len(judged)
    return {"accuracy": scores.pop("accuracy"), "single rotations": single, **scores}
