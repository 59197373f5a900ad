"""The rendered world as a benchmark, so that its scores are records like any other's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from saccade.data import scenes
from saccade.data.scenes.scene import Pixels
from saccade.evaluate.benchmarks import BENCHMARKS, benchmark
from saccade.evaluate.benchmarks.benchmark import Benchmark, Judgment, Protocol, Sample, Samples, find_protocol
from saccade.evaluate.world import MAX_NEW_TOKENS, is_right, items

WORLD = "world"
HEADLINE = "accuracy"


def any_benchmark(name: str) -> Benchmark:
    """Return the rendered world or a public set by its word; raises DataError where none has it."""
    return benchmark(name, {WORLD: rendered_world(), **BENCHMARKS})


def rendered_world(families: Sequence[str] = scenes.FAMILIES) -> Benchmark:
    """Return the rendered world as a benchmark; what is read in place of a local copy is a split.

    Args:
        families: Families of scenes; one that is named twice counts once.
    """
    protocols = {WORLD: Protocol(tool="saccade", task=WORLD, suffix="", max_new_tokens=MAX_NEW_TOKENS)}

    def read(path: Path, protocol: str) -> Samples:
        find_protocol(WORLD, protocols, protocol)
        return Samples(part for family in dict.fromkeys(families) for part in _samples(family, str(path)))

    return Benchmark(
        name=WORLD,
        title="the rendered world",
        source="rendered by this package",
        formats=tuple(f"{split}: a split" for split in scenes.SPLITS),
        protocols=protocols,
        read=read,
        judge=_judge,
        summarize=_summarize,
    )


def _samples(family: str, split: str) -> Iterator[tuple[Sample, Any]]:
    asked: Counter[str] = Counter()
    for item in items(family, split):
        scene = f"{family}/{item.scene}"
        yield (
            Sample(
                key=f"{scene}/{asked[scene]}",
                pictures=(),
                prompt=item.question.text,
                answers=(item.question.answer,),
                group=family,
                unit=scene,
                details={"type": item.question.type},
            ),
            partial(_picture, family, split, item.scene),
        )
        asked[scene] += 1


@lru_cache(maxsize=4)  # questions about one scene follow each other
def _picture(family: str, split: str, scene: int) -> Pixels:
    return scenes.render(family, split, scene).image


def _judge(sample: Sample, said: str) -> dict[str, Any]:
    return {"score": float(is_right(said, sample.answers[0]))}


def _summarize(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
    """Return the mean over the families, each of which counts once, then the share of right answers in each."""
    right: dict[str, list[float]] = {}
    for sample, judgment in zip(samples, judged, strict=True):
        right.setdefault(sample.group, []).append(judgment["score"])
    families = {family: sum(of) / len(of) for family, of in right.items()}
    return {HEADLINE: sum(families.values()) / len(families), **families}
