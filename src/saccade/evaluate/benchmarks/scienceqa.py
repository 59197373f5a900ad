"""ScienceQA: school questions with options, those that come with a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.choices import (
    answer_of,
    ask,
    ask_with_hint,
    cell,
    details,
    letter_judge,
    lettered,
    options_of,
)
from saccade.evaluate.benchmarks.files import Row, json_object, json_question, open_rows
from saccade.evaluate.letters import plain_letter

COLUMNS = ("question", "choices", "answer", "hint", "subject")
SPLIT = "test"


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    for key, held in json_object(file).items():
        where = f"{file}[{key!r}]"
        fields = json_question(where, held)
        if fields.get("split") == SPLIT and (name := fields.get("image")):
            folders = (file.parent / "images", file.parent)
            yield where, {"index": key, **fields}, [folder / SPLIT / key / str(name) for folder in folders]


def _sample(row: Row, protocol: Protocol) -> Sample:
    question, hint, options = row.text("question"), cell(row, "hint"), options_of(row, "choices")
    if protocol.tool == "lmms-eval":
        context = f"Context: {hint}\n" if hint else ""
        prompt = ask(f"{context}{question}\n{lettered(options)}", protocol)
    else:
        prompt = ask_with_hint(hint, question, options, protocol)
    key, group = row.optional("index") or str(row.number), cell(row, "subject") or cell(row, "category")
    answer, needed = answer_of(row, options), details(options, protocol)
    return Sample(key, (), prompt, (answer,), group, row.picture_name(), needed)


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    return Samples((_sample(row, protocol), row.picture) for row in open_rows(files, COLUMNS, _of_json))


SCIENCEQA = described("scienceqa", _read, letter_judge(plain_letter), mean_by_group("accuracy"))
