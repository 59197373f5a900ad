"""The page docs/papers.md and the reference rows of docs/evaluation.md, from the files of the papers' tables.

`python tools/write_docs.py` writes them.
"""

from collections.abc import Sequence

from saccade.bench.report import table as rows_to_table
from saccade.evaluate.papers import Conflict, Paper, Scored, Table, names, paper

HEAD = """# The papers' scores

What both papers print, and what it takes to put one's own score beside it. This page is written by
`python tools/write_docs.py` from the files in [src/saccade/evaluate/papers](../src/saccade/evaluate/papers); none of
its tables is typed by hand. None of these scores was measured here.

```bash
saccade eval paper flashsloth
saccade eval paper flashvl --json
```

Without a network and without data this prints the plan: what would be downloaded, what is scored here by
`saccade eval`, what needs the paper's toolkit and by which command, and the paper's score beside each. With a network
and a folder for the sets it fetches those that can be scored here, and scores them; the same command again goes on
where it was stopped:

```console
saccade eval paper flashsloth --data sets --fetch --model Tongbo/FlashSloth-3.2B --out records
```

Here every question is asked twice, the second time about a blank picture, so a set takes 2 × questions ÷ (answers a
second), and half of that in a toolkit; `--rate` says how many answers a second your machine gives, and the plan then
tells the time. How fast these models answer here was not measured.

Means are named: *mean of 11* is the mean of Flash-VL's eleven benchmarks with OCRBench ÷ 10 and MME ÷ 28, *mean of 5*
that of five columns as they are. Where a printed mean is not what its row gives, the computed one stands behind it in
brackets; a test computes all of them again. In Python:

```python
from saccade.evaluate.papers import paper

table = paper("flashvl").table("table2")
print(table.mean_of(table.figures("Flash-VL-2B ISS")))
```

An empty cell is a figure that is not printed or not known."""

PLAN_HEAD = (
    "benchmark",
    "`saccade eval`",
    "task of the toolkit",
    "split",
    "questions",
    "download",
    "GB",
    "judge",
    "note",
)


def to_markdown() -> str:
    """Return the page."""
    return "\n\n".join([HEAD, *(part for name in names() for part in _paper(paper(name)))]) + "\n"


def reference_rows() -> str:
    """Return for each paper the rows of its released checkpoints, and where to see all others."""
    parts = []
    for one in map(paper, names()):
        released = [weights.row for weights in one.weights]
        for source in map(one.table, one.headline):
            parts.append(f"{one.title.partition(':')[0]}, {source.source}, as printed:\n\n{_table(source, released)}")
    return "\n\n".join([*parts, "All systems and all tables: [The papers' scores](papers.md)."])


def _paper(one: Paper) -> list[str]:
    weights = [f"[{each.hub}](https://huggingface.co/{each.hub}) ({each.gigabytes:g} GB)" for each in one.weights]
    facts = f"{one.cited}. {one.note} Scored with {one.tool}. Released: {', '.join(weights)}."
    plan = rows_to_table(PLAN_HEAD, [_scored(scored) for scored in one.benchmarks])
    parts = [f"## {one.title}", facts, "### What repeating it takes", plan]
    for source in one.tables:
        parts += [f"### {source.source}: {source.title}", _table(source)]
    if one.conflicts:
        lines = [f"- {each.column}: {', '.join(_places(one, each))}" for each in one.conflicts]
        parts += ["### Where its tables differ", "One model, different figures:", "\n".join(lines)]
    return parts


def _places(one: Paper, conflict: Conflict) -> list[str]:
    return [
        f"{source.figures(row.name)[conflict.column]:g} ({source.source}, *{row.name}*)"
        for source in one.tables
        for row in source.rows
        if row.model == conflict.model and conflict.column in source.columns
    ]


def _scored(scored: Scored) -> list[str]:
    places = [
        f"[{get.name}](https://huggingface.co/datasets/{get.hub})" if get.hub else str(get.url) for get in scored.get
    ]
    return [
        scored.column,
        scored.set or "",
        scored.task,
        scored.split,
        f"{scored.samples:,}" if scored.samples else "",
        "<br>".join(places),
        f"{scored.gigabytes:.3g}" if scored.gigabytes else "",
        "yes" if scored.judge else "",
        scored.note or "",
    ]


def _table(source: Table, only: Sequence[str] = ()) -> str:
    rows = [row for row in source.rows if not only or row.name in only]
    facts = list(dict.fromkeys(name for row in rows for name in row.facts))
    grouped = any(row.group for row in rows) and not only
    differs = source.mean.differs if source.mean else {}
    lines = []
    for row in rows:
        cells = [
            "" if score is None else f"{score:.{source.places(column)}f}" for column, score in enumerate(row.scores)
        ]
        if row.name in differs:
            cells[-1] += f" ({differs[row.name]:g})"
        lines.append(
            [row.name, *([row.group] if grouped else []), *(row.facts.get(name, "") for name in facts), *cells]
        )
    return rows_to_table(["system", *(["group"] if grouped else []), *facts, *source.columns], lines)
