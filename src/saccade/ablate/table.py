"""The page: means with their spread over the seeds, the paper's figures beside them, and a verdict on every claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from saccade.ablate.paired import Answers, counts, interval, lead
from saccade.ablate.study import Block, Claim, Study

# What cells left, and what one row of a cell says together with what its cell says.
Results = Sequence[dict[str, Any]]
Rows = Sequence[dict[str, Any]]
TOO_FEW = "too few runs"

HEAD = """# Ablations

The papers' ablations and their stages of training, repeated on the rendered world with variants of nano: the same
frozen tower, the same pictures, the same few steps. Accuracy is in percent of the questions of each family, spread
evenly over the frozen test, by which nothing is chosen; mean ± standard deviation over the runs, one for each seed.
Visual tokens are the mean over the pictures of these questions. *Blanked* is the mean over the families when the
pictures are gray. *Pointing* is the share of the queries' attention, in percent, on the thing that a question names,
less that on the same thing when another is named. These are small models and short runs: they tell the direction of a
finding, not its size on photographs. Every cell is a JSON file beside this page; `saccade train ablate` runs those
that are missing.

A verdict says "same direction" or "opposite" where every seed agrees and the mean difference exceeds its standard
deviation, else "within noise". A goal is "reached" or "missed" by the same rule, else "undecided". The 95 % interval
behind a difference is paired: the scenes of the test are drawn anew, the same ones for both sides and for all seeds.
"""


# What the words of a verdict become where a number is to be reached.
GOALS = {"same direction": "reached", "opposite": "missed", "within noise": "undecided", TOO_FEW: TOO_FEW}


def render(studies: Iterable[tuple[Study, Results]]) -> str:
    """Write the page of the studies with their results, as Markdown."""
    parts = [HEAD]
    for study, results in studies:
        if not results:
            continue
        rows = rows_of(results)
        note = f"{study.note}\n\n" if study.note else ""
        parts.append(f"## {study.title}\n\n{note}{_facts(study, rows)}\n")
        run = {row["variant"] for row in rows}
        parts += [_block(study, block, rows) for block in study.blocks if run.intersection(block.variants)]
    return "\n".join(parts)


def rows_of(results: Results) -> Rows:
    """Return what every row of some cells says; the row's name takes the place of the cell's variant."""
    return [{**cell, **row, "variant": name} for cell in results for name, row in cell["rows"].items()]


def _facts(study: Study, results: Rows) -> str:
    """Where a study stands in the paper, what it presumes, and what its results were made with."""
    seeds = len({result["seed"] for result in results})
    made = {
        name: " and ".join(sorted({str(result[name] or "unknown") for result in results}))
        for name in ("base", "machine", "torch", "transformers", "commit")
    }
    presumes = f" It presumes {study.presumes}, which is not checked." if study.presumes else ""
    asked = sorted({family["n"] for result in results for family in result["families"].values()})
    return (
        f"Source: {study.source}.{presumes} {' or '.join(map(str, asked))} questions of a family; {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}; from {made['base']}; {made['machine']}; torch {made['torch']}, "
        f"transformers {made['transformers']}; commit {made['commit']}."
    )


def _block(study: Study, block: Block, results: Rows) -> str:
    families = list(study.families)
    benchmarks = next((list(study.published[name]) for name in block.variants if name in study.published), [])
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


def forms_score(result: dict[str, Any], wanted: Sequence[str]) -> float:
    """Accuracy on some questions together, in percent; see `Study.scored_apart`."""
    scores = [
        (part["accuracy"], part["n"])
        for name, family in result["families"].items()
        for form, part in family["forms"].items()
        if counts(f"{name}.{form}", wanted)
    ]
    return 100 * float(sum(accuracy * n for accuracy, n in scores) / sum(n for _, n in scores))


def pairs(claim: Claim, results: Rows) -> list[tuple[Answers, Answers]]:
    """Return the answers of the two rows that a claim compares, for every seed that has both."""
    of = {(result["variant"], result["seed"]): result["answers"] for result in results}
    seeds = sorted({seed for _, seed in of})
    both = [((claim.better, seed), (claim.worse, seed)) for seed in seeds]
    return [(of[better], of[worse]) for better, worse in both if better in of and worse in of]


def verdict(ahead: Sequence[float]) -> str:
    """Judge a claim by the differences of its runs."""
    if len(ahead) < 2:
        return TOO_FEW
    mean, spread = fmean(ahead), stdev(ahead)
    if min(ahead) > 0 and mean > spread:
        return "same direction"
    if max(ahead) < 0 and -mean > spread:
        return "opposite"
    return "within noise"


def _verdict(study: Study, claim: Claim, results: Rows) -> list[str]:
    found = pairs(claim, results)
    if not found:
        return []
    better, worse = zip(*found, strict=True)
    wanted = study.scored_apart[claim.on] if claim.on else ()
    values = [lead([one], [other], wanted, errors=bool(claim.cut)) for one, other in found]
    low, high = interval(better, worse, wanted, errors=bool(claim.cut))
    goal, on = claim.cut or -claim.behind, f" on {claim.on}" if claim.on else ""
    unit = "% fewer errors" if claim.cut else "points"
    met = sum(value > goal for value in values)
    word = verdict([value - goal for value in values])
    said = f"; goal: above {goal:+g}" if goal else _published(study, claim)
    return [
        f"- *{claim.better}* {'against' if goal else 'ahead of'} *{claim.worse}*{on}: here {_mean(values, sign='+')} "
        f"{unit} (95 %: {low:+.1f} to {high:+.1f}), in {met} of {len(values)} runs{said}. "
        f"**{GOALS[word] if goal else word}**"
    ]


def _published(study: Study, claim: Claim) -> str:
    """What the paper found, where it says anything about all questions together."""
    better, worse = study.published.get(claim.better, {}), study.published.get(claim.worse, {})
    paper = ", ".join(f"{name} {better[name] - worse[name]:+.1f}" for name in better if name in worse)
    return f"; paper: {paper}" if paper and not claim.on else ""


def _pointing(runs: Rows) -> str:
    scores = [100 * run["pointing"] for run in runs if run["pointing"] is not None]
    return _mean(scores) if scores else "–"


def _mean(values: Sequence[float], sign: str = "") -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{spread}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
