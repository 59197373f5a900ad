"""How questions become conversations: about one picture, about two of them, and turns about none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.data.scenes import Dice, Question, Scene, about_picture, ask_without_picture
from saccade.prompt.conversation import Turn


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture in a conversation.

    Attributes:
        scene: What it shows.
        views: What the model gets of it, `[views, ...]`.
    """

    scene: Scene
    views: NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.scene.image.shape[:2]
        return width, height


@dataclass(frozen=True, eq=False)
class Conversation:
    """Turns that end with an answer, and the pictures they show, in order."""

    turns: list[Turn]
    pictures: tuple[Shown, ...]


def about_one(picture: Shown, questions: Sequence[Question]) -> Conversation:
    """Show a picture and ask about it, turn after turn."""
    turns = [turn for question in questions for turn in exchange(question)]
    return Conversation([replace(turns[0], images=1), *turns[1:]], (picture,))


def one_after_the_other(earlier: Shown, asked: Question, later: Shown, questions: Sequence[Question]) -> Conversation:
    """Ask about a picture, then show another and ask about that: a question means the picture shown last."""
    first, second = about_one(earlier, [asked]), about_one(later, questions)
    return Conversation(first.turns + second.turns, (earlier, later))


def side_by_side(pictures: tuple[Shown, Shown], asked: Sequence[tuple[int, Question]]) -> Conversation:
    """Show two pictures at once and ask about either, by its place in the message (0 or 1)."""
    turns = [turn for place, question in asked for turn in exchange(about_picture(question, place))]
    return Conversation([replace(turns[0], images=2), *turns[1:]], pictures)


def with_small_talk(dice: Dice, talk: Conversation) -> Conversation:
    """Put a question that needs no picture before, between or after the others."""
    place = 2 * dice.below(len(talk.turns) // 2 + 1)
    aside = exchange(ask_without_picture(dice, talk.pictures[0].scene.split))
    return Conversation([*talk.turns[:place], *aside, *talk.turns[place:]], talk.pictures)


def exchange(question: Question) -> list[Turn]:
    """A question and its answer."""
    return [Turn("user", question.text), Turn("assistant", question.answer)]


def views_of(talk: Conversation) -> NDArray[Any]:
    """The views of a conversation's pictures, `[views, ...]`; of a single picture the very array it came with."""
    return (
        talk.pictures[0].views if len(talk.pictures) == 1 else np.concatenate([shown.views for shown in talk.pictures])
    )
