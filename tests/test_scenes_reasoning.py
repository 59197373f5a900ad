"""The rendered world: families preference and reasoning, and the world as rows to tune a model on."""

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import islice

import numpy as np
import pytest

from saccade.data.rows import ChatRow, PreferenceRow, ProblemRow
from saccade.data.scenes import (
    ALL_FAMILIES,
    COLORS,
    FAMILIES,
    SHAPES,
    WORLD_VERSION,
    Question,
    Shares,
    frozen_test,
    patch_labels,
    render,
    version_with,
)
from saccade.data.scenes import sketch as draw_sketch
from saccade.data.scenes.scene import Sketch
from saccade.data.scenes.shapes import PLURALS
from saccade.data.world_rows import WorldChats, WorldPreferences, WorldProblems
from saccade.errors import ConfigError, DataError
from saccade.evaluate.world import items
from scene_answers import matching, object_answer, words

sketch = cache(draw_sketch)

TYPES = {"preference": {"absent", "color", "shape"}, "reasoning": {"sum", "more", "difference", "extreme"}}
COUNTED = re.compile(rf"\b({'|'.join(COLORS)}) shapes|\b({'|'.join(PLURALS.values())})\b")
SCENES = 300


def preference_answer(scene: Sketch, question: Question) -> str:
    if question.type == "absent":
        color, shape = words(question.text)
        return "yes" if matching(scene, color, shape) else "no"
    return object_answer(scene, question)


def reasoning_answer(scene: Sketch, question: Question) -> str:
    digits = [item for item in scene.objects if item.character]
    if question.type in ("sum", "extreme"):
        color = "".join(re.findall("|".join(COLORS), question.text))
        values = [int(item.character) for item in digits if not color or item.color == color]
        assert len(values) > 1
        if question.type == "sum":
            assert not color or len(values) < len(digits)
            return str(sum(values))
        return str(max(values) if "largest" in question.text else min(values))
    counts = [
        sum(item.color == color if color else PLURALS[item.shape] == plural for item in scene.objects if item.shape)
        for color, plural in COUNTED.findall(question.text)
    ]
    more, fewer = counts
    assert min(counts) > 0, "what is compared is there"
    return ("yes" if more > fewer else "no") if question.type == "more" else str(more - fewer)


ANSWER = {"preference": preference_answer, "reasoning": reasoning_answer}
both = pytest.mark.parametrize("family", sorted(ANSWER))


@both
@pytest.mark.parametrize("split", ["train", "shifted"])
def test_every_answer_is_right_and_the_only_one(family: str, split: str) -> None:
    asked = set()
    for index in range(SCENES):
        scene = sketch(family, split, index)
        texts = [question.text for question in scene.questions]
        assert len(set(texts)) == len(texts) > 0
        for question in scene.questions:
            assert question.answer == ANSWER[family](scene, question), (index, question)
            assert question.type == question.form.partition(".")[0]
            asked.add(question.type)
    assert asked == TYPES[family]


def skeleton(text: str) -> str:
    """A question without what it names: its wording."""
    named = (*COLORS, *SHAPES, *PLURALS.values(), "shapes", "objects?", "all digits", "digits", "largest", "smallest")
    return re.sub(rf"\b({'|'.join(named)}|an?|the)\b", "_", text.lower())


@both
def test_shifted_wordings_are_unseen(family: str) -> None:
    wordings = {split: defaultdict(set) for split in ("train", "shifted")}
    for split, forms in wordings.items():
        for index in range(SCENES):
            for question in sketch(family, split, index).questions:
                forms[question.form].add(skeleton(question.text))
    for form, seen in wordings["train"].items():
        assert len(seen) >= 4, form
        assert len(wordings["shifted"][form]) >= 3, form
        assert not wordings["shifted"][form] & seen, form


@both
@pytest.mark.parametrize("split", ["test", "shifted"])
def test_frozen_tests_are_balanced(family: str, split: str) -> None:
    test = frozen_test(family, split)
    assert len(set(test)) == len(test) == {"preference": 1494, "reasoning": 1060}[family]
    types, forms = Counter(), defaultdict(Counter)
    for _, question in test:
        types[question.type] += 1
        forms[question.form][question.answer] += 1
    assert types.keys() == TYPES[family]
    assert max(types.values()) <= 1.1 * min(types.values())
    for form, answers in forms.items():
        assert len(set(answers.values())) == 1, (form, answers)
    blind = sum(max(answers.values()) for answers in forms.values()) / len(test)
    assert blind <= {"preference": 0.27, "reasoning": 0.23}[family]


def test_training_asks_for_all_answers() -> None:
    """No answer is so frequent that guessing it would be rewarded much more than chance."""
    tally = defaultdict(Counter)
    for family in ANSWER:
        for index in range(SCENES):
            for question in sketch(family, "train", index).questions:
                tally[question.form][question.answer] += 1
    for form, answers in tally.items():
        assert max(answers.values()) <= 2.1 * answers.total() / len(answers), (form, answers)
        if len(answers) == 2:
            assert max(answers.values()) < 0.58 * answers.total(), (form, answers)


def test_wrong_answers_are_wrong_and_suggested_by_the_picture() -> None:
    hard = absent = 0
    for index in range(SCENES):
        scene = sketch("preference", "train", index)
        for question in scene.questions:
            assert question.wrong not in ("", question.answer)
            if question.type == "absent":
                assert {question.answer, question.wrong} == {"yes", "no"}
            else:
                assert question.wrong in {getattr(item, question.type) for item in scene.objects}
            if question.form == "absent.pair" and question.answer == "no":
                color, shape = words(question.text)
                hard += bool(matching(scene, color, "")) and bool(matching(scene, "", shape))
                absent += 1
    assert hard == absent > 100
    assert not any(question.wrong for question in sketch("reasoning", "train", 0).questions)


@both
def test_things_are_large_enough_for_a_small_view_and_labelled(family: str) -> None:
    for index in range(40):
        scene = render(family, "test", index)
        height, width = scene.image.shape[:2]
        assert scene.caption.startswith(f"{len(scene.objects)} ")
        found = patch_labels(scene, 27)
        for number, item in enumerate(scene.objects, start=1):
            left, top, right, bottom = item.box
            assert max((right - left) / width, (bottom - top) / height) * 90 > {"preference": 7, "reasoning": 9}[family]
            assert (scene.instance_map == number).any(), "none hides another"
        assert set(np.unique(found["shape"])) - {0} == {
            SHAPES.index(item.shape) + 1 for item in scene.objects if item.shape
        }
        assert (found["character"] > 0).any() == (family == "reasoning")


def test_families_for_tuning_are_asked_by_name_alone() -> None:
    assert set(ANSWER) == set(ALL_FAMILIES) - set(FAMILIES)
    assert len(items("reasoning", "test", 10)) == len(items("preference", "val", 10)) == 10
    assert version_with(FAMILIES) == version_with(["objects"]) == WORLD_VERSION
    assert version_with(["objects", "reasoning"]) == "4"


def test_shares_give_every_scene_once() -> None:
    shares = Shares({"reasoning": 3.0, "objects": 1.0})
    places = [shares.place(number) for number in range(200)]
    assert len(set(places)) == 200
    assert Counter(family for family, _ in places) == {"reasoning": 150, "objects": 50}
    assert max(index for family, index in places if family == "objects") == 49


def test_preferences_are_rows() -> None:
    rows = WorldPreferences({"preference": 1.0}, 90)
    assert len(rows) == 90
    types = Counter()
    for index in range(90):
        row = rows[index]
        assert isinstance(row, PreferenceRow)
        (turn,), (picture,) = row.turns, row.pictures
        scene = render("preference", "train", index)
        assert np.array_equal(picture, scene.image)
        assert (turn.role, turn.images, row.where) == ("user", 1, f"preference train {index}")
        asked = next(question for question in scene.questions if question.text == turn.text)
        assert (row.chosen, row.rejected) == (asked.answer, asked.wrong)
        types[asked.type] += 1
    assert min(types[kind] for kind in TYPES["preference"]) >= 18
    assert rows[7].turns == WorldPreferences({"preference": 1.0}, 8)[7].turns, "the length changes no row"
    behind = WorldPreferences({"preference": 1.0}, 2, first=6)
    assert (behind[1].where, behind[1].turns) == (rows[7].where, rows[7].turns)


def test_problems_are_rows_with_a_picture_or_its_caption() -> None:
    shown, told = (WorldProblems({"reasoning": 1.0}, 20, split="val", pictures=seen) for seen in (True, False))
    for index in range(20):
        row, words_alone = shown[index], told[index]
        assert isinstance(row, ProblemRow)
        scene = render("reasoning", "val", index)
        assert (row.turns[0].text, row.solution) in {(asked.text, asked.answer) for asked in scene.questions}
        assert words_alone.pictures == ()
        assert words_alone.turns[0].images == 0
        assert words_alone.turns[0].text == f"{scene.caption} {row.turns[0].text}"
        assert words_alone.solution == row.solution


def test_conversations_are_rows_that_end_with_the_answer() -> None:
    chats, problems = (kind({"reasoning": 0.5, "preference": 0.5}, 10) for kind in (WorldChats, WorldProblems))
    for index in range(10):
        row = chats[index]
        assert isinstance(row, ChatRow)
        asked, answered = row.turns
        assert (asked,) == problems[index].turns
        assert (answered.role, answered.text) == ("assistant", problems[index].solution)


def test_rows_end() -> None:
    rows = WorldProblems({"reasoning": 1.0}, 3)
    assert len(list(islice(iter(rows), 10))) == 3
    with pytest.raises(IndexError, match="3"):
        rows[3]


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: WorldProblems({"reasoning": 1.0}, 0), DataError, "at least 1"),
        (lambda: WorldProblems({"reasoning": 1.0}, 5, first=-1), DataError, "from 0"),
        (lambda: WorldProblems({"reasoning": 1.0}, 5, split="test"), DataError, "'test'"),
        (lambda: WorldChats({"pages": 1.0}, 5), DataError, "pages"),
        (lambda: WorldPreferences({"preference": 0.5, "objects": 0.5}, 5), DataError, "objects"),
        (lambda: WorldProblems({"reasoning": 0.99, "objects": 0.01}, 5), ConfigError, "objects"),
    ],
)
def test_impossible_rows_are_refused(make, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        make()
