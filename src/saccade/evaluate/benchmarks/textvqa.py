"""TextVQA: questions about text in pictures, each answered by ten people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.metrics import normalize_answer, vqa_accuracy

COLUMNS = ("question_id", "image_id", "question", "answers")
PEOPLE = 10


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    for where, fields in json_fields(file):
        name = f"{fields.get('image_id')}.jpg"
        yield where, fields, [file.parent / "train_images" / name, file.parent / name]


def _sample(row: Row, protocol: Protocol) -> Sample:
    question, answers = row.text("question"), row.texts("answers")
    if len(answers) != PEOPLE:
        raise row.bad("answers", f"holds {len(answers)} answers, not those of {PEOPLE} people")
    if protocol.tool == "lmms-eval":
        question = question.capitalize()  # which makes all but the first letter small
    details = {"tool": protocol.tool}
    return Sample(
        row.text("question_id"), (), question + protocol.suffix, answers, unit=row.text("image_id"), details=details
    )


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    return Samples((_sample(row, protocol), row.picture) for row in open_rows(files, COLUMNS, _of_json))


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    first_words = sample.details["tool"] == "lmms-eval"
    return {
        "score": vqa_accuracy(said, sample.answers, first_words=first_words),
        "parsed": normalize_answer(said, first_words=first_words),
    }


TEXTVQA = described("textvqa", _read, _judge, mean_by_group("accuracy"))
