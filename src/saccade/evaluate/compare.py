"""Two records side by side: what differs between them first, then by how much they do, then which samples flipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Benchmark
from saccade.evaluate.bootstrap import intervals
from saccade.evaluate.records import Record, Row, to_samples, units
from saccade.vlm.ledger import flatten

# What scores depend on, most telling first; everything else in a record follows from it, or is a name.
CONDITIONS = ("model", "prompt", "decoding", "image", "dtype", "engine", "versions", "set", "made")
# What a sample may differ in, and what that is called; the hashes of it over a whole record say no more.
_OF_SAMPLES = {"prompt": "prompt.text", "answers": "set.answers", "details": "set.details", "pictures": "set.pictures"}
_HASHES = {"prompt.texts", "set.fingerprint"}
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Change:
    """A condition that differs.

    Attributes:
        name: Its path in the header of a record, or what of the samples differs.
        a: Its value in the first record, None where it has none; of samples, that of the first one that differs.
        b: Its value in the second.
        samples: In how many samples it differs; None for a condition of all.
    """

    name: str
    a: Any
    b: Any
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """A score in both records, and how sure it is that it changed.

    Attributes:
        name: Of the score.
        a: In the first record.
        b: In the second.
        difference: The second less the first.
        interval: 95 % bootstrap interval of the difference; both are asked the same drawn units.
    """

    name: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that was judged otherwise."""

    key: str
    prompt: str
    answers: tuple[str, ...]
    said_a: str
    said_b: str
    score_a: float
    score_b: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        changes: Conditions that differ, in the order of `CONDITIONS`.
        shifts: Scores of the samples that both records hold, the headline first.
        flips: Samples whose score changed, in order.
        both: Samples that both records hold.
        only_a: Samples that only the first holds.
        only_b: Samples that only the second holds.
    """

    changes: tuple[Change, ...]
    shifts: tuple[Shift, ...]
    flips: tuple[Flip, ...]
    both: int
    only_a: int
    only_b: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def compare(a: Record, b: Record, benchmark: Benchmark, on_draw: Callable[[int], None] | None = None) -> Comparison:
    """Compare two records of one benchmark.

    Scores are those of the samples that both hold, so that a record of a part can be compared with one of the whole.

    Args:
        a: The first record.
        b: The second record.
        benchmark: The set of both.
        on_draw: Called with the number of bootstrap draws so far.

    Raises:
        DataError: when the records are of different sets, or share no sample.
    """
    names = {record.header["benchmark"] for record in (a, b)}
    if names != {benchmark.name}:
        raise DataError(f"records of {', '.join(sorted(names))} cannot be compared: name two of the same set")
    others = {row["key"]: row for row in b.rows}
    pairs = [(row, others[row["key"]]) for row in a.rows if row["key"] in others]
    if not pairs:
        raise DataError(f"{a.folder} and {b.folder} share no sample of {benchmark.title}: compare records of the same")
    return Comparison(
        changes=tuple(sorted([*_changes(a.header, b.header), *_changes_of_samples(pairs)], key=_place)),
        shifts=tuple(_shifts(benchmark, pairs, on_draw)),
        flips=tuple(_flip(*pair) for pair in pairs if _score(pair[0]) != _score(pair[1])),
        both=len(pairs),
        only_a=len(a.rows) - len(pairs),
        only_b=len(b.rows) - len(pairs),
    )


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the conditions that differ, as deep as both are mappings."""
    flat_a, flat_b = (flatten({name: header[name] for name in CONDITIONS}) for header in (a, b))
    for name in dict.fromkeys((*flat_a, *flat_b)):
        if name not in _HASHES and flat_a.get(name) != flat_b.get(name):
            yield Change(name, flat_a.get(name), flat_b.get(name))


def _changes_of_samples(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Change]:
    for field, name in _OF_SAMPLES.items():
        differ = [(a[field], b[field]) for a, b in pairs if a[field] != b[field]]
        if differ:
            yield Change(name, *differ[0], samples=len(differ))


def _place(change: Change) -> int:
    return CONDITIONS.index(change.name.partition(".")[0])


def _shifts(
    benchmark: Benchmark, pairs: Sequence[tuple[Row, Row]], on_draw: Callable[[int], None] | None
) -> Iterator[Shift]:
    members = units(row for row, _ in pairs)
    # Each record is summed up with its own samples: another protocol may accept other answers.
    sides = [(to_samples(rows), [row["judged"] for row in rows]) for rows in zip(*pairs, strict=True)]

    def summed(numbers: Iterable[int]) -> list[dict[str, float]]:
        picked = list(numbers)
        return [
            benchmark.summarize([samples[n] for n in picked], [judged[n] for n in picked]) for samples, judged in sides
        ]

    def measure(drawn: Iterable[int]) -> list[float]:
        first, second = summed(number for unit in drawn for number in members[unit])
        return [second.get(name, math.nan) - first.get(name, math.nan) for name in names]

    first, second = summed(range(len(pairs)))
    names = [name for name in first if name in second]
    low, high = intervals(len(members), measure, on_draw).round(_DIGITS).tolist()
    for n, name in enumerate(names):
        values = round(first[name], _DIGITS), round(second[name], _DIGITS)
        yield Shift(name, *values, round(second[name] - first[name], _DIGITS), (low[n], high[n]))


def _flip(a: Row, b: Row) -> Flip:
    return Flip(a["key"], a["prompt"], tuple(a["answers"]), a["said"], b["said"], _score(a), _score(b))


def _score(row: Row) -> float:
    score: float = row["judged"]["score"]
    return score
