"""The rendered world as rows: questions to tune a model on, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from saccade.data import scenes
from saccade.data.rows import ChatRow, PreferenceRow, ProblemRow
from saccade.errors import DataError
from saccade.image import ImageSource
from saccade.prompt import Turn

_SPLITS = ("train", "val")


class _WorldRows:
    """One question of each scene, scene after scene of each family; all types of a family are asked equally often.

    Args:
        families: Families of the rendered world, each with its share of the rows.
        length: Number of rows.
        split: `train` or `val`.
        pictures: Whether the pictures are shown. Where they are not, the caption of a scene stands before its question,
            as in the text-only training that comes before rewards (Flash-VL, Sec. 4.7).
        first: How many rows to pass over, each with its scene: rows that begin behind others of the same families, with
            the same shares, share no scene with them.

    Raises:
        DataError: The length is below 1, `first` below 0, a family is unknown, or tests are made of the split.
        ConfigError: A family has too small a share.
    """

    def __init__(
        self, families: Mapping[str, float], length: int, split: str = "train", pictures: bool = True, first: int = 0
    ) -> None:
        if length < 1 or first < 0:
            raise DataError(f"{length} rows of the rendered world from {first}: ask for at least 1, from 0 or later")
        if split not in _SPLITS:
            raise DataError(f"split {split!r} of the rendered world gives no rows: use {' or '.join(_SPLITS)}")
        unknown = families.keys() - set(scenes.ALL_FAMILIES)
        if unknown:
            raise DataError(
                f"the rendered world asks nothing of {', '.join(sorted(unknown))}: use {', '.join(scenes.ALL_FAMILIES)}"
            )
        self.shares, self.length, self.split, self.pictures = scenes.Shares(families), length, split, pictures
        self.first = first

    def __len__(self) -> int:
        """Number of rows."""
        return self.length

    def _draw(self, index: int) -> tuple[str, tuple[ImageSource, ...], Turn, scenes.Question]:
        """Where a row stands, its pictures (uint8 `[height, width, 3]`), what is said, and the question in it."""
        if not 0 <= index < self.length:
            raise IndexError(f"there is no row {index} of {self.length}")
        index += self.first
        family, number = self.shares.place(index)
        where, scene = f"{family} {self.split} {number}", scenes.render(family, self.split, number)
        dice = scenes.Dice(np.random.default_rng(index))
        kind = dice.pick(list(dict.fromkeys(question.type for question in scene.questions)))
        question = dice.pick([question for question in scene.questions if question.type == kind])
        if not self.pictures:
            return where, (), Turn("user", f"{scene.caption} {question.text}"), question
        return where, (scene.image,), Turn("user", question.text, images=1), question


class WorldChats(_WorldRows):
    """Questions with their answers as conversations."""

    def __getitem__(self, index: int, /) -> ChatRow:
        """Return a row; raises IndexError beyond the last."""
        where, pictures, asked, question = self._draw(index)
        return ChatRow(where, pictures, (asked, Turn("assistant", question.answer)))


class WorldPreferences(_WorldRows):
    """Questions with the right answer and a wrong one that is easily given; the families must have wrong answers."""

    def __init__(
        self, families: Mapping[str, float], length: int, split: str = "train", pictures: bool = True, first: int = 0
    ) -> None:
        super().__init__(families, length, split, pictures, first)
        plain = [name for name in families if not all(asked.wrong for asked in scenes.sketch(name, split, 0).questions)]
        if plain:
            raise DataError(f"{', '.join(plain)} of the rendered world has no wrong answers: prefer among 'preference'")

    def __getitem__(self, index: int, /) -> PreferenceRow:
        """Return a row; raises IndexError beyond the last."""
        where, pictures, asked, question = self._draw(index)
        return PreferenceRow(where, pictures, (asked,), chosen=question.answer, rejected=question.wrong)


class WorldProblems(_WorldRows):
    """Questions with the answer that one's own is verified against."""

    def __getitem__(self, index: int, /) -> ProblemRow:
        """Return a row; raises IndexError beyond the last."""
        where, pictures, asked, question = self._draw(index)
        return ProblemRow(where, pictures, (asked,), solution=question.answer)
