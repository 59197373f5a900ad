"""ChartQA: questions about charts, written by people or made from captions, with a tolerance for numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.metrics import relaxed_accuracy

COLUMNS = ("type", "question", "answer")


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    kind = "human" if file.stem.endswith("human") else "augmented"
    for where, fields in json_fields(file):
        row = {"type": kind, "question": fields.get("query"), "answer": fields.get("label")}
        yield where, row, [file.parent / "png" / str(fields.get("imgname"))]


def _sample(row: Row, protocol: Protocol) -> Sample:
    kind = "human" if row.text("type").startswith("human") else "augmented"
    question, answer = row.text("question") + protocol.suffix, row.text("answer")
    return Sample(str(row.number), (), question, (answer,), f"{kind} questions", row.picture_name())


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    return Samples((_sample(row, protocol), row.picture) for row in open_rows(files, COLUMNS, _of_json))


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    return {"score": relaxed_accuracy(said, sample.answers[0])}


CHARTQA = described("chartqa", _read, _judge, mean_by_group("relaxed accuracy"))
