"""MME: two questions about every picture, one to say yes to and one to say no to, in 14 tasks of 200 points each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Judgment, Protocol, Sample, Samples, described, whole_units
from saccade.evaluate.benchmarks.files import Row, open_rows, text_lines
from saccade.evaluate.benchmarks.pope import label
from saccade.evaluate.metrics import leading_yes_no, spoken_yes_no

COLUMNS = ("question_id", "question", "answer", "category")
PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_REQUEST = " Please answer yes or no."
_APART = "questions_answers_YN"  # some tasks keep their questions here and their pictures in `images`


def _of_text(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    """Yield the questions of a text file: lines of a question, a tab and its answer."""
    folder = file.parent.parent if file.parent.name == _APART else file.parent
    if folder.name not in (*PERCEPTION, *COGNITION):
        return
    pictures = folder / "images" if file.parent.name == _APART else folder
    places = [pictures / f"{file.stem}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
    for number, line in enumerate(text_lines(file), 1):
        if not line.strip():
            continue
        question, tab, answer = line.rpartition("\t")
        if not tab:
            raise DataError(f"{file}:{number} holds no question, tab and answer: fetch the set again")
        key = f"{folder.name}/{file.stem}"
        fields = {"question_id": key, "question": question, "answer": answer, "category": folder.name}
        yield f"{file}:{number}", fields, places


def _prompt(row: Row, protocol: Protocol) -> str:
    question = row.text("question").strip()
    if protocol.tool == "lmms-eval":  # its suffix takes the place of the request that the questions end with
        question = question.replace(_REQUEST, "")
    return question + protocol.suffix


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    asked: Counter[str] = Counter()
    parts = []
    for row in open_rows(files, COLUMNS, _of_text, {"question_id": "image_path"}):
        category, unit = row.text("category"), row.text("question_id")
        if category not in (*PERCEPTION, *COGNITION):
            raise row.bad("category", f"is {category!r}, none of the 14 tasks")
        unit = unit if unit.startswith(f"{category}/") else f"{category}/{unit}"
        asked[unit] += 1
        details = {"tool": protocol.tool}
        sample = Sample(f"{unit}/{asked[unit]}", (), _prompt(row, protocol), (label(row),), category, unit, details)
        parts.append((sample, row.picture))
    if alone := next((unit for unit, times in asked.items() if times != 2), None):
        raise DataError(f"{files[0]}: {alone} is asked about {asked[alone]} times, not twice: fetch the set again")
    return Samples(parts)


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    parsed = (leading_yes_no if sample.details["tool"] == "lmms-eval" else spoken_yes_no)(said)
    return {"score": float(parsed == sample.answers[0]), "parsed": parsed}


def _summarize(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
    """Points: of each task the percentage of right answers and that of pictures with two of them (arXiv 2306.13394).

    Raises:
        DataError: for a picture of which only one question is there.
    """
    points: dict[str, list[float]] = defaultdict(list)
    for sample, judgment, (is_whole, share) in zip(samples, judged, whole_units(samples, judged), strict=True):
        if share != 0.5:
            raise DataError(f"{sample.unit} of MME has one question left: score both questions of a picture together")
        points[sample.group].append(100 * (judgment["score"] + is_whole))
    tasks = {task: sum(of) / len(of) for task, of in points.items()}
    perception, cognition = (sum(tasks.get(task, 0.0) for task in of) for of in (PERCEPTION, COGNITION))
    return {"points": perception + cognition, "perception": perception, "cognition": cognition, **tasks}


MME = described("mme", _read, _judge, _summarize)
