"""What a public set is: samples in the words of a paper's tool, a judge of answers, and a summary of judgments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import yaml

from saccade.config import Frozen
from saccade.config.frozen import to_part
from saccade.errors import DataError
from saccade.image import ImageSource

SETS = Path(__file__).parent / "sets.yaml"

Tool = Literal["lmms-eval", "VLMEvalKit", "saccade"]  # the last for what no other tool asks
Judgment = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """A question of a set.

    Attributes:
        key: Unique in its set, and the same whenever the set is read.
        pictures: What the question is about, as `saccade.image.open_image` takes it.
        prompt: The whole turn of the user but for the pictures, worded as the protocol's tool does.
        answers: The accepted answers, as published.
        group: What scores are reported by besides the whole; several, separated by commas, where it counts for each.
        unit: What hangs together, such as the questions about one picture or the rotations of one question; the
            bootstrap draws it as one. By default the key.
        details: What the judge needs besides, in types of JSON.
    """

    key: str
    pictures: tuple[ImageSource, ...]
    prompt: str
    answers: tuple[str, ...]
    group: str = ""
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.unit:
            object.__setattr__(self, "unit", self.key)


class Samples(Sequence[Sample]):
    """Samples whose pictures are read when a sample is asked for, so that a set need not fit the memory.

    Args:
        parts: Each sample without its picture, and what reads the picture.
    """

    def __init__(self, parts: Iterable[tuple[Sample, Callable[[], ImageSource]]]) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.parts)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        """Return a sample with its picture, or a stretch of samples that are not read yet."""
        if isinstance(index, slice):
            return Samples(self.parts[index])
        sample, picture = self.parts[index]
        return replace(sample, pictures=(picture(),))


class Protocol(Frozen):
    """How a tool asks a set: the words around a question, the longest answer, and whose judging is repeated.

    Attributes:
        tool: The tool whose wording and judging these are.
        task: What the tool calls the set.
        suffix: What follows the question, with the options where it has some.
        suffix_chinese: What follows one in Chinese; None for the same.
        max_new_tokens: Answers end there at the latest. Decoding is greedy.
    """

    tool: Tool
    task: str
    suffix: str
    suffix_chinese: str | None = None
    max_new_tokens: int


class Description(Frozen):
    """What `sets.yaml` says of a set.

    Attributes:
        title: What people call it.
        hub: Data set of the hub that holds it in the form read here; None where none does.
        home: Where its authors publish it.
        license: As its authors say.
        full: What a perfect model scores in the headline.
        files: Patterns of the files that are looked for in a folder, in this order, and what they are.
        protocols: By name of the paper that used it.
    """

    title: str
    hub: str | None = None
    home: str
    license: str
    full: float = 1
    files: Mapping[str, str]
    protocols: Mapping[str, Protocol]

    @property
    def source(self) -> str:
        """Where it is published, and under which license."""
        hub = f"hf:{self.hub}, " if self.hub else ""
        return f"{hub}{self.home} ({self.license})"

    @property
    def formats(self) -> tuple[str, ...]:
        """The files that are read, for people."""
        return tuple(f"{pattern}: {words}" for pattern, words in self.files.items())


Reader = Callable[[Sequence[Path], Protocol], Samples]
Judge = Callable[[Sample, str], dict[str, Any]]
Summary = Callable[[Sequence[Sample], Sequence[Judgment]], dict[str, float]]


@dataclass(frozen=True)
class Benchmark:
    """A public set.

    Attributes:
        name: Word on the command line.
        title: What people call it.
        source: Where it is published, and under which license.
        formats: The files that are read, for people.
        protocols: How the papers asked it, by name.
        read: Makes samples of a local copy, a file or a folder that holds the files as they were published, in the
            wording of a protocol; raises DataError.
        judge: What an answer is worth: "score" from 0 to 1, and what was made of the answer, in types of JSON.
        summarize: Judgments of samples to scores, the headline first: fractions, or points where the set is published
            in points. A sample may come more than once, as a bootstrap draws it.
        full: What a perfect model scores in the headline.
        check: Raises DataError, before anything is read, where no file of the set is at a path.
    """

    name: str
    title: str
    source: str
    formats: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    read: Callable[[Path, str], Sequence[Sample]]
    judge: Judge
    summarize: Summary
    full: float = 1
    check: Callable[[Path], object] = lambda path: path


def described(name: str, reader: Reader, judge: Judge, summarize: Summary) -> Benchmark:
    """Return the benchmark of which `sets.yaml` holds the description."""
    about = to_part(name, Description, _descriptions()[name])

    def read(path: Path, protocol: str) -> Samples:
        asked_as = find_protocol(name, about.protocols, protocol)
        samples = reader(_files(path, about), asked_as)
        twice = next(
            (key for key, times in Counter(sample.key for sample, _ in samples.parts).items() if times > 1), None
        )
        if twice is not None:
            raise DataError(f"{path} holds {twice} of {about.title} twice: remove one, or name one of the files")
        if not samples:
            raise DataError(f"{path} holds no question of {about.title}: fetch the set again from {about.source}")
        return samples

    return Benchmark(
        name=name,
        title=about.title,
        source=about.source,
        formats=about.formats,
        protocols=about.protocols,
        read=read,
        judge=judge,
        summarize=summarize,
        full=about.full,
        check=lambda path: _files(path, about),
    )


def find_protocol(name: str, protocols: Mapping[str, Protocol], wanted: str) -> Protocol:
    """Return one of the protocols of the set `name`; raises DataError for one that it does not have."""
    if wanted not in protocols:
        raise DataError(f"{name} has no protocol {wanted!r}: choose one of {', '.join(protocols)}")
    return protocols[wanted]


def _files(path: Path, about: Description) -> list[Path]:
    if not path.exists():
        raise DataError(f"there is no {path}: fetch {about.title} from {about.source}, or correct the path")
    if path.is_file():
        return [path]
    for pattern in about.files:
        if found := sorted(path.rglob(pattern)):
            return found
    raise DataError(
        f"{path} holds no {about.title}: looked for {'; '.join(about.formats)}; it is published at {about.source}"
    )


@cache
def _descriptions() -> Mapping[str, Any]:
    held: Mapping[str, Any] = yaml.safe_load(SETS.read_text(encoding="utf-8"))
    return held


def mean_by_group(headline: str) -> Summary:
    """Return the summary that is the mean score, of all samples by the name `headline` and of each group by its own."""

    def summarize(samples: Sequence[Sample], judged: Sequence[Judgment]) -> dict[str, float]:
        scores: dict[str, list[float]] = {headline: []}
        for sample, judgment in zip(samples, judged, strict=True):
            scores[headline].append(judgment["score"])
            if sample.group:
                scores.setdefault(sample.group, []).append(judgment["score"])
        return {name: sum(of) / len(of) for name, of in scores.items() if of}

    return summarize


def whole_units(samples: Sequence[Sample], judged: Sequence[Judgment]) -> list[tuple[bool, float]]:
    """Return for each sample whether all of its unit were answered rightly, and its share of the unit.

    The shares of a unit sum to 1, and to as many as the unit was drawn where a bootstrap draws it several times.
    """
    right: dict[str, dict[str, bool]] = {}
    for sample, judgment in zip(samples, judged, strict=True):
        right.setdefault(sample.unit, {})[sample.key] = judgment["score"] == 1
    return [(all(right[sample.unit].values()), 1 / len(right[sample.unit])) for sample in samples]
