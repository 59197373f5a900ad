"""Families mixed by shares: which scene a number stands for."""

import itertools
from collections.abc import Mapping

from saccade.errors import ConfigError

_CYCLE = 20


class Shares:
    """A map from numbers, from 0 on, to scenes; different numbers are different scenes.

    Args:
        families: Families of the world, each with its share of the numbers.

    Raises:
        ConfigError: A share is too small for a place in the cycle in which the families take turns.
    """

    def __init__(self, families: Mapping[str, float]) -> None:
        self._cycle = _cycle(families)

    def place(self, number: int) -> tuple[str, int]:
        """The family and the index of the scene that a number stands for."""
        turn, place = divmod(number, len(self._cycle))
        family = self._cycle[place]
        before, per_turn = self._cycle[:place].count(family), self._cycle.count(family)
        return family, turn * per_turn + before


def _cycle(families: Mapping[str, float]) -> list[str]:
    """Spread the families over a cycle in proportion to their shares, as evenly as can be."""
    total = sum(families.values())
    owed = dict.fromkeys(families, 0.0)
    cycle = []
    for _ in itertools.repeat(None, _CYCLE):
        for family, share in families.items():
            owed[family] += share / total
        family = max(owed, key=lambda name: owed[name])
        owed[family] -= 1
        cycle.append(family)
    missing = sorted(families.keys() - set(cycle))
    if missing:
        raise ConfigError(
            f"the share of {', '.join(missing)} is below one picture in {_CYCLE}: raise it or leave it out"
        )
    return cycle
