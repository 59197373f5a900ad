"""Accuracy on the rendered world, beside the accuracy of the same model with the pictures blanked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saccade.data import scenes
from saccade.errors import DataError
from saccade.evaluate.bootstrap import intervals
from saccade.evaluate.provenance import scored_with
from saccade.vlm import Conversation, Sampling

if TYPE_CHECKING:
    from saccade.vlm import VLM, EncodedImage

BLANK_LEVEL = 127
MAX_NEW_TOKENS = 16  # answers of the world are one word or one number
VAL_QUESTIONS = 1000  # of a family; the val split has no frozen list

Progress = Callable[[int, int], None]
Setting = Literal["alone", "after", "beside"]


@dataclass(frozen=True, slots=True)
class Item:
    """A question about a scene.

    Attributes:
        family: Scene family.
        split: Split of the world.
        scene: Index of the scene in its split.
        question: What is asked, with the expected answer and its type.
    """

    family: str
    split: str
    scene: int
    question: scenes.Question


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model said to an item, with the picture and with a blank one."""

    item: Item
    said: str
    said_blind: str

    @property
    def right(self) -> bool:
        """Whether the answer is exactly the expected one."""
        return is_right(self.said, self.item.question.answer)

    @property
    def right_blind(self) -> bool:
        """Whether the answer without the picture is the expected one."""
        return is_right(self.said_blind, self.item.question.answer)


@dataclass(frozen=True)
class WorldReport:
    """Outcomes and what they were obtained with.

    Attributes:
        model: Name of the model.
        split: Split of the world.
        outcomes: One per question.
        settings: What else is needed to repeat the evaluation.
    """

    model: str
    split: str
    outcomes: tuple[Outcome, ...]
    settings: dict[str, Any]

    def to_dict(self, *, samples: bool = False) -> dict[str, Any]:
        """Return plain JSON types; accuracies are fractions, `samples` adds every single answer.

        `versions` holds, for every version of the world whose families were all asked about, the mean over them.
        """
        families: dict[str, Any] = {}
        for name, outcomes in _grouped(self.outcomes, lambda outcome: outcome.item.family).items():
            types = _grouped(outcomes, lambda outcome: outcome.item.question.type)
            forms = _grouped(outcomes, lambda outcome: outcome.item.question.form)
            families[name] = {
                **_score(outcomes),
                "interval": interval(outcomes),
                "types": {kind: _score(members) for kind, members in types.items()},
                "forms": {form: _score(members) for form, members in forms.items()},
            }
        report = {
            "families": families,
            "model": self.model,
            "split": self.split,
            "world": scenes.version_with(families),
            "versions": _by_version(families),
            **self.settings,
        }
        if samples:
            report["samples"] = [_sample(outcome) for outcome in self.outcomes]
        return report


def items(family: str, split: str, limit: int | None = None) -> list[Item]:
    """Return the questions of a family: the frozen list of "test" and "shifted", the first scenes of other splits.

    Args:
        family: One of `saccade.data.scenes.ALL_FAMILIES`.
        split: One of `saccade.data.scenes.SPLITS`.
        limit: At most so many questions, spread evenly over the list.

    Raises:
        DataError: for an unknown family or split, or a limit below 1.
    """
    for name, value, known in (("family", family, scenes.ALL_FAMILIES), ("split", split, scenes.SPLITS)):
        if value not in known:
            raise DataError(f"{name} {value!r} is not one of {', '.join(known)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: ask at least 1 question")
    if split in ("test", "shifted"):
        found = [Item(family, split, scene, question) for scene, question in scenes.frozen_test(family, split)]
    else:
        found = _first_questions(family, split, VAL_QUESTIONS)
    if limit is None or limit >= len(found):
        return found
    return [found[n * len(found) // limit] for n in range(limit)]


def predict(
    vlm: VLM,
    questions: Sequence[Item],
    *,
    setting: Setting = "alone",
    batch_size: int = 64,
    blank: bool = False,
    on_answers: Callable[[int], None] | None = None,
) -> list[str]:
    """Return the model's greedy answers.

    Questions are taken in the order of their scenes, and a picture that a batch shares with the one before is not
    encoded again: the tower sees each picture once, however many questions ask of it or show it beside their own.

    Args:
        vlm: The model.
        questions: What is asked.
        setting: What else the conversation holds: nothing, or the picture of the next scene of the family and split,
            so that a question is put in the same words whatever else is asked.
        batch_size: Questions at once.
        blank: Show mid-gray pictures of the same sizes instead.
        on_answers: Called after every batch with the number of its questions.
    """
    order = sorted(range(len(questions)), key=lambda n: (questions[n].family, questions[n].split, questions[n].scene))
    answers = [""] * len(questions)
    seen: dict[Any, EncodedImage] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = [questions[n] for n in rows]
        others = [] if setting == "alone" else [_companion(item) for item in batch]
        seen = _encode(vlm, [*batch, *others], blank, seen)
        talks = [_talk(item, seen, setting) for item in batch]
        for n, answer in zip(rows, vlm.answer(talks, Sampling(max_new_tokens=MAX_NEW_TOKENS)), strict=True):
            answers[n] = answer.text
        if on_answers is not None:
            on_answers(len(rows))
    return answers


def evaluate_world(
    vlm: VLM,
    families: Sequence[str] = scenes.FAMILIES,
    split: str = "test",
    limit: int | None = None,
    setting: Setting = "alone",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> WorldReport:
    """Ask a model about the world twice, with the pictures and with blank ones.

    Args:
        vlm: The model.
        families: Families of scenes; one that is named twice counts once.
        split: Split of the world.
        limit: At most so many questions of each family.
        setting: "alone": one picture, one question. "after": in a conversation in which another picture was asked
            about and answered rightly. "beside": of two pictures in one message, named by its place.
        batch_size: Questions at once.
        progress: Called with (answers so far, answers in all).

    Raises:
        DataError: for an unknown family or split, or a limit below 1.
    """
    questions = [item for family in dict.fromkeys(families) for item in items(family, split, limit)]
    done = 0

    def count(answered: int) -> None:
        nonlocal done
        done += answered
        if progress is not None:
            progress(done, 2 * len(questions))

    said = predict(vlm, questions, setting=setting, batch_size=batch_size, on_answers=count)
    blind = predict(vlm, questions, setting=setting, batch_size=batch_size, blank=True, on_answers=count)
    outcomes = tuple(Outcome(*row) for row in zip(questions, said, blind, strict=True))
    return WorldReport(vlm.name, split, outcomes, {"limit": limit, "setting": setting, **scored_with(vlm)})


def is_right(said: str, expected: str) -> bool:
    """Whether two answers are the same but for case, surrounding blanks and a final period."""
    return _plain(said) == _plain(expected)


def interval(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the accuracy; scenes are drawn whole, their questions hang together."""
    by_scene = _grouped(outcomes, lambda outcome: outcome.item.scene).values()
    right = np.array([sum(outcome.right for outcome in group) for group in by_scene])
    count = np.array([len(group) for group in by_scene])
    low, high = intervals(len(right), lambda drawn: right[drawn].sum() / count[drawn].sum())
    return round(float(low), 4), round(float(high), 4)


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".").rstrip()


def _first_questions(family: str, split: str, count: int) -> list[Item]:
    found: list[Item] = []
    scene = 0
    while len(found) < count:
        found += [Item(family, split, scene, question) for question in scenes.render(family, split, scene).questions]
        scene += 1
    return found[:count]


def _picture_key(item: Item) -> tuple[str, str, int]:
    return item.family, item.split, item.scene


def _encode(vlm: VLM, batch: Sequence[Item], blank: bool, seen: dict[Any, EncodedImage]) -> dict[Any, EncodedImage]:
    """Return the encoded pictures of a batch; those in `seen`, from the batch before, are reused."""
    pictures: dict[Any, Any] = {}
    for item in batch:
        key = _picture_key(item)
        if key not in pictures:
            pictures[key] = seen[key] if key in seen else _picture(item, blank)
    return dict(zip(pictures, vlm.encode_batch(list(pictures.values())), strict=True))


def _companion(item: Item) -> Item:
    """What an item is shown with: a question about the next scene."""
    scene = item.scene + 1
    return Item(item.family, item.split, scene, scenes.sketch(item.family, item.split, scene).questions[0])


def _talk(item: Item, pictures: dict[Any, EncodedImage], setting: Setting) -> Conversation:
    """The conversation that ends with an item's question."""
    picture = pictures[_picture_key(item)]
    if setting == "alone":
        return Conversation().ask(item.question.text, (picture,))
    other = _companion(item)
    companion = pictures[_picture_key(other)]
    if setting == "after":
        before = Conversation().ask(other.question.text, (companion,)).reply(other.question.answer)
        return before.ask(item.question.text, (picture,))
    place = item.scene % 2
    shown = (picture, companion) if place == 0 else (companion, picture)
    return Conversation().ask(scenes.about_picture(item.question, place).text, shown)


def _picture(item: Item, blank: bool) -> np.ndarray[Any, Any]:
    image = scenes.render(item.family, item.split, item.scene).image
    return np.full_like(image, BLANK_LEVEL) if blank else image


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Outcome], Any]) -> dict[Any, list[Outcome]]:
    groups: dict[Any, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def _score(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "accuracy": round(sum(outcome.right for outcome in outcomes) / len(outcomes), 4),
        "blank_accuracy": round(sum(outcome.right_blind for outcome in outcomes) / len(outcomes), 4),
        "n": len(outcomes),
    }


def _by_version(families: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Mean scores over the families of each version of the world that has no other family."""
    versions = {}
    for version in scenes.VERSIONS:
        names = scenes.families(version)
        if families.keys() >= set(names):
            versions[version] = {
                kind: round(sum(families[name][kind] for name in names) / len(names), 4)
                for kind in ("accuracy", "blank_accuracy")
            }
    return versions


def _sample(outcome: Outcome) -> dict[str, Any]:
    item = outcome.item
    return {
        "family": item.family,
        "scene": item.scene,
        "type": item.question.type,
        "question": item.question.text,
        "expected": item.question.answer,
        "said": outcome.said,
        "said_blind": outcome.said_blind,
    }
