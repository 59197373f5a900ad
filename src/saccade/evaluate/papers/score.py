"""The benchmarks of a paper that can be scored here, scored, in the paper's own units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.evaluate.benchmarks import benchmark
from saccade.evaluate.papers.planning import Step
from saccade.evaluate.papers.tables import Paper
from saccade.evaluate.records import Record
from saccade.evaluate.run import BATCH_SIZE, evaluate

if TYPE_CHECKING:
    from saccade.vlm import VLM

# Called with the step, "asking" or "resampling", done so far, and in all.
Progress = Callable[[Step, str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A benchmark that was scored.

    Attributes:
        step: The benchmark.
        record: Its record.
    """

    step: Step
    record: Record

    def to_dict(self) -> dict[str, Any]:
        """Return the headline as the paper prints such scores, percent or points of so many, in plain JSON types."""
        name, score = self.record.headline
        units = self.step.scored.out_of / self.record.header["full"]
        return {
            "name": name,
            "value": score["value"] * units,
            "interval": [bound * units for bound in score["interval"]],
            "blank": score["blank"] * units,
            "samples": self.record.header["set"]["samples"],
            "record": str(self.record.folder),
        }


def score(
    vlm: VLM,
    paper: Paper,
    steps: Sequence[Step],
    out: Path,
    *,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    skip_bad: bool = False,
    progress: Progress = lambda *_: None,
) -> Iterator[Outcome]:
    """Score what lies here, one record for each benchmark; the same call again goes on where it stopped.

    Args:
        vlm: The model.
        paper: The paper, in whose words questions are asked.
        steps: Its plan, of which the steps that are "here" are taken.
        out: Folder of the records, each in a folder named after its local copy.
        limit: At most so many units of each set.
        batch_size: Questions side by side.
        skip_bad: Count samples that cannot be asked as wrong instead of stopping.
        progress: Told how far a step is.

    Raises:
        DataError: for a local copy or a record that cannot be used.
        ConfigError: for a model that the engine cannot run.
    """
    for step in steps:
        if step.copy is not None:
            record = evaluate(
                vlm,
                benchmark(str(step.scored.set)),
                step.copy,
                out / str(step.scored.local),
                protocol=paper.name,
                limit=limit,
                batch_size=batch_size,
                skip_bad=skip_bad,
                command=step.command,
                progress=partial(progress, step),
            )
            yield Outcome(step, record)
