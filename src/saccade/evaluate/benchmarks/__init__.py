"""Public sets in the forms they are published in, asked in the papers' words and judged as the papers' tools judge."""

from collections.abc import Mapping

from saccade.errors import DataError
from saccade.evaluate.benchmarks.ai2d import AI2D
from saccade.evaluate.benchmarks.benchmark import Benchmark, Judgment, Protocol, Sample, Samples
from saccade.evaluate.benchmarks.chartqa import CHARTQA
from saccade.evaluate.benchmarks.docvqa import DOCVQA
from saccade.evaluate.benchmarks.gqa import GQA
from saccade.evaluate.benchmarks.mmbench import CHOICES, MMBENCH
from saccade.evaluate.benchmarks.mme import MME
from saccade.evaluate.benchmarks.ocrbench import OCRBENCH
from saccade.evaluate.benchmarks.pope import POPE
from saccade.evaluate.benchmarks.scienceqa import SCIENCEQA
from saccade.evaluate.benchmarks.textvqa import TEXTVQA

BENCHMARKS: Mapping[str, Benchmark] = {
    known.name: known
    for known in (POPE, MME, GQA, SCIENCEQA, TEXTVQA, AI2D, CHARTQA, DOCVQA, OCRBENCH, MMBENCH, CHOICES)
}


def benchmark(name: str, known: Mapping[str, Benchmark] = BENCHMARKS) -> Benchmark:
    """Return the set of a name among those known; raises DataError where none has it."""
    if name not in known:
        raise DataError(f"there is no set {name!r}: choose one of {', '.join(known)}")
    return known[name]


__all__ = ["BENCHMARKS", "Benchmark", "Judgment", "Protocol", "Sample", "Samples", "benchmark"]
