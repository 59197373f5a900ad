"""Questions about the rendered world in the forms that the public sets, and the toolkits' own tasks, come in."""

import base64
import io
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image

from saccade.data import scenes
from saccade.evaluate.world import Item, items

OPTIONS = {"A": "red", "B": "blue", "C": "green", "D": "yellow"}


def questions(family: str, count: int, kind: str | None = None, answers: Collection[str] | None = None) -> list[Item]:
    """The first test questions of a family, of a type and with one of some answers."""
    known = (item for item in items(family, "test") if kind in (None, item.question.type))
    return list(islice((item for item in known if answers is None or item.question.answer in answers), count))


def shown(item: Item) -> np.ndarray:
    return scenes.render(item.family, item.split, item.scene).image


def png(item: Item) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(shown(item)).save(stored, "PNG")
    return stored.getvalue()


def write_questions(file: Path, asked: Sequence[Item]) -> None:
    """A table of questions in the form of lmms-lab/POPE."""
    rows = [
        {
            "question_id": str(number),
            "question": item.question.text,
            "answer": item.question.answer,
            "image_source": f"scene_{item.scene}",
            "image": {"bytes": png(item), "path": None},
            "category": ("random", "popular", "adversarial")[number % 3],
        }
        for number, item in enumerate(asked)
    ]
    features = Features({name: Value("string") for name in rows[0]} | {"image": Picture()})
    file.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features).to_parquet(file)


def write_choices(file: Path, asked: Sequence[Item]) -> None:
    """A table of questions with lettered options as VLMEvalKit reads it."""
    letters = {text: letter for letter, text in OPTIONS.items()}
    lines = ["\t".join(("index", "question", *OPTIONS, "answer", "category", "image"))]
    for number, item in enumerate(asked):
        cells = (number, item.question.text, *OPTIONS.values(), letters[item.question.answer], "color")
        lines.append("\t".join((*map(str, cells), base64.b64encode(png(item)).decode())))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
