"""Stages 1 and 2: captions and questions about the rendered world, several questions on one encoded picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from saccade.data.collate import Sample
from saccade.data.encoder import Encoder
from saccade.data.scenes import Dice, Question, Scene, ask_again, ask_to_describe, ask_where
from saccade.train.conversations import (
    Conversation,
    Shown,
    about_one,
    one_after_the_other,
    side_by_side,
    views_of,
    with_small_talk,
)
from saccade.train.tasks import Questions
from saccade.train.world import Pictures


class CaptionDataset(Pictures):
    """Pictures with their captions in the plain form."""

    def __init__(self, *args: Any, encoder: Encoder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder = encoder

    def __getitem__(self, number: int) -> list[Sample]:
        """Return the one sample of a picture."""
        scene = self.scene(number)
        height, width = scene.image.shape[:2]
        return [Sample(self.encoder.plain(scene.caption, [(width, height)]), self.views(number, scene))]


class QuestionDataset(CaptionDataset):
    """Pictures with several questions each, asked in conversations of one or more turns.

    Args:
        task: Says how many questions a picture and a conversation get, and how often what else is asked.
    """

    def __init__(self, *args: Any, task: Questions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task = task

    def __getitem__(self, number: int) -> list[Sample]:
        """Return the conversations about a picture; those about it alone share one array of views."""
        task, dice = self.task, Dice(np.random.default_rng(number))
        picture = self._show(number)
        questions = self._choose(dice, picture.scene)
        groups = [questions[start : start + task.turns] for start in range(0, len(questions), task.turns)]
        talks = [about_one(picture, group) for group in groups]
        if dice.chance(task.second_picture):
            talks[-1] = self._with_another(dice, picture, groups[-1], number)
        description = ask_to_describe(dice, picture.scene) if dice.chance(task.describe) else None
        if description is not None:
            talks.append(about_one(picture, [description]))
        talks = [with_small_talk(dice, talk) if dice.chance(task.small_talk) else talk for talk in talks]
        return [self._sample(talk) for talk in talks]

    def _show(self, number: int) -> Shown:
        scene = self.scene(number)
        return Shown(scene, self.views(number, scene))

    def _choose(self, dice: Dice, scene: Scene) -> list[Question]:
        task = self.task
        where = ask_where(dice, scene) if dice.chance(task.where) else None
        asked = scene.questions + (ask_again(dice, scene) if task.emphasis else ())
        return dice.shuffled(spread(dice, asked, task.questions, task.emphasis) + ([where] if where else []))

    def _with_another(self, dice: Dice, picture: Shown, questions: list[Question], number: int) -> Conversation:
        """Show the picture after another one or beside it: the next of the stage."""
        other = self._show((number + 1) % len(self))
        asked = dice.pick(other.scene.questions)
        if dice.chance(0.5):
            return one_after_the_other(other, asked, picture, questions)
        place = dice.below(2)
        pictures = (picture, other) if place == 0 else (other, picture)
        return side_by_side(
            pictures, dice.shuffled([(1 - place, asked), *((place, question) for question in questions)])
        )

    def _sample(self, talk: Conversation) -> Sample:
        return Sample(self.encoder.chat(talk.turns, [shown.size for shown in talk.pictures]), views_of(talk))


def spread(
    dice: Dice, questions: Sequence[Question], count: int, emphasis: Mapping[str, float] | None = None
) -> list[Question]:
    """Choose up to `count` questions, one of every type before a second of any.

    The world asks some types more often than others; training should not. A type with an emphasis of 3 is asked three
    times where others are asked once.
    """
    weights, seen, places = emphasis or {}, Counter[str](), []
    for question in dice.shuffled(questions):
        places.append(((seen[question.type] + dice.random()) / weights.get(question.type, 1.0), question))
        seen[question.type] += 1
    return [question for _, question in sorted(places, key=itemgetter(0))[:count]]
