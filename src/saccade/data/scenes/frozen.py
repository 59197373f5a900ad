"""The frozen tests: balanced lists of questions that never change within a version of the world."""

import hashlib
import json
from collections import Counter
from functools import cache
from importlib.resources import files
from itertools import count, groupby
from operator import itemgetter

from saccade.data.scenes.scene import WORLD_VERSION, Question, Sketch
from saccade.data.scenes.world import ALL_FAMILIES, families, sketch
from saccade.errors import DataError

# For each form: how many answers a frozen test has, and how many questions it asks for each of them. Within a form
# every answer comes up equally often, so a model that cannot see, even one that reads the form off the question, scores
# no better than one over the number of answers.
_QUOTAS: dict[str, dict[str, tuple[int, int]]] = {
    "objects": {
        "color": (8, 31),
        "shape": (6, 42),
        "count.shape": (6, 10),
        "count.color": (6, 10),
        "count.pair": (6, 10),
        "count.all": (5, 14),
        "existence.pair": (2, 75),
        "existence.shape": (2, 25),
        "existence.color": (2, 25),
        "nearest.color": (8, 16),
        "nearest.shape": (6, 20),
        "side.horizontal": (2, 62),
        "side.vertical": (2, 62),
    },
    "digits": {
        "read": (10, 20),
        "place": (10, 20),
        "ink": (10, 20),
        "number": (90, 2),
        "printed.read": (10, 6),
        "printed.place": (10, 7),
        "printed.ink": (10, 7),
    },
    "clutter": {
        "color.shape": (8, 16),
        "color.digit": (8, 16),
        "shape.ink": (6, 42),
        "ink": (10, 25),
        "existence.shape": (2, 63),
        "existence.digit": (2, 63),
    },
    "text": {
        "word.large": (40, 3),
        "word.medium": (40, 3),
        "word.small": (40, 3),
        "number.large": (120, 1),
        "number.medium": (120, 1),
        "number.small": (120, 1),
        "color.large": (8, 15),
        "color.medium": (8, 15),
        "color.small": (8, 15),
    },
    "charts": {
        "value.bar": (9, 14),
        "value.point": (9, 14),
        "largest.bar": (8, 16),
        "largest.point": (8, 16),
        "smallest.bar": (8, 16),
        "smallest.point": (8, 16),
        "difference.bar": (8, 16),
        "difference.point": (8, 16),
    },
    "seams": {
        f"{where}.{form}": quota
        for where in ("crossing", "clear")
        for form, quota in {
            "word": (40, 3),
            "number": (120, 1),
            "shape": (6, 20),
            "color.sign": (8, 7),
            "color.shape": (8, 8),
        }.items()
    },
    "preference": {
        "absent.pair": (2, 130),
        "absent.shape": (2, 60),
        "absent.color": (2, 60),
        "color": (8, 62),
        "shape": (6, 83),
    },
    "reasoning": {
        "sum.all": (19, 7),
        "sum.color": (19, 7),
        "more.shape": (2, 65),
        "more.color": (2, 65),
        "difference.shape": (4, 33),
        "difference.color": (4, 33),
        "extreme.largest": (9, 15),
        "extreme.smallest": (9, 15),
    },
}
_PER_SCENE = 3
_FROZEN_SPLITS = ("test", "shifted")
# Boxes enter the fingerprint in quarters of a pixel: fine enough to notice a change, coarse enough for any machine.
_QUANTUM = 4


@cache
def _frozen(family: str, split: str) -> tuple[tuple[int, Question], ...]:
    quotas = _QUOTAS[family]
    wanted = {form: answers * each for form, (answers, each) in quotas.items()}
    filled: Counter[tuple[str, str]] = Counter()
    asked_of: Counter[str] = Counter()
    chosen: list[tuple[int, Question]] = []
    for index in count():
        asked = sketch(family, split, index).questions
        # The scarcest first: what is common will fill up anyway.
        room = {
            question: quotas[question.form][1] - filled[question.form, question.answer]
            for question in asked
            if question.form in quotas
        }
        ranked = sorted(room, key=lambda question: -room[question] / quotas[question.form][1])
        taken = 0
        for question in ranked:
            cell = question.form, question.answer
            # Of numbers there are more than a test has room for: the form may be full before the answer is.
            free = filled[cell] < quotas[question.form][1] and asked_of[question.form] < wanted[question.form]
            if free and taken < _PER_SCENE:
                filled[cell] += 1
                asked_of[question.form] += 1
                taken += 1
                chosen.append((index, question))
        if len(chosen) == sum(wanted.values()):
            break
    return tuple(chosen)


def frozen_test(family: str, split: str = "test") -> list[tuple[int, Question]]:
    """The balanced test of a family: (scene index, question) pairs in order of the scenes.

    Scenes are taken from 0 upward until each answer of each form of question has its share, at most three questions
    from one scene. Symbolic work only; it takes a few seconds at most and is remembered.

    Args:
        family: One of `ALL_FAMILIES`.
        split: `test` or `shifted`.

    Raises:
        DataError: No such family, or a split that has no frozen test.
    """
    if family not in _QUOTAS or split not in _FROZEN_SPLITS:
        raise DataError(
            f"there is no frozen test for family {family!r}, split {split!r}; families are {', '.join(ALL_FAMILIES)}, "
            f"splits {' and '.join(_FROZEN_SPLITS)}"
        )
    return list(_frozen(family, split))


def fingerprint(split: str, version: str = WORLD_VERSION) -> str:
    """SHA-256 (hex) over the symbols of the frozen tests of a split: sizes, objects, captions, questions, answers.

    Raises:
        DataError: The split has no frozen test, or the world no such version.
    """
    digest = hashlib.sha256(f"world {version} {split}".encode())
    for family in families(version):
        for index, group in groupby(frozen_test(family, split), key=itemgetter(0)):
            asked = [[question.text, question.answer, question.form] for _, question in group]
            line = [family, index, *_symbols(sketch(family, split, index)), asked]
            digest.update(json.dumps(line, separators=(",", ":")).encode())
    return digest.hexdigest()


def stored_fingerprints(version: str = WORLD_VERSION) -> dict[str, str]:
    """The fingerprints a version of the world was frozen with, by split.

    Raises:
        DataError: The world has no such version.
    """
    stored: dict[str, dict[str, str]] = json.loads((files(__package__) / "frozen.json").read_text())
    if f"world {version}" not in stored:
        raise DataError(f"no fingerprint of version {version!r} of the world is stored; there are {', '.join(stored)}")
    return stored[f"world {version}"]


def _symbols(drawn: Sketch) -> list[object]:
    objects = [
        [
            *(item.shape, item.color, item.character),
            *(round(edge * _QUANTUM) for edge in item.box),
            *((item.kind, item.content) if item.kind else ()),
        ]
        for item in drawn.objects + drawn.marks
    ]
    return [drawn.width, drawn.height, objects, drawn.caption]
