"""How sure a score is: what it would be for other questions of the same kind, by drawing from those that were asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOOTSTRAP_DRAWS = 2000


def intervals(
    units: int, measure: Callable[[NDArray[np.int64]], ArrayLike], on_draw: Callable[[int], None] | None = None
) -> NDArray[np.float64]:
    """Return the 95 % intervals of some figures, by drawing units with replacement; the same whenever it is asked for.

    Args:
        units: How many there are. What hangs together, such as the questions about one picture, is one.
        measure: From the numbers of drawn units `[units]` to the figures `[...]`, NaN for one that they do not give.
        on_draw: Called with the number of draws so far.

    Returns:
        `[2, ...]`, lower and upper ends.
    """
    dice = np.random.default_rng(0)
    figures = []
    for number in range(1, BOOTSTRAP_DRAWS + 1):
        figures.append(measure(dice.integers(units, size=units)))
        if on_draw is not None:
            on_draw(number)
    ends: NDArray[np.float64] = np.nanquantile(np.array(figures, dtype=np.float64), [0.025, 0.975], axis=0)
    return ends
