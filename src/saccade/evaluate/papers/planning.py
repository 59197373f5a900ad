"""What repeating a paper's scores takes: what to download, what is here already, and what needs its toolkit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saccade.data.fetch import Downloader, download_files
from saccade.errors import DataError
from saccade.evaluate.bridges.tasks import tasks
from saccade.evaluate.papers.tables import Number, Paper, Scored

# The control asks every question again, about a blank picture; the toolkits have none.
TIMES_ASKED = 2

State = Literal["here", "to fetch", "toolkit"]


@dataclass(frozen=True, slots=True)
class Step:
    """One benchmark of a paper.

    Attributes:
        scored: The benchmark.
        published: What the paper prints for its released checkpoints, by row.
        copy: Where its local copy lies; None without one.
        command: What scores it.
    """

    scored: Scored
    published: Mapping[str, Number]
    copy: Path | None
    command: str

    @property
    def state(self) -> State:
        """Whether it can be scored here, would be after a download, or needs the paper's toolkit."""
        if self.scored.set is None:
            return "toolkit"
        return "to fetch" if self.copy is None else "here"

    def seconds(self, rate: float) -> float | None:
        """Return how long it takes at a rate of answers a second; None where the questions are not counted."""
        times = 1 if self.state == "toolkit" else TIMES_ASKED
        return None if self.scored.samples is None else times * self.scored.samples / rate

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "benchmark": self.scored.column,
            "set": self.scored.set,
            "state": self.state,
            "samples": self.scored.samples,
            "download": [get.name for get in self.scored.get],
            "gigabytes": self.scored.gigabytes,
            "judge": self.scored.judge,
            "note": self.scored.note,
            "command": self.command,
            "published": dict(self.published),
        }


def plan(paper: Paper, model: str, data: Path | None, out: Path, options: Sequence[str] = ()) -> list[Step]:
    """Say for each benchmark of a paper what scoring a model on it takes.

    Args:
        paper: The paper.
        model: Name, folder or hub id of the model.
        data: Folder of local copies, each a file or a folder named after its set; None for none.
        out: Folder of the records.
        options: What `saccade eval` is asked besides about each set, as words of its command.

    Raises:
        DataError: when the folder of local copies is not there, or holds two of one set.
    """
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is not a folder: make it, and put local copies of the sets there or fetch them")
    steps = []
    for scored in paper.benchmarks:
        copy = None if data is None or scored.local is None else _find_copy(scored.local, data)
        place = copy or (data or Path("DATA")) / (scored.local or "")
        command = _of_toolkit(paper, scored, model, out)
        if scored.set is not None:
            words = ["saccade", "eval", scored.set, str(place), "--model", model, "--protocol", paper.name]
            command = shlex.join([*words, *options, "--out", str(out / str(scored.local))])
        steps.append(Step(scored, paper.published(scored.column), copy, command))
    return steps


def fetch(steps: list[Step], data: Path, download: Downloader = download_files) -> Iterator[Step]:
    """Download the sets that can be scored here and are not there yet; the same call again goes on where it stopped.

    Args:
        steps: A plan.
        data: Folder of local copies.
        download: How files are downloaded.

    Yields:
        Each step before its download begins.

    Raises:
        DataError: when one cannot be reached.
    """
    for step in steps:
        if step.state == "to fetch":
            yield step
            # Half a set must not pass for one: the name that is looked for appears when all of it is there.
            part = data / f".{step.scored.local}.part"
            for get in step.scored.get:
                download(get, part)
            part.rename(data / str(step.scored.local))


def _find_copy(name: str, data: Path) -> Path | None:
    found = sorted(path for path in data.iterdir() if path.name.partition(".")[0] == name)
    if len(found) > 1:
        raise DataError(f"{data} holds {len(found)} copies of {name}, {found[0].name} and {found[1].name}: keep one")
    return found[0] if found else None


def _of_toolkit(paper: Paper, scored: Scored, model: str, out: Path) -> str:
    place = shlex.quote(str(out / paper.tool))
    command = paper.command.format(model=shlex.quote(model), task=scored.task, out=place)
    return f"{command} {tasks(paper.name)[scored.column].options}".rstrip()
