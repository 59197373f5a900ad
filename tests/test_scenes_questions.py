"""The rendered world: every answer recomputed from the objects by other means, and the frozen tests."""

import math
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from saccade.data.scenes import COLORS, FAMILIES, SHAPES, Question, SceneObject, fingerprint, frozen_test
from saccade.data.scenes.frozen import stored_fingerprints
from saccade.data.scenes.scene import Sketch
from saccade.data.scenes.world import sketch as draw_sketch
from saccade.errors import DataError

sketch = cache(draw_sketch)

OBJECT = re.compile(rf"\bthe (?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)}|object)\b", re.IGNORECASE)
INVERTED = ("On which side of", "From ")
OBJECT_TYPES = {"color", "shape", "count", "existence", "nearest", "side"}
DIGIT_TYPES = {"read", "place", "ink", "number", "printed"}


def the(scene: Sketch, color: str, kind: str) -> SceneObject:
    """The object a description names, which must be one and only one."""
    found = matching(scene, color, kind)
    assert len(found) == 1, (color, kind, scene.objects)
    return found[0]


def matching(scene: Sketch, color: str, kind: str) -> list[SceneObject]:
    return [
        item
        for item in scene.objects
        if (not color or item.color == color) and (kind in ("", "object") or item.shape == kind)
    ]


def words(text: str) -> tuple[str, str]:
    """The color and the shape a question names, "" for what it leaves open."""
    color = re.findall(rf"\b({'|'.join(COLORS)})\b", text)
    shape = re.findall(rf"\b({'|'.join(SHAPES)})(?:e?s)?\b", text)
    assert len(color) <= 1
    assert len(shape) <= 1
    return "".join(color), "".join(shape)


def nearest_answer(scene: Sketch, question: Question) -> str:
    anchor = the(scene, *OBJECT.findall(question.text)[-1])
    x, y = anchor.center
    nearest = set()
    for stretch in (1.0, scene.width / scene.height):
        away = sorted(
            (math.hypot(item.center[0] - x, (item.center[1] - y) * stretch), item.color, item.shape)
            for item in scene.objects
            if item is not anchor
        )
        assert away[1][0] >= 1.4 * away[0][0] * (1 - 1e-9)
        nearest.add(away[0][1:])
    color, shape = nearest.pop()
    assert not nearest
    return color if question.form == "nearest.color" else shape


def side_answer(scene: Sketch, question: Question) -> str:
    named = [the(scene, *found) for found in OBJECT.findall(question.text)]
    one, other = reversed(named) if question.text.startswith(INVERTED) else named
    across = (one.center[0] - other.center[0]) / scene.width
    down = (one.center[1] - other.center[1]) / scene.height
    if question.form == "side.horizontal":
        assert abs(across) >= 0.18
        return "left" if across < 0 else "right"
    assert abs(down) >= 0.18
    return "above" if down < 0 else "below"


def object_answer(scene: Sketch, question: Question) -> str:
    if question.type == "nearest":
        return nearest_answer(scene, question)
    if question.type == "side":
        return side_answer(scene, question)
    color, shape = words(question.text)
    if question.type == "color":
        return the(scene, "", shape).color
    if question.type == "shape":
        return the(scene, color, "").shape
    found = matching(scene, color, shape)
    return str(len(found)) if question.type == "count" else ("yes" if found else "no")


def digit_answer(scene: Sketch, question: Question) -> str:
    ordered = sorted(scene.objects, key=lambda item: item.center[0])
    form = question.form.removeprefix("printed.")
    if form == "number":
        assert len(ordered) == 2
        assert ordered[0].character != "0"
        return "".join(item.character for item in ordered)
    if form == "read":
        assert len(ordered) == 1
        return ordered[0].character
    if form == "place":
        place = re.search(r"\b(left|middle|right)\b", question.text).group()
        assert place != "middle" or len(ordered) == 3
        return ordered[{"left": 0, "middle": 1, "right": -1}[place]].character
    return the(scene, words(question.text)[0], "").character


ANSWER = {"objects": object_answer, "digits": digit_answer}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["train", "shifted"])
def test_every_answer_is_right_and_the_only_one(family: str, split: str) -> None:
    asked = Counter()
    for index in range(400):
        scene = sketch(family, split, index)
        texts = [question.text for question in scene.questions]
        assert len(set(texts)) == len(texts)
        for question in scene.questions:
            assert question.answer == ANSWER[family](scene, question), (index, question)
            assert question.type == question.form.partition(".")[0]
            asked[question.type] += 1
    assert asked.keys() == (OBJECT_TYPES if family == "objects" else DIGIT_TYPES)


def test_number_of_questions_about_objects() -> None:
    numbers = {len(sketch("objects", "val", index).questions) for index in range(200)}
    assert numbers == {6, 7, 8, 9, 10}


def test_half_of_the_absent_pairs_are_hard() -> None:
    hard = total = 0
    for index in range(800):
        scene = sketch("objects", "train", index)
        for question in scene.questions:
            if question.form == "existence.pair" and question.answer == "no":
                color, shape = words(question.text)
                hard += bool(matching(scene, color, "")) and bool(matching(scene, "", shape))
                total += 1
    assert 0.4 < hard / total < 0.6


def test_answers_of_the_training_split_are_near_uniform() -> None:
    tally = defaultdict(Counter)
    for index in range(800):
        for question in sketch("objects", "train", index).questions:
            tally[question.form][question.answer] += 1
    for form in (
        "color",
        "shape",
        "existence.pair",
        "nearest.color",
        "nearest.shape",
        "side.horizontal",
        "side.vertical",
    ):
        answers = tally[form]
        assert max(answers.values()) < 1.9 * min(answers.values()), (form, answers)
    for kind in ("shape", "color", "all"):
        answers = tally[f"count.{kind}"]
        assert len(answers) == (5 if kind == "all" else 6)
        assert max(answers.values()) < 0.36 * answers.total(), (kind, answers)


def skeleton(question: Question) -> str:
    """The question without what it names: its wording."""
    named = "|".join(
        (*COLORS, *(f"{shape}(?:e?s)?" for shape in SHAPES), "objects?", "left", "middle", "right", "digit")
    )
    return re.sub(rf"\b({named}|an?|the)\b", "_", question.text.lower())


@pytest.mark.parametrize("family", FAMILIES)
def test_shifted_wordings_are_unseen(family: str) -> None:
    wordings = {split: defaultdict(set) for split in ("train", "shifted")}
    for split, forms in wordings.items():
        for index in range(500):
            for question in sketch(family, split, index).questions:
                forms[question.form].add(skeleton(question))
    for form, seen in wordings["train"].items():
        assert len(seen) >= 4, form
        unseen = wordings["shifted"][form]
        assert len(unseen) >= 3, form
        assert not unseen & seen, form


@pytest.mark.parametrize("split", ["test", "shifted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_tests_are_balanced(family: str, split: str) -> None:
    test = frozen_test(family, split)
    assert len(test) == {"objects": 1496, "digits": 980}[family]
    assert len(set(test)) == len(test)
    assert max(Counter(index for index, _ in test).values()) <= 3
    types, forms = defaultdict(Counter), defaultdict(Counter)
    for _, question in test:
        types[question.type][question.answer] += 1
        forms[question.form][question.answer] += 1
    assert types.keys() == (OBJECT_TYPES if family == "objects" else DIGIT_TYPES)
    sizes = [answers.total() for answers in types.values()]
    assert max(sizes) <= 1.15 * min(sizes)
    for form, answers in forms.items():
        assert len(set(answers.values())) == 1, (form, answers)


@pytest.mark.parametrize(("family", "chance"), [("objects", 0.32), ("digits", 0.09)])
def test_a_blind_model_scores_at_chance(family: str, chance: float) -> None:
    """Even the best single answer to each form of question, chosen with hindsight, is right no oftener than chance."""
    forms = defaultdict(Counter)
    for _, question in frozen_test(family):
        forms[question.form][question.answer] += 1
    right = sum(max(answers.values()) for answers in forms.values())
    assert right / sum(answers.total() for answers in forms.values()) <= chance


def test_frozen_digits_are_handwritten_unless_called_printed() -> None:
    for index, question in frozen_test("digits")[:200]:
        forms = {asked.form.startswith("printed.") for asked in sketch("digits", "test", index).questions}
        assert forms == {question.type == "printed"}


@pytest.mark.parametrize("split", ["test", "shifted"])
def test_fingerprint_is_the_stored_one(split: str) -> None:
    assert fingerprint(split) == stored_fingerprints()[split], (
        "the frozen tests changed: raise WORLD_VERSION, run tools/freeze_world.py, and report scores on both versions"
    )


@pytest.mark.parametrize("arguments", [("objects", "train"), ("stars", "test")])
def test_no_frozen_test_but_those_promised(arguments: tuple[str, str]) -> None:
    with pytest.raises(DataError, match="no frozen test"):
        frozen_test(*arguments)
