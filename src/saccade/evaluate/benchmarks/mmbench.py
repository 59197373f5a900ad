"""MMBench, and questions of one's own in its form: right only if right in every rotation of the options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described
from saccade.evaluate.benchmarks.choices import (
    answer_of,
    ask,
    ask_with_hint,
    cell,
    circular,
    details,
    letter_judge,
    lettered,
    options_of,
    rotations,
)
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.letters import Options, stated_letter
from saccade.image import ImageSource

COLUMNS = ("index", "g_index", "question", "hint", "category", "A", "B", "C", "D", "E", "answer")
ROTATED = 10**6  # a rotation of the question with an index has it plus a multiple of this
LETTERS_JUDGED = 4  # what lmms-eval's judging of MMBench, which own questions are judged by, looks for in all forms
_INTRODUCTION = "There are several options:"

Part = tuple[Sample, Callable[[], ImageSource]]


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    for where, fields in json_fields(file):
        yield where, fields, [file.parent / str(fields.get("image"))]


def _prompt(row: Row, options: Options, protocol: Protocol) -> str:
    question, hint = row.text("question"), cell(row, "hint")
    if protocol.tool != "lmms-eval":
        return ask_with_hint(hint, question, options, protocol)
    return ask(f"{hint} {question} {_INTRODUCTION}\n{lettered(options)}".removeprefix(" "), protocol)


def _published(row: Row, protocol: Protocol) -> Iterator[Part]:
    """Yield a row as it is: the tables hold the rotations."""
    index, options = row.text("index"), options_of(row, "options")
    if not index.isdecimal():
        raise row.bad("index", f"is {index!r}, no number")
    unit = cell(row, "g_index") or str(int(index) % ROTATED)
    answer, prompt = answer_of(row, options), _prompt(row, options, protocol)
    yield (
        Sample(index, (), prompt, (answer,), cell(row, "category"), unit, details(options, protocol)),
        row.picture,
    )


def _rotated(row: Row, protocol: Protocol) -> Iterator[Part]:
    """Yield every rotation of a row; raises DataError where it has options that the tool's judging would not find."""
    unit, options = cell(row, "index") or str(row.number), options_of(row, "options")
    if protocol.tool == "lmms-eval" and len(options) > LETTERS_JUDGED:
        raise DataError(
            f"{row.where} has {len(options)} options, and lmms-eval's judging finds {LETTERS_JUDGED}: ask as "
            "VLMEvalKit does, with --protocol"
        )
    for number, (turned, answer) in enumerate(rotations(options, answer_of(row, options))):
        prompt, needed = _prompt(row, turned, protocol), details(turned, protocol)
        yield Sample(f"{unit}/{number}", (), prompt, (answer,), cell(row, "category"), unit, needed), row.picture


def _reader(parts: Callable[[Row, Protocol], Iterator[Part]]) -> Callable[[Sequence[Path], Protocol], Samples]:
    def read(files: Sequence[Path], protocol: Protocol) -> Samples:
        return Samples(part for row in open_rows(files, COLUMNS, _of_json) for part in parts(row, protocol))

    return read


MMBENCH = described("mmbench", _reader(_published), letter_judge(stated_letter), circular)
CHOICES = described("choices", _reader(_rotated), letter_judge(stated_letter), circular)
