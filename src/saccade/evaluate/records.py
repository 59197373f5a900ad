"""Records: a score with all that it depends on and every answer, in a folder that can be compared with another.

`record.json` holds the scores and their conditions, `samples.jsonl` a line for each sample. Only a record that is whole
can be read: while its samples are being asked, or after the lines were changed, it is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.errors import DataError
from saccade.evaluate.benchmarks.benchmark import Benchmark, Sample
from saccade.evaluate.bootstrap import intervals
from saccade.evaluate.conditions import digest

RECORD, ROWS = "record.json", "samples.jsonl"
FORMAT = 2
_DIGITS = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A finished evaluation.

    Attributes:
        folder: Where it lies.
        header: Scores and conditions, as `record.json` holds them.
        rows: What was asked, said and judged, by sample.
    """

    folder: Path
    header: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def headline(self) -> tuple[str, dict[str, Any]]:
        """The name of the score that the set is known for, and the score."""
        name, score = next(iter(self.header["scores"].items()))
        return name, score


def load_record(folder: Path) -> Record:
    """Read a record.

    Raises:
        DataError: when there is none, it is not finished, or its lines are not those that were scored.
    """
    try:
        header = json.loads((folder / RECORD).read_bytes())
        content = (folder / ROWS).read_bytes()
        form, scored = header["record"], header["lines"]
    except (FileNotFoundError, NotADirectoryError) as error:
        begun = (folder / ROWS).exists()
        remedy = "repeat the command that began it" if begun else "name the folder that `saccade eval --out` wrote"
        raise DataError(f"{folder} holds no {'finished ' * begun}record: {remedy}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / RECORD} cannot be read ({error!r}): repeat the command that made it") from error
    if form != FORMAT:
        raise DataError(f"{folder} holds a record of form {form}, and this version reads form {FORMAT}: make it again")
    if hashlib.sha256(content).hexdigest() != scored:
        raise DataError(
            f"{folder / ROWS} is not what {RECORD} beside it was made of: repeat the command that made it, which goes "
            "on where it stopped"
        )
    return Record(folder, header, tuple(json.loads(line) for line in content.splitlines()))


def write_record(
    folder: Path,
    benchmark: Benchmark,
    conditions: Mapping[str, Any],
    origin: Mapping[str, Any],
    on_draw: Callable[[int], None] | None = None,
) -> Record:
    """Score the lines of a folder, and put the scores beside them.

    Args:
        folder: Holds a line for every sample.
        benchmark: The set.
        conditions: What the answers depend on.
        origin: What they do not depend on: names and commands.
        on_draw: Called with the number of bootstrap draws so far.
    """
    content = (folder / ROWS).read_bytes()
    rows = tuple(json.loads(line) for line in content.splitlines())
    header = {
        "record": FORMAT,
        "scores": scores(benchmark, rows, on_draw),
        "full": benchmark.full,
        "cut": sum(row["finish_reason"] == "length" for row in rows),
        "shortened": sum("max_new_tokens" in row for row in rows),
        "errors": [{"key": row["key"], **row["error"]} for row in rows if "error" in row],
        **conditions,
        "seen": digest(name for row in rows for name in row["pictures"]),
        "origin": dict(origin),
        "lines": hashlib.sha256(content).hexdigest(),
    }
    unfinished = folder / f"{RECORD}.unfinished"
    text = json.dumps(header, indent=1, ensure_ascii=False) + "\n"
    # A path that is no UTF-8 holds half characters, which JSON spells as this way of replacing them does.
    unfinished.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    unfinished.replace(folder / RECORD)
    return Record(folder, header, rows)


def scores(
    benchmark: Benchmark, rows: Sequence[Row], on_draw: Callable[[int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the scores by name, the headline first: value, 95 % interval, and the value with the pictures blanked."""
    samples, members = to_samples(rows), units(rows)
    judged = [row["judged"] for row in rows]
    values = benchmark.summarize(samples, judged)
    blank = benchmark.summarize(samples, [row["judged_blind"] for row in rows])

    def measure(drawn: Iterable[int]) -> list[float]:
        numbers = [number for unit in drawn for number in members[unit]]
        found = benchmark.summarize([samples[n] for n in numbers], [judged[n] for n in numbers])
        return [found.get(name, math.nan) for name in values]

    low, high = intervals(len(members), measure, on_draw).round(_DIGITS).tolist()
    return {
        name: {"value": round(value, _DIGITS), "interval": [low[n], high[n]], "blank": round(blank[name], _DIGITS)}
        for n, (name, value) in enumerate(values.items())
    }


def to_samples(rows: Iterable[Row]) -> list[Sample]:
    """Return what was asked, without pictures."""
    return [
        Sample(row["key"], (), row["prompt"], tuple(row["answers"]), row["group"], row["unit"], row["details"])
        for row in rows
    ]


def units(rows: Iterable[Row]) -> list[list[int]]:
    """Return the numbers of the rows of each unit."""
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row["unit"], []).append(number)
    return list(members.values())
