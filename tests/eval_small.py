"""A set that fits in a test: questions about noise, the accepted answer given or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers_vlm import picture
from saccade.evaluate.benchmarks import Benchmark, Protocol, Sample
from saccade.image import ImageSource

NEW = 8
PROTOCOL = Protocol(tool="lmms-eval", task="tiny", suffix="", max_new_tokens=NEW)


def question(number: int) -> str:
    return f"What is it, and what is {('red', 'blue', 'green')[number % 3]}? " + "Look. " * (number % 4)


def sample(number: int, answer: str = "?", unit: str = "", pictures: Sequence[ImageSource] | None = None) -> Sample:
    shown = (picture(number, 20 + number % 5, 17),) if pictures is None else tuple(pictures)
    group = "even" if number % 2 == 0 else "odd"
    return Sample(f"tiny/{number}", shown, question(number), (answer,), group, unit, {"number": number})


def judge(asked: Sample, said: str) -> dict[str, Any]:
    return {"score": float(said == asked.answers[0]), "parsed": said.strip()}


def summarize(samples: Sequence[Sample], judged: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    by_group: dict[str, list[float]] = {"accuracy": []}
    for asked, judgment in zip(samples, judged, strict=True):
        for name in ("accuracy", asked.group):
            by_group.setdefault(name, []).append(judgment["score"])
    return {name: sum(scores) / len(scores) for name, scores in by_group.items()}


def tiny_set(samples: Sequence[Sample], name: str = "tiny") -> Benchmark:
    def read(path: Path, protocol: str) -> Sequence[Sample]:
        return samples

    return Benchmark(name, "Tiny", "nowhere", ("nothing",), {"paper": PROTOCOL}, read, judge, summarize)
