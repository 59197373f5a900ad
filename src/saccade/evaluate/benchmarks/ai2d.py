"""AI2D: questions with four options about the diagrams of school books."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Protocol, Sample, Samples, described, mean_by_group
from saccade.evaluate.benchmarks.choices import (
    answer_of,
    ask,
    ask_with_hint,
    details,
    letter_judge,
    lettered,
    options_of,
)
from saccade.evaluate.benchmarks.files import Row, json_object, json_question, open_rows, text_lines
from saccade.evaluate.letters import leading_letter

COLUMNS = ("question", "options", "answer")
TEST = "ai2d_test_ids.csv"


def _of_json(
    test_names: Callable[[Path], frozenset[str]], file: Path
) -> Iterator[tuple[str, Mapping[str, Any], Sequence[Path]]]:
    """Yield the questions about one diagram, if it is one of the test split, whose names `test_names` reads.

    Where a question calls parts by letters, its picture is the one in which letters replace the words.
    """
    held, folder = json_object(file), file.parent.parent
    name = str(held.get("imageName"))
    if Path(name).stem not in test_names(folder):
        return
    questions = held.get("questions")
    if not isinstance(questions, dict):
        raise DataError(f"{file} holds no object questions: fetch the set again")
    for question, held_of in questions.items():
        where = f"{file}: {question}"
        fields = json_question(where, held_of)
        row = {
            "question": question,
            "options": fields.get("answerTexts"),
            "answer": fields.get("correctAnswer"),
            "index": fields.get("questionId"),
        }
        pictures = "abc_images" if fields.get("abcLabel") else "images"
        yield where, row, [folder / pictures / name]


def _test_names(folder: Path) -> frozenset[str]:
    place = folder / TEST
    if not place.is_file():
        raise DataError(f"{folder} has no {TEST}, which lists the diagrams of the test split: fetch it with the set")
    return frozenset(Path(line.strip()).stem for line in text_lines(place) if line.strip())


def _sample(row: Row, protocol: Protocol) -> Sample:
    question, options = row.text("question"), options_of(row, "options")
    if protocol.tool == "lmms-eval":
        prompt = ask(f"{question}\n{lettered(options)}", protocol)
    else:
        prompt = ask_with_hint("", question, options, protocol)
    key = row.optional("index") or str(row.number)
    answer, needed = answer_of(row, options), details(options, protocol)
    return Sample(key, (), prompt, (answer,), unit=row.picture_name(), details=needed)


def _read(files: Sequence[Path], protocol: Protocol) -> Samples:
    of_json = partial(_of_json, cache(_test_names))  # every diagram is a file, and asks for the names
    return Samples((_sample(row, protocol), row.picture) for row in open_rows(files, COLUMNS, of_json))


AI2D = described("ai2d", _read, letter_judge(leading_letter), mean_by_group("accuracy"))
