"""The one source of chance: a few cheap draws over a numpy generator, so that a seed means one scene for ever."""

import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Draws from one stream of uniform numbers.

    Only `Generator.random` is ever called, because it is the draw whose stream numpy has kept stable; everything else
    is arithmetic on it in double precision.
    """

    __slots__ = ("random",)

    def __init__(self, generator: np.random.Generator) -> None:
        self.random = generator.random

    def uniform(self, low: float, high: float) -> float:
        """A number from [low, high)."""
        return low + (high - low) * self.random()

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(self.random() * limit)

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self.random() * len(items))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, likely in proportion to its weight."""
        rest = self.random() * sum(weights.values())
        for key, weight in weights.items():
            rest -= weight
            if rest < 0:
                return key
        return key

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher-Yates)."""
        deck = list(items)
        for last in range(len(deck) - 1, 0, -1):
            other = int(self.random() * (last + 1))
            deck[last], deck[other] = deck[other], deck[last]
        return deck


def dice_for(family: str, split: str, index: int, since: int = 1) -> Dice:
    """The dice of one scene.

    Version, family, split and index enter the seed as separate words, so no two of them share a stream: the splits are
    disjoint by construction, and scene 1000000 costs as much as scene 0. The version is the one `since` which the
    family is what it is, so that a new world keeps the scenes of the families that it does not change.
    """
    entropy = (since, zlib.crc32(family.encode()), zlib.crc32(split.encode()), index)
    return Dice(np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy))))
