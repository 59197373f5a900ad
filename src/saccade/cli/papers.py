"""`saccade eval paper`: what repeating a paper's scores takes, and one's own beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.recording import in_words, stages
from saccade.cli.shell import DeviceOption, DtypeOption, JsonOption, open_vlm, option_words, stderr, stdout
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from saccade.evaluate.papers import Paper, Step
    from saccade.evaluate.papers.score import Outcome
    from saccade.vlm import VLM

Outcomes = Mapping[str, "Outcome"]


def paper(
    name: Annotated[str, typer.Argument(help="flashsloth or flashvl.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of local copies of the sets, each a file or folder named after its set, as pope/."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="What is scored; if left out, the first checkpoint the paper released."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the records, one for each benchmark.")] = Path("records"),
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the sets that are scored here into --data.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; needs no network.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many units of each set, to try it.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Questions at once.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count samples that cannot be asked as wrong instead of stopping.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Answers a second on this machine: the plan then tells the time.")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what repeating a paper's scores takes, and score the benchmarks that lie here; the same command goes on.

    Example:  saccade eval paper flashsloth

    With a network:  saccade eval paper flashvl --data sets --fetch --out records
    """
    from saccade.evaluate.papers import paper as of_name
    from saccade.evaluate.papers import plan

    if fetch and data is None:
        raise ConfigError("--fetch needs a folder for the sets: name it with --data")
    chosen = of_name(name)
    model = model or chosen.weights[0].hub
    if fetch and data is not None and not dry_run:
        _fetch(chosen, model, data, out)
    how = {"limit": limit, "batch_size": batch_size, "skip_bad": skip_bad or None}
    steps = plan(chosen, model, data, out, option_words({**how, "device": device, "dtype": dtype}))
    if not as_json:
        stdout().print(_overview(chosen, steps, rate))
        _tell_commands(steps)
    outcomes: Outcomes = {}
    if not dry_run and any(step.state == "here" for step in steps):
        _check_copies(steps)
        vlm = open_vlm(model, device, dtype)
        outcomes = _score(chosen, vlm, steps, out, **{name: value for name, value in how.items() if value is not None})
    if as_json:
        told = [_to_dict(step, rate, outcomes.get(step.scored.column)) for step in steps]
        typer.echo(json.dumps({"paper": name, "model": model, "benchmarks": told}, indent=2, ensure_ascii=False))
    elif outcomes:
        stdout().print(_scores(chosen, model, steps, outcomes))
        for column, one in outcomes.items():
            stdout().print(f"{column}: {in_words(one.record)}", soft_wrap=True)
    else:
        stderr().print(_missing(steps, data, dry_run), soft_wrap=True)


def _fetch(chosen: Paper, model: str, data: Path, out: Path) -> None:
    from saccade.evaluate.papers import fetch, plan

    data.mkdir(parents=True, exist_ok=True)
    for step in fetch(plan(chosen, model, data, out), data):
        stderr().print(f"fetching {escape(step.scored.get[0].name)}", soft_wrap=True)


def _check_copies(steps: Sequence[Step]) -> None:
    """Raise DataError for a local copy without a file of its set, before a large model is loaded for nothing."""
    from saccade.evaluate.benchmarks import benchmark

    for step in steps:
        if step.copy is not None:
            benchmark(str(step.scored.set)).check(step.copy)


def _score(chosen: Paper, vlm: VLM, steps: Sequence[Step], out: Path, **how: Any) -> Outcomes:
    from saccade.evaluate.papers.score import score

    with stages() as tell:
        outcomes = score(
            vlm, chosen, steps, out, **how,
            progress=lambda step, stage, done, total: tell(f"{step.scored.column}, {stage}", done, total),
        )  # fmt: skip
        return {one.step.scored.column: one for one in outcomes}


def _to_dict(step: Step, rate: float | None, outcome: Outcome | None) -> dict[str, Any]:
    seconds, score = step.seconds(rate) if rate else None, None if outcome is None else outcome.to_dict()
    return {**step.to_dict(), "seconds": seconds, "score": score}


def _overview(chosen: Paper, steps: Sequence[Step], rate: float | None) -> Table:
    released = _released(steps)
    table = Table(
        "benchmark", "scored", "questions", "minutes", "download", "GB", *released, title=escape(chosen.title)
    )
    for step in steps:
        scored, seconds = step.scored, step.seconds(rate) if rate else None
        where = f"by {chosen.tool}" if step.state == "toolkit" else step.state
        size = f"{scored.gigabytes:.3g}" if scored.gigabytes else "unknown"
        table.add_row(
            scored.column,
            where,
            f"{scored.samples:,}" if scored.samples else "unknown",
            f"{seconds / 60:,.0f}" if seconds else "unknown",
            "\n".join(escape(get.hub or get.name.rpartition("/")[2]) for get in scored.get),
            size,
            *(f"{step.published[row]:g}" if row in step.published else "" for row in released),
        )
    weights = ", ".join(f"{one.hub} ({one.gigabytes:g} GB)" for one in chosen.weights)
    how = "at the given rate" if rate else "unknown without --rate"
    table.caption = (
        f"The last columns are what the paper prints. Weights: {escape(weights)}. Minutes ({how}) are questions / "
        "rate, twice that where the scoring is here, which asks each about a blank picture too."
    )
    return table


def _tell_commands(steps: Sequence[Step]) -> None:
    for step in steps:
        judged = " (asks a judge over the network)" if step.scored.judge else ""
        note = f"\n    [dim]{escape(step.scored.note)}[/]" if step.scored.note else ""
        stdout().print(f"[bold]{step.scored.column}[/]{judged}: {escape(step.command)}{note}", soft_wrap=True)


def _scores(chosen: Paper, model: str, steps: Sequence[Step], outcomes: Outcomes) -> Table:
    released = _released(steps)
    table = Table("benchmark", "score", "here", "95 % interval", "blanked", "asked", *released)
    table.title = f"{escape(model)} beside {escape(chosen.title.partition(':')[0])}"
    table.caption = "the last columns are what the paper prints"
    for column, outcome in outcomes.items():
        step, found = outcome.step, outcome.to_dict()
        low, high = found["interval"]
        table.add_row(
            column,
            found["name"],
            f"{found['value']:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{found['blank']:.1f}",
            f"{found['samples']:,} of {step.scored.samples:,}" if step.scored.samples else f"{found['samples']:,}",
            *(f"{step.published[row]:g}" if row in step.published else "" for row in released),
        )
    return table


def _released(steps: Sequence[Step]) -> list[str]:
    return list(dict.fromkeys(row for step in steps for row in step.published))


def _missing(steps: Sequence[Step], data: Path | None, dry_run: bool) -> str:
    if dry_run:
        return "Nothing was scored: --dry-run only tells."
    names = [str(step.scored.local) for step in steps if step.state == "to fetch"]
    where = f"{data} holds none of them" if data is not None else "no --data was given"
    return (
        f"Nothing was scored: {where}. What can be scored here is {', '.join(names)}: with a network, "
        "--data FOLDER --fetch downloads them; without, put copies there under these names."
    )
