"""The page: means with their spread over the seeds, the paper's figures beside them, and a verdict on every claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from saccade.ablate.studies import Block, Claim, Study

Results = Sequence[dict[str, Any]]

HEAD = """# Ablations

The papers' ablations, repeated on the rendered world with variants of nano: the same frozen tower, the same pictures,
the same few steps. Accuracy is in percent of {questions} questions of each family, spread evenly over the frozen test,
by which nothing is chosen; mean ± standard deviation over the runs, one for each seed. Visual tokens are the mean over
the pictures of these questions. *Blanked* is the mean over the families when the pictures are gray. *Pointing* is the
share of the queries' attention, in percent, on the thing that a question names, less that on the same thing when
another is named. These are small models and short runs: they tell the direction of a finding, not its size on
photographs. Every cell is a JSON file beside this page; `saccade train ablate` runs those that are missing.

A verdict says "same direction" or "opposite" where every seed agrees and the mean difference exceeds its standard
deviation, else "within noise".
"""


def render(studies: Iterable[tuple[Study, Results]]) -> str:
    """Write the page of the studies with their results, as Markdown."""
    done = [(study, results) for study, results in studies if results]
    asked = {family["n"] for _, results in done for result in results for family in result["families"].values()}
    parts = [HEAD.format(questions=" or ".join(map(str, sorted(asked))) or "no")]
    for study, results in done:
        parts.append(f"## {study.title}\n\n{_facts(study, results)}\n")
        run = {result["variant"] for result in results}
        parts += [_block(study, block, results) for block in study.blocks if run.intersection(block.variants)]
    return "\n".join(parts)


def _facts(study: Study, results: Results) -> str:
    """Where a study stands in the paper, what it presumes, and what its results were made with."""
    seeds = len({result["seed"] for result in results})
    made = {
        name: " and ".join(sorted({str(result[name] or "unknown") for result in results}))
        for name in ("base", "machine", "torch", "transformers", "commit")
    }
    presumes = f" It presumes {study.presumes}, which is not checked." if study.presumes else ""
    return (
        f"Source: {study.source}.{presumes} {seeds} {'seed' if seeds == 1 else 'seeds'}; tower of {made['base']}; "
        f"{made['machine']}; torch {made['torch']}, transformers {made['transformers']}; commit {made['commit']}."
    )


def _block(study: Study, block: Block, results: Results) -> str:
    families, benchmarks = list(study.families), list(next(iter(study.published.values()), {}))
    points = any(result["pointing"] is not None for result in results)
    head = ["variant", "visual + query tokens", *families, *study.scored_apart, "mean", "blanked"]
    head += [*(["pointing"] if points else []), "runs"]
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
                    f"{runs[0]['visual_tokens']:g} + {runs[0]['queries']}",
                    *(_mean([100 * run["families"][family]["accuracy"] for run in runs]) for family in families),
                    *(_mean([forms_score(run, forms) for run in runs]) for forms in study.scored_apart.values()),
                    _mean([score(run) for run in runs]),
                    _mean([score(run, "blank_accuracy") for run in runs]),
                    *([_pointing(runs)] if points else []),
                    str(len(runs)),
                    *(f"{published[name]:g}" if name in published else "–" for name in benchmarks),
                ]
            )
        )
    lines += ["", *(line for claim in block.claims for line in _verdict(study, claim, results)), ""]
    return "\n".join(lines)


def score(result: dict[str, Any], kind: str = "accuracy") -> float:
    """Mean accuracy (or "blank_accuracy") over a result's families, in percent."""
    return 100 * fmean(family[kind] for family in result["families"].values())


def forms_score(result: dict[str, Any], forms: Sequence[str]) -> float:
    """Accuracy on the questions of some forms together, in percent."""
    scores = [part for family in result["families"].values() for form, part in family["forms"].items() if form in forms]
    asked = [(part["accuracy"], part["n"]) for part in scores]
    return 100 * float(sum(accuracy * n for accuracy, n in asked) / sum(n for _, n in asked))


def differences(claim: Claim, results: Results, forms: Sequence[str] = ()) -> list[float]:
    """By how many points the variant that the paper prefers is ahead, for every seed that has both.

    Args:
        claim: Names the two.
        results: Of all variants and seeds.
        forms: Forms of questions to count; all if there are none.
    """
    scores = {
        (result["variant"], result["seed"]): forms_score(result, forms) if forms else score(result)
        for result in results
    }
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
    ahead = differences(claim, results, study.scored_apart[claim.on] if claim.on else ())
    if not ahead:
        return []
    better, worse = study.published.get(claim.better, {}), study.published.get(claim.worse, {})
    paper = ", ".join(f"{name} {better[name] - worse[name]:+.1f}" for name in better if name in worse)
    said = f"; paper: {paper or 'yes'}" if study.published and not claim.on else ""
    where = f" on {claim.on}" if claim.on else ""
    positive = sum(value > 0 for value in ahead)
    return [
        f"- *{claim.better}* ahead of *{claim.worse}*{where}: here {_mean(ahead, sign='+')} points, in {positive} of "
        f"{len(ahead)} runs{said}. **{verdict(ahead)}**"
    ]


def _pointing(runs: Results) -> str:
    scores = [100 * run["pointing"] for run in runs if run["pointing"] is not None]
    return _mean(scores) if scores else "–"


def _mean(values: Sequence[float], sign: str = "") -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{spread}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
