"""DocVQA: questions about scanned pages, scored by how near an answer comes to one that people gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.metrics import anls

COLUMNS = ("questionId", "docId", "question", "answers")


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    for where, fields in json_fields(file):
        name = str(fields.get("image"))
        folders = (file.parent, file.parent.parent)
        images = [folder / "spdocvqa_images" / Path(name).name for folder in folders]
        yield where, fields, [*(folder / name for folder in folders), *images]


def _sample(row: Row, protocol: Protocol) -> Sample:
    return Sample(
        row.text("questionId"),
        (),
        row.text("question") + protocol.suffix,
        row.texts("answers"),  # those of the test split are not published, its rows hold none
        unit=row.optional("docId"),
    )


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    return Samples((_sample(row, protocol), row.picture) for row in open_rows(files, COLUMNS, _of_json))


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    return {"score": anls(said, sample.answers)}


DOCVQA = described("docvqa", _read, _judge, mean_by_group("anls"))
