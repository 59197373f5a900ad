"""Two rows on the same questions: how far one is ahead, which errors it avoids, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.evaluate.bootstrap import intervals

# By form of question, as `family.form`: the scenes that were asked about, each with a `+` where the answer was right,
# else with a `-`.
Answers = Mapping[str, str]


def counts(form: str, wanted: Sequence[str]) -> bool:
    """Whether a form, as `family.form`, is one of those wanted or begins like one of them; without any, all count."""
    return not wanted or any(f"{form}.".startswith(f"{one}.") for one in wanted)


def lead(
    better: Sequence[Answers], worse: Sequence[Answers], wanted: Sequence[str] = (), *, errors: bool = False
) -> float:
    """Return a paired difference over all seeds together: points of accuracy, or percent of errors avoided.

    Args:
        better: Answers of one row, seed by seed.
        worse: Answers of the other row, of the same seeds to the same questions.
        wanted: Forms that are counted, all questions alike; if there are none, all are, families alike.
        errors: Return percent of the other row's errors that are avoided; 0 where it makes none.
    """
    ahead, whole = (column.sum() for column in _by_scene(better, worse, wanted, errors=errors))
    # Rounded, so that what cancels is nothing, and neither side is ahead by the last digit of a sum.
    return round(100 * float(ahead / whole), 6) + 0.0 if whole else 0.0


def interval(
    better: Sequence[Answers], worse: Sequence[Answers], wanted: Sequence[str] = (), *, errors: bool = False
) -> tuple[float, float]:
    """Return the 95 % interval of `lead`, which takes the same arguments.

    Scenes are drawn with replacement, each with all its questions, and the same ones for both rows and all seeds: the
    interval tells how far the questions of the test decide, the spread over the seeds how far the training does.
    """
    ahead, whole = _by_scene(better, worse, wanted, errors=errors)
    if not whole.any():
        return 0.0, 0.0

    def share(drawn: NDArray[np.int64]) -> float:
        count = whole[drawn].sum()
        return float(ahead[drawn].sum() / count) if count else math.nan

    low, high = 100 * intervals(len(whole), share)
    return float(low), float(high)


def _by_scene(
    better: Sequence[Answers], worse: Sequence[Answers], wanted: Sequence[str], *, errors: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each scene by how many questions the better row is ahead, and how many count; summed over the seeds.

    Those that count are all, or the other's errors. A question weighs one, or one over the number of its family's.
    """
    ahead, whole = (defaultdict[tuple[str, str], float](float) for _ in range(2))
    for one, other in zip(better, worse, strict=True):
        forms = {form: other[form].split() for form in other if counts(form, wanted)}
        many = Counter[str]()
        for form, marks in forms.items():
            many[_family(form)] += len(marks)
        for form, marks in forms.items():
            weight = 1.0 if wanted else 1 / many[_family(form)]
            for mine, its in zip(one[form].split(), marks, strict=True):
                scene = _family(form), its[:-1]
                ahead[scene] += weight * (mine.endswith("+") - its.endswith("+"))
                whole[scene] += weight * (its.endswith("-") or not errors)
    return np.array(list(ahead.values())), np.array(list(whole.values()))


def _family(form: str) -> str:
    return form.partition(".")[0]
