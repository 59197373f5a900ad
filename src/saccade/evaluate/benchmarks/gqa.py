"""GQA: questions made from the scene graphs of photographs, answered by a word or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saccade.data.tables import Table
from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.files import Row, json_object, json_question, json_row, table_rows, table_texts
from saccade.evaluate.metrics import exact_match

COLUMNS = ("id", "imageId", "question", "answer")
_QUESTIONS, _IMAGES = "_instructions", "_images"  # the hub keeps the two in folders that differ by these


def _of_tables(files: Sequence[Path]) -> Iterator[Row]:
    """Yield the rows of the hub's tables: questions in one, the pictures that they name in another."""
    folder = files[0].parent
    beside = folder.with_name(folder.name.replace(_QUESTIONS, _IMAGES))
    images = sorted(beside.glob("*.parquet")) if beside != folder else []
    if not images:
        raise DataError(f"{files[0]}: the pictures are not beside it: fetch the folder {beside.name} of the set too")
    pictures = {row.text("id"): row.picture for row in table_rows(images, ("id",))}
    for number, (where, fields) in enumerate(table_texts(Table.of_files(files, folder), COLUMNS)):
        if fields.get("imageId") not in pictures:
            raise DataError(f"{where}: {beside} holds no picture {fields.get('imageId')!r}: fetch the set again")
        yield Row(where, number, fields, pictures[fields["imageId"]])


def _of_json(files: Sequence[Path]) -> Iterator[Row]:
    for file in files:
        for number, (key, held) in enumerate(json_object(file).items()):
            where = f"{file}[{key!r}]"
            fields = json_question(where, held)
            name = f"{fields.get('imageId')}.jpg"
            places = [folder / "images" / name for folder in (file.parent, file.parent.parent)]
            yield json_row(where, number, {"id": key, **fields}, places)


def _sample(row: Row, protocol: Protocol) -> Sample:
    question, answer = row.text("question") + protocol.suffix, row.text("answer")
    return Sample(row.text("id"), (), question, (answer,), unit=row.text("imageId"), details={"tool": protocol.tool})


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    rows = _of_tables(files) if files[0].suffix == ".parquet" else _of_json(files)
    return Samples((_sample(row, protocol), row.picture) for row in rows)


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    punctuation = sample.details["tool"] != "lmms-eval"
    return {"score": exact_match(said, sample.answers[0], punctuation=punctuation)}


GQA = described("gqa", _read, _judge, mean_by_group("accuracy"))
