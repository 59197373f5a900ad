"""The rendered world: every answer recomputed from the objects by other means, and the frozen tests."""

import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from saccade.data.scenes import (
    COLORS,
    FAMILIES,
    SHAPES,
    VERSIONS,
    Question,
    ask_again,
    families,
    fingerprint,
    frozen_test,
    render,
)
from saccade.data.scenes.dice import dice_for
from saccade.data.scenes.frozen import stored_fingerprints
from saccade.data.scenes.signs import WORDS
from saccade.data.scenes.world import sketch as draw_sketch
from saccade.errors import DataError
from scene_answers import ANSWER, matching, words

sketch = cache(draw_sketch)

TYPES = {
    "objects": {"color", "shape", "count", "existence", "nearest", "side"},
    "digits": {"read", "place", "ink", "number", "printed"},
    "clutter": {"color", "shape", "ink", "existence"},
    "text": {"word", "number", "color"},
    "charts": {"value", "largest", "smallest", "difference"},
    "seams": {"crossing", "clear"},
}
QUESTIONS = {"objects": 1496, "digits": 980, "clutter": 1010, "text": 1080, "charts": 1020, "seams": 960}


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
    assert asked.keys() == TYPES[family]


def test_practice_asks_for_all_neighbors_that_are_clear() -> None:
    most = 0
    for index in range(100):
        scene = render("objects", "train", index)
        again = ask_again(dice_for("practice", "train", index), scene)
        for question in again:
            assert question.answer == ANSWER["objects"](sketch("objects", "train", index), question), (index, question)
        most = max(most, sum(question.type == "nearest" for question in again))
    # One object in five can be the nearest of all others, in color and in shape.
    assert most >= 6
    assert ask_again(dice_for("practice", "train", 0), render("text", "train", 0)) == ()


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
    places = ("left", "middle", "right", "top", "bottom")
    shapes = (f"{shape}(?:e?s)?" for shape in SHAPES)
    named = "|".join((*COLORS, *shapes, *places, "objects?", "digit", r"\d+", "|".join(WORDS).lower()))
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
    assert len(test) == QUESTIONS[family]
    assert len(set(test)) == len(test)
    assert max(Counter(index for index, _ in test).values()) <= 3
    types, forms = defaultdict(Counter), defaultdict(Counter)
    for _, question in test:
        types[question.type][question.answer] += 1
        forms[question.form][question.answer] += 1
    assert types.keys() == TYPES[family]
    sizes = [answers.total() for answers in types.values()]
    assert max(sizes) <= 1.15 * min(sizes)
    for form, answers in forms.items():
        assert len(set(answers.values())) == 1, (form, answers)


@pytest.mark.parametrize(
    ("family", "chance"),
    [("objects", 0.32), ("digits", 0.09), ("clutter", 0.23), ("text", 0.06), ("charts", 0.13), ("seams", 0.09)],
)
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("split", ["test", "shifted"])
def test_fingerprint_is_the_stored_one(split: str, version: str) -> None:
    assert fingerprint(split, version) == stored_fingerprints(version)[split], (
        "the frozen tests changed: add a version, run tools/freeze_world.py, and report scores on both versions"
    )


def test_an_older_world_is_a_part_of_the_newer() -> None:
    assert families("1") == ("objects", "digits")
    assert families("2") == ("objects", "digits", "clutter", "text", "charts")
    assert families() == FAMILIES
    assert families("4") == (*FAMILIES, "preference", "reasoning")
    with pytest.raises(DataError, match="'5'"):
        families("5")


@pytest.mark.parametrize("arguments", [("objects", "train"), ("stars", "test")])
def test_no_frozen_test_but_those_promised(arguments: tuple[str, str]) -> None:
    with pytest.raises(DataError, match="no frozen test"):
        frozen_test(*arguments)


def test_a_world_that_does_not_exist_has_no_fingerprint() -> None:
    with pytest.raises(DataError, match="version '99'"):
        stored_fingerprints("99")
