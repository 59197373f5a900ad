"""Several subjects over the same questions, interleaved: times, rates, work and memory of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean
from time import perf_counter
from typing import Any

from saccade.bench.memory import peak_memory
from saccade.bench.rounds import Budget, interleaved, percentiles, ratio, significant, spread
from saccade.bench.subjects import Pixels, Prepared, Subject, Timeline
from saccade.bench.tasks import Ask, Task, picture
from saccade.errors import ConfigError

LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Settings:
    """How a comparison is measured.

    Attributes:
        new_tokens: Tokens of every answer; none stops earlier.
        rounds: Rounds over all subjects, at least `LEAST_ROUNDS`.
        warm_up: Rounds before the first, not counted.
        seed: Of the pictures.
        seconds: After so many no more rounds are begun, even if fewer than `rounds` are done; None for no bound.

    Raises:
        ConfigError: for too few rounds.
    """

    new_tokens: int
    rounds: int = 5
    warm_up: int = 1
    seed: int = 0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise ConfigError(f"{self.rounds} rounds are too few to tell speed from noise: take {LEAST_ROUNDS} or more")


@dataclass(frozen=True)
class Sample:
    """One answer: seconds of preprocessing, and when the tokens came after it."""

    prepare: float
    timeline: Timeline

    @property
    def first_token(self) -> float:
        """Seconds from a decoded picture in memory to the first token."""
        return self.prepare + self.timeline.tokens[0]

    @property
    def total(self) -> float:
        """Seconds from a decoded picture in memory to the last token."""
        return self.prepare + self.timeline.tokens[-1]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one token and the next."""
        return [after - before for before, after in pairwise(self.timeline.tokens)]


def compare(
    subjects: Sequence[Subject],
    task: Task,
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Measure subjects over a task, batch 1.

    Args:
        subjects: With names of their own.
        task: What is asked.
        settings: How it is measured.
        on_run: Called with a subject's name after each answer, those that warm up or count included.
        budget: Of which every question takes a share; without it there is no bound.

    Returns:
        One row per subject, plain JSON types: `ttft`, `prepare`, `tpot` in seconds, `tokens_per_second` and
        `samples_per_second` as spreads over the rounds, each round the mean over the questions; `ttft_percentiles`
        and `tpot_percentiles` over single answers and tokens; `flops` and `macs` to the first token, counted;
        `memory_bytes`, weights, what is held beside them and the largest working set; `samples`, pairs of seconds to
        the first token and per later token; `rounds`, the means that the spreads summarize.
    """
    tell = on_run or (lambda _: None)
    budget = budget or Budget(None, 0)
    measured: dict[str, list[list[Sample]]] = {subject.name: [] for subject in subjects}
    facts: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in subjects}
    for index, ask in enumerate(task.asks):
        shown = picture(ask.width, ask.height, settings.seed + index)
        spent = budget.share()
        for subject in subjects:
            facts[subject.name].append(_facts(subject, ask, shown, settings.new_tokens))
            tell(subject.name)
        runs = {subject.name: partial(measure, subject, ask, [shown], settings.new_tokens) for subject in subjects}
        found = interleaved(runs, settings.rounds, settings.warm_up, tell, spent)
        for name, samples in found.items():
            measured[name].append(samples)
    return [
        {"task": task.name, "subject": subject.name, "way": subject.way, "questions": len(task.asks)}
        | _means(facts[subject.name], subject)
        | _times(measured[subject.name], settings.new_tokens)
        for subject in subjects
    ]


def runs_of(tasks: Sequence[Task], subjects: int, settings: Settings) -> int:
    """Count the calls of `on_run` over tasks, for a progress bar."""
    return sum(len(task.asks) for task in tasks) * subjects * (1 + settings.warm_up + settings.rounds)


def measure(subject: Subject, ask: Ask, shown: Sequence[Pixels], new_tokens: int) -> Sample:
    """Answer once, one row for each picture."""
    prepared, seconds = _prepared(subject, ask, shown)
    return Sample(seconds, subject.generate(prepared, new_tokens))


def over(rows: Sequence[Mapping[str, Any]], name: str, other: str, figure: str = "ttft") -> dict[str, Any] | None:
    """Return the ratio of two subjects' figures over all tasks, or None where one is missing.

    Round by round, as many as all tasks have.
    """
    means = []
    for wanted in (name, other):
        rounds = [row["rounds"][figure] for row in rows if row["subject"] == wanted]
        if not rounds:
            return None
        means.append([fmean(values) for values in zip(*rounds, strict=False)])
    return ratio(*means).to_dict()


def _prepared(subject: Subject, ask: Ask, shown: Sequence[Pixels]) -> tuple[Prepared, float]:
    start = perf_counter()
    prepared = subject.prepare(shown, ask.text_tokens)
    return prepared, perf_counter() - start


def _facts(subject: Subject, ask: Ask, shown: Pixels, new_tokens: int) -> dict[str, Any]:
    """What does not vary from round to round."""
    prepared, _ = _prepared(subject, ask, [shown])
    subject.generate(prepared, new_tokens)  # what compiles at its first use does not take that memory again
    with peak_memory(subject.device) as peak:
        subject.generate(prepared, new_tokens)
    return {
        "visual_tokens": prepared.visual_tokens,
        "query_tokens": prepared.query_tokens,
        "prompt_tokens": prepared.prompt_tokens,
        "flops": subject.count(prepared),
        "working_bytes": peak.working,
    }


def _means(facts: Sequence[Mapping[str, Any]], subject: Subject) -> dict[str, Any]:
    names = ("visual_tokens", "query_tokens", "prompt_tokens", "flops")
    means = {name: significant(fmean(fact[name] for fact in facts)) for name in names}
    working = [fact["working_bytes"] for fact in facts]
    known = None if None in working else subject.weights.total + subject.held + max(working)
    return means | {
        "macs": means["flops"] / 2,
        "weight_bytes": subject.weights.total,
        "step_bytes": subject.weights.step,
        "memory_bytes": known,
    }


def _times(answers: Sequence[Sequence[Sample]], new_tokens: int) -> dict[str, Any]:
    """Summarize answers `[questions][rounds]`; a round is one that all questions have."""
    turns = list(zip(*answers, strict=False))
    rounds = {
        "ttft": [fmean(sample.first_token for sample in turn) for turn in turns],
        "prepare": [fmean(sample.prepare for sample in turn) for turn in turns],
        "samples_per_second": [len(turn) / sum(sample.total for sample in turn) for turn in turns],
    }
    rounds["tokens_per_second"] = [rate * new_tokens for rate in rounds["samples_per_second"]]
    gaps = [gap for samples in answers for sample in samples for gap in sample.gaps]
    if gaps:
        rounds["tpot"] = [fmean(sample.timeline.per_token or 0.0 for sample in turn) for turn in turns]
    every = [sample for samples in answers for sample in samples]
    return {
        **{name: spread(values).to_dict() for name, values in rounds.items()},
        "ttft_percentiles": percentiles([sample.first_token for sample in every]),
        "tpot_percentiles": percentiles(gaps) if gaps else None,
        "samples": [[significant(s.first_token), significant(s.timeline.per_token or 0.0)] for s in every],
        "rounds": {name: [significant(value) for value in values] for name, values in rounds.items()},
    }
