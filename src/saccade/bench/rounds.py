"""Measuring on machines that are noisy: rounds that alternate, medians with their spread, ratios within a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from saccade.errors import ConfigError

PERCENTILES = (50, 90, 95, 99)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Spread:
    """The middle of repeated measurements and how far they lie apart.

    Attributes:
        median: The middle value.
        lower: First quartile.
        upper: Third quartile.
        least: Smallest value.
        most: Largest value; with five rounds the true median lies between `least` and `most` in 94 of 100 cases, with
            more rounds more often.
        count: How many values.
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float
    count: int

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON types, six significant digits."""
        return {name: value if name == "count" else significant(value) for name, value in asdict(self).items()}


def spread(values: Sequence[float]) -> Spread:
    """Summarize values; raises ConfigError when there are none."""
    if not values:
        raise ConfigError("there is nothing to summarize: measure at least once")
    lower, median, upper = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return Spread(median, lower, upper, float(min(values)), float(max(values)), len(values))


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Summarize the ratios of two subjects round by round: what slows a machine for a while slows both.

    Raises:
        ConfigError: when they have not as many rounds.
    """
    if len(over) != len(under):
        raise ConfigError(f"{len(over)} rounds cannot be compared with {len(under)}: measure both in the same run")
    return spread([above / below for above, below in zip(over, under, strict=True)])


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the `PERCENTILES` of values by name, such as "p50"."""
    found = np.percentile(values, PERCENTILES)
    return {f"p{name}": significant(float(value)) for name, value in zip(PERCENTILES, found, strict=True)}


def interleaved(
    runs: Mapping[str, Callable[[], _Result]],
    rounds: int,
    warm_up: int = 1,
    on_run: Callable[[str], None] | None = None,
    spent: Callable[[], bool] = lambda: False,
) -> dict[str, list[_Result]]:
    """Run everything once in every round, forwards and backwards by turns.

    Args:
        runs: What to run, by name.
        rounds: How often.
        warm_up: Runs of each before the first round, whose results are dropped.
        on_run: Called with the name after every run.
        spent: Asked after every round whether there is no time for another.

    Returns:
        The results of each, one for every round; at least one.
    """
    results: dict[str, list[_Result]] = {name: [] for name in runs}
    for turn in range(-warm_up, rounds):
        names = list(runs) if turn % 2 == 0 else list(runs)[::-1]
        for name in names:
            result = runs[name]()
            if turn >= 0:
                results[name].append(result)
            if on_run is not None:
                on_run(name)
        if turn >= 0 and spent():
            break
    return results


class Budget:
    """Seconds for a whole run, divided fairly over its parts: what one part leaves over, those after it share.

    Args:
        seconds: In all; None for no bound.
        parts: How many parts will ask for their share.

    Attributes:
        cut: Whether a part was told that its share is spent.
    """

    def __init__(self, seconds: float | None, parts: int) -> None:
        self.cut = False
        self._end = math.inf if seconds is None else perf_counter() + seconds
        self._parts = parts

    def share(self) -> Callable[[], bool]:
        """Begin the next part; the function returned says whether its share is spent."""
        now = perf_counter()
        end = now + (self._end - now) / max(1, self._parts)
        self._parts -= 1

        def spent() -> bool:
            over = perf_counter() >= end
            self.cut |= over
            return over

        return spent


def significant(value: float, digits: int = 6) -> float:
    """Round to significant digits."""
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, digits - 1 - math.floor(math.log10(abs(value))))
    )
