"""The evaluation: an oracle scores 1, a blind one scores chance, and nothing is looked at twice."""

import json
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers_vlm import tiny_vlm
from saccade.data import scenes
from saccade.errors import DataError
from saccade.evaluate import evaluate_world, items, predict
from saccade.evaluate.world import Setting, is_right
from saccade.vlm import Conversation

LIMIT = 60


class Oracle:
    """Knows the answer to every question it can see the picture of, and says "2" to all others."""

    name = "oracle"
    model = SimpleNamespace(dtype=torch.float32, state_dict=dict)

    def __init__(self, families: tuple[str, ...], split: str = "test", limit: int | None = LIMIT) -> None:
        self.seen: Counter[bytes] = Counter()
        self.batches: list[int] = []
        self.known = {}
        for family in families:
            for item in items(family, split, limit):
                pixels = scenes.render(family, split, item.scene).image.tobytes()
                self.known[pixels, item.question.text] = item.question.answer

    def encode_batch(self, images: list[Any]) -> list[Any]:
        encoded = []
        for image in images:
            if isinstance(image, np.ndarray):
                self.seen[image.tobytes()] += 1
                image = SimpleNamespace(pixels=image.tobytes())
            encoded.append(image)
        return encoded

    def answer(self, talks: Sequence[Conversation], sampling: Any) -> list[Any]:
        self.batches.append(len(talks))
        asked = [(talk.images[-1].pixels, talk.messages[-1]["content"][-1]["text"]) for talk in talks]
        return [SimpleNamespace(text=f" {self.known.get(key, '2').upper()}.") for key in asked]


def evaluate(oracle: Any, **options: Any) -> dict[str, Any]:
    return evaluate_world(oracle, limit=LIMIT, **options).to_dict(samples=True)


def test_an_oracle_is_right_and_a_blind_one_at_chance() -> None:
    report = evaluate(Oracle(("objects", "digits")), families=("objects", "digits"), batch_size=7)
    assert list(report["families"]) == ["objects", "digits"]
    for score in report["families"].values():
        assert score["accuracy"] == 1
        assert score["interval"] == (1, 1)
        assert score["blank_accuracy"] < 0.25
        assert score["n"] == LIMIT == sum(part["n"] for part in score["types"].values())
    assert report["versions"].keys() == {"1"}, "the second version has more families than were asked about"
    assert report["versions"]["1"]["accuracy"] == 1
    assert {"model": "oracle", "split": "test", "world": scenes.WORLD_VERSION, "limit": LIMIT}.items() <= report.items()
    assert json.loads(json.dumps(report))["families"].keys() == report["families"].keys()


def test_a_family_named_twice_counts_once() -> None:
    report = evaluate(Oracle(("digits",)), families=("digits", "digits"))
    assert report["families"]["digits"]["n"] == LIMIT
    assert report["versions"] == {}


def test_every_answer_is_on_record() -> None:
    report = evaluate(Oracle(("objects",)), families=("objects",))
    assert len(report["samples"]) == LIMIT
    sample = report["samples"][0]
    assert sample.keys() == {"family", "scene", "type", "question", "expected", "said", "said_blind"}
    assert is_right(sample["said"], sample["expected"])
    assert "samples" not in evaluate_world(Oracle(("objects",)), ("objects",), limit=2).to_dict()  # type: ignore[arg-type]


def test_a_picture_is_encoded_once_however_the_batches_fall() -> None:
    oracle = Oracle(("objects",), limit=None)
    questions = items("objects", "test")[:50]
    assert len({item.scene for item in questions}) < 50
    shuffled = [questions[n] for n in np.random.default_rng(0).permutation(50)]
    said = predict(oracle, shuffled, batch_size=3)  # type: ignore[arg-type]
    assert set(oracle.seen.values()) == {1}
    assert oracle.batches == [3] * 16 + [2]
    assert all(is_right(text, item.question.answer) for text, item in zip(said, shuffled, strict=True))


def test_a_blank_picture_is_gray_and_of_the_same_size() -> None:
    oracle = Oracle(("digits",), limit=3)
    predict(oracle, items("digits", "test", 3), blank=True)  # type: ignore[arg-type]
    sizes = {scenes.render("digits", "test", item.scene).image.size for item in items("digits", "test", 3)}
    assert {len(pixels) for pixels in oracle.seen} == sizes
    assert all(set(pixels) == {127} for pixels in oracle.seen)


def test_progress_ends_when_everything_is_answered() -> None:
    told: list[tuple[int, int]] = []
    evaluate(Oracle(("objects",)), families=("objects",), batch_size=50, progress=lambda *now: told.append(now))
    assert told == [(50, 120), (60, 120), (110, 120), (120, 120)]


def test_half_right_has_an_interval_around_it() -> None:
    oracle = Oracle(("objects",))
    oracle.known = {key: answer for n, (key, answer) in enumerate(oracle.known.items()) if n % 2}
    score = evaluate(oracle, families=("objects",))["families"]["objects"]
    low, high = score["interval"]
    assert 0 < low < score["accuracy"] < high < 1
    assert score == evaluate(oracle, families=("objects",))["families"]["objects"]


@pytest.mark.parametrize(
    ("said", "expected", "right"),
    [
        ("red", "red", True),
        (" Red. ", "red", True),
        ("RED", "red", True),
        ("3", "3", True),
        ("red blue", "red", False),
        ("", "red", False),
        ("13", "3", False),
        ("red..", "red", False),
    ],
)
def test_an_answer_is_right_when_it_is_the_word(said: str, expected: str, right: bool) -> None:
    assert is_right(said, expected) is right


def test_a_limit_spreads_over_the_whole_list() -> None:
    whole, part = items("objects", "test"), items("objects", "test", 10)
    assert len(part) == 10
    places = [whole.index(item) for item in part]
    assert places == sorted(places)
    assert places[-1] > 0.8 * len(whole)
    assert items("objects", "test", 10**6) == whole


def test_val_takes_questions_in_order_of_the_scenes() -> None:
    found = items("digits", "val", None)
    assert len(found) == 1000
    assert [item.scene for item in found] == sorted(item.scene for item in found)
    assert found[0].question in scenes.render("digits", "val", found[0].scene).questions


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("cats", "test"), "'cats'"), (("objects", "exam"), "'exam'"), (("objects", "test", 0), "limit is 0")],
)
def test_unknown_names_are_refused(arguments: tuple[Any, ...], word: str) -> None:
    with pytest.raises(DataError, match=word):
        items(*arguments)


def test_a_real_model_can_be_evaluated() -> None:
    report = evaluate_world(tiny_vlm(), ("digits",), limit=4, batch_size=3)
    assert report.to_dict()["families"]["digits"]["n"] == 4
    assert len({outcome.said for outcome in report.outcomes}) > 1


@pytest.mark.parametrize(("setting", "pictures", "turns"), [("alone", 1, 1), ("after", 2, 3), ("beside", 2, 1)])
def test_settings_show_the_picture_alone_after_another_and_beside_it(
    setting: Setting, pictures: int, turns: int
) -> None:
    asked = items("objects", "test", 6)
    oracle = Oracle(("objects",), limit=6)
    talks: list[Conversation] = []
    oracle.answer = lambda batch, sampling: talks.extend(batch) or [SimpleNamespace(text="")] * len(batch)  # type: ignore[method-assign]
    predict(oracle, asked, setting=setting)  # type: ignore[arg-type]
    assert len(talks) == 6
    for item, talk in zip(asked, talks, strict=True):
        assert len(talk.images) == pictures
        assert len(talk.messages) == turns
        own = scenes.render("objects", "test", item.scene).image.tobytes()
        text = talk.messages[-1]["content"][-1]["text"]
        if setting == "beside":
            place = 0 if "In the first picture: " in text else 1
            assert item.question.text.lower() in text.lower()
        else:
            place = -1
            assert item.question.text == text
        assert talk.images[place].pixels == own  # type: ignore[union-attr]


@pytest.mark.parametrize("setting", ["after", "beside"])
def test_what_a_question_is_shown_with_depends_on_it_alone(setting: Setting) -> None:
    """Each conversation is answered with all that it holds."""

    def answer(batch: Sequence[Any], sampling: Any) -> list[Any]:
        held = [(json.dumps(talk.messages), *(image.pixels for image in talk.images)) for talk in batch]
        assert all(one != other for _, one, other in held), "a picture is never its own companion"
        return [SimpleNamespace(text=str(hash(content))) for content in held]

    oracle = Oracle(("objects",), limit=1)
    oracle.answer = answer  # type: ignore[method-assign]
    asked = items("objects", "test")[:40]
    said = predict(oracle, asked, setting=setting, batch_size=7)  # type: ignore[arg-type]
    assert set(oracle.seen.values()) == {1}, "a picture that is shown beside others is not encoded again"
    assert predict(oracle, asked[::3], setting=setting) == said[::3]  # type: ignore[arg-type]
