"""The page: means with their spread over the seeds, the paper's figures beside them, and a verdict on every claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from saccade.ablate.studies import Block, Claim, Study

Results = Sequence[dict[str, Any]]

HEAD = """# Ablations

The papers' ablations, repeated on the rendered world with variants of nano: the same frozen tower, the same pictures,
the same few steps, {seeds} seeds. Accuracy is in percent of {questions} validation questions of each family, mean
± standard deviation over the seeds. These are small models and short runs: they tell the direction of a finding, not
its size on photographs. Every cell is a JSON file beside this page; `saccade train ablate` runs those that are missing.

A verdict says "same direction" or "opposite" where every seed agrees and the mean difference exceeds its standard
deviation, else "within noise".
"""


def render(studies: Iterable[tuple[Study, Results]]) -> str:
    """Write the page of the studies with their results, as Markdown."""
    done = [(study, results) for study, results in studies if results]
    seeds = max((len({result["seed"] for result in results}) for _, results in done), default=0)
    asked = {family["n"] for _, results in done for result in results for family in result["families"].values()}
    parts = [HEAD.format(seeds=seeds, questions=" or ".join(map(str, sorted(asked))) or "no")]
    for study, results in done:
        parts.append(f"## {study.title}\n\nSource: {study.source}.\n")
        parts += [_block(study, block, results) for block in study.blocks]
    return "\n".join(parts)


def _block(study: Study, block: Block, results: Results) -> str:
    families, benchmarks = list(study.families), list(next(iter(study.published.values()), {}))
    head = ["variant", "visual + query tokens", *families, *study.sizes, "mean"]
    head += [f"{name} (paper)" for name in benchmarks]
    lines = [f"### {block.title}", "", _row(head), _row(["---"] * len(head))]
    for variant in block.variants:
        runs = [result for result in results if result["variant"] == variant]
        if not runs:
            continue
        published = study.published.get(variant, {})
        lines.append(
            _row(
                [
                    variant,
                    f"{runs[0]['visual_tokens']} + {runs[0]['queries']}",
                    *(_mean([100 * run["families"][family]["accuracy"] for run in runs]) for family in families),
                    *(_mean([size_score(run, size) for run in runs]) for size in study.sizes),
                    _mean([score(run) for run in runs]),
                    *(f"{published[name]:g}" for name in benchmarks),
                ]
            )
        )
    lines += ["", *(line for claim in block.claims for line in _verdict(study, claim, results)), ""]
    return "\n".join(lines)


def score(result: dict[str, Any]) -> float:
    """Mean accuracy over a result's families, in percent."""
    return 100 * fmean(family["accuracy"] for family in result["families"].values())


def size_score(result: dict[str, Any], size: str) -> float:
    """Accuracy on the questions whose form ends in a size, in percent."""
    forms = [form for family in result["families"].values() for form in family["forms"].items()]
    asked = [(score["accuracy"], score["n"]) for form, score in forms if form.rpartition(".")[2] == size]
    return 100 * float(sum(accuracy * n for accuracy, n in asked) / sum(n for _, n in asked))


def differences(claim: Claim, results: Results) -> list[float]:
    """By how many points the variant that the paper prefers is ahead, for every seed that has both."""
    scores = {(result["variant"], result["seed"]): score(result) for result in results}
    seeds = sorted({seed for _, seed in scores})
    pairs = [((claim.better, seed), (claim.worse, seed)) for seed in seeds]
    return [scores[better] - scores[worse] for better, worse in pairs if better in scores and worse in scores]


def verdict(ahead: Sequence[float]) -> str:
    """Judge a claim by the differences of its runs."""
    if len(ahead) < 2:
        return "too few runs"
    mean, spread = fmean(ahead), stdev(ahead)
    if min(ahead) > 0 and mean > spread:
        return "same direction"
    if max(ahead) < 0 and -mean > spread:
        return "opposite"
    return "within noise"


def _verdict(study: Study, claim: Claim, results: Results) -> list[str]:
    ahead = differences(claim, results)
    if not ahead:
        return []
    better, worse = study.published.get(claim.better, {}), study.published.get(claim.worse, {})
    paper = ", ".join(f"{name} {better[name] - worse[name]:+.1f}" for name in better)
    positive = sum(value > 0 for value in ahead)
    return [
        f"- *{claim.better}* ahead of *{claim.worse}*: here {_mean(ahead, sign='+')} points, in {positive} of "
        f"{len(ahead)} runs; paper: {paper or 'yes'}. **{verdict(ahead)}**"
    ]


def _mean(values: Sequence[float], sign: str = "") -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{spread}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
