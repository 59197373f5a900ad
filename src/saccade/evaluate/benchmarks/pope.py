"""POPE: is a thing in the picture? Asked of things that are, and of random, popular and likely ones that are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate.benchmarks.benchmark import Judgment, Protocol, Sample, Samples, described
from saccade.evaluate.benchmarks.files import Row, json_fields, open_rows
from saccade.evaluate.metrics import spoken_yes_no, whole_yes_no, yes_no_scores

COLUMNS = ("question_id", "question", "answer", "image_source", "category")


def label(row: Row) -> str:
    """Return the answer of a row, "yes" or "no"; raises DataError for another."""
    found = row.text("answer").strip().lower().rstrip(".")
    if found not in ("yes", "no"):
        raise row.bad("answer", f"is {found!r}, neither yes nor no")
    return found


def _of_json(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    category = file.stem.rpartition("_")[2]
    for where, fields in json_fields(file):
        name = str(fields.get("image"))
        row = {
            "question_id": fields.get("question_id"),
            "question": fields.get("text"),
            "answer": fields.get("label"),
            "image_source": Path(name).stem,
            "category": category,
        }
        yield where, row, [folder / name for folder in (file.parent / "val2014", file.parent.parent / "val2014")]


def _sample(row: Row, protocol: Protocol) -> Sample:
    category = row.text("category")
    key = f"{category}/{row.text('question_id')}"
    return Sample(
        key,
        (),
        row.text("question").strip() + protocol.suffix,
        (label(row),),
        group=category,
        unit=row.optional("image_source") or row.picture_name(),
        details={"tool": protocol.tool},
    )


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    rows = open_rows(files, COLUMNS, _of_json, {"question_id": "index"})
    return Samples((_sample(row, protocol), row.picture) for row in rows)


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    parsed = (whole_yes_no if sample.details["tool"] == "lmms-eval" else spoken_yes_no)(said)
    return {"score": float(parsed == sample.answers[0]), "parsed": parsed}


def _summarize(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
    """Scores of all questions and of each category; a question of several categories counts once in each."""
    said: dict[str, tuple[list[Any], list[Any]]] = {"": ([], [])}
    for sample, judgment in zip(samples, judged, strict=True):
        for category in sample.group.split(","):
            for labels, parsed in (said[""], said.setdefault(category, ([], []))):
                labels.append(sample.answers[0])
                parsed.append(judgment["parsed"])
    other_is_no = samples[0].details["tool"] != "lmms-eval"
    return {
        f"{category} {name}".strip(): score
        for category, (labels, parsed) in said.items()
        for name, score in yes_no_scores(labels, parsed, other_is_no=other_is_no).items()
    }


POPE = described("pope", _read, _judge, _summarize)
