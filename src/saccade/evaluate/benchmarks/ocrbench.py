"""OCRBench: a thousand questions about text in pictures, right where the answer holds an accepted one."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import (
    Judgment,
    Protocol,
    Sample,
    Samples,
    described,
    mean_by_group,
)
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.metrics import contains

COLUMNS = ("question", "question_type", "answer")
FULL = 1000  # questions, of a point each
FORMULAS = "Handwritten Mathematical Expression Recognition"  # all of HME100k, and nothing else


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    for where, fields in json_fields(file):
        row = {
            "question": fields.get("question"),
            "question_type": fields.get("type"),
            "answer": fields.get("answers"),
        }
        folders = (file.parent, file.parent.parent)
        places = [folder / "OCRBench_Images" / str(fields.get("image_path")) for folder in folders]
        yield where, row, places


def _answers(row: Row) -> tuple[str, ...]:
    """Return the accepted answers; VLMEvalKit's table holds them as the text of a Python list."""
    held = row.fields.get("answer")
    if not (isinstance(held, str) and held.startswith("[")):
        return row.texts("answer")
    try:
        found = literal_eval(held)
    except (SyntaxError, ValueError) as error:
        raise row.bad("answer", f"is no list ({error})") from error
    return replace(row, fields={"answer": found}).texts("answer")


def _sample(row: Row, protocol: Protocol) -> Sample:
    return Sample(
        str(row.number),
        (),
        row.text("question").strip() + protocol.suffix,
        _answers(row),
        group=row.text("question_type"),
        unit=row.picture_name(),
        details={"tool": protocol.tool},
    )


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    rows = open_rows(files, COLUMNS, _of_json, {"question_type": "category"})
    return Samples((_sample(row, protocol), row.picture) for row in rows)


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    full_width = sample.details["tool"] == "lmms-eval"
    is_formula = sample.group == FORMULAS
    return {"score": contains(said, sample.answers, is_formula=is_formula, full_width=full_width)}


def _summarize(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
    """Points out of a thousand, as the papers print them, then the fraction of all and of each type that is right."""
    fractions = mean_by_group("accuracy")(samples, judged)
    return {"points": FULL * fractions["accuracy"], **fractions}


OCRBENCH = described("ocrbench", _read, _judge, _summarize)
