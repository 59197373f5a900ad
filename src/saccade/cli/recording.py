"""`saccade eval SET PATH` and `saccade eval diff`: records made and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import JsonOption, progress, stdout
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from saccade.evaluate.benchmarks.benchmark import Benchmark
    from saccade.evaluate.compare import Comparison
    from saccade.evaluate.records import Record
    from saccade.vlm import VLM

LONGEST = 60  # characters of a value in a table


def chosen_benchmark(name: str, path: Path | None, families: Sequence[str] | None) -> tuple[Benchmark, Path]:
    """Return the set of a name and where its samples are.

    Raises:
        ConfigError: when no local copy is named, or families of a set that has none.
        DataError: for an unknown set.
    """
    from saccade.evaluate.rendered import WORLD, any_benchmark, rendered_world

    if name == WORLD:
        return rendered_world(*([] if families is None else [families])), path or Path("test")
    if families is not None:
        raise ConfigError(f"--families is about the rendered world, and {name} has none: leave it out")
    found = any_benchmark(name)
    if path is None:
        looked = "; ".join(found.formats)
        raise ConfigError(
            f"say where the local copy of {found.title} is, as in: saccade eval {name} FOLDER --out RECORD. It is "
            f"published at {found.source}; looked for are {looked}"
        )
    return found, path


def make_record(
    load: Callable[[], VLM], benchmark: Benchmark, path: Path, out: Path, as_json: bool, **options: Any
) -> Record:
    """Ask a model all samples of a set, going on where an interrupted run stopped, and print the scores.

    Args:
        load: Opens the model.
        benchmark: The set.
        path: Its local copy.
        out: Folder of the record.
        as_json: Whether to print the record's header as JSON.
        **options: Those of `saccade.evaluate.run.evaluate`.
    """
    from saccade.evaluate.run import evaluate

    benchmark.check(path)  # before a large model is loaded for nothing
    vlm = load()
    with stages() as tell:
        record = evaluate(vlm, benchmark, path, out, progress=tell, **options)
    if as_json:
        typer.echo(json.dumps(record.header))
    else:
        stdout().print(_scores(record, benchmark.title))
        stdout().print(in_words(record), soft_wrap=True)
    return record


def diff(
    a: Annotated[Path, typer.Argument(help="Folder of a record.")],
    b: Annotated[Path, typer.Argument(help="Folder of another one of the same set.")],
    show: Annotated[int, typer.Option(min=0, help="Print at most so many samples that flipped.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare two records: what differs first, then the scores, then the samples that flipped.

    Scores are those of the samples that both records hold; the interval of a difference is a paired one, since both
    answered the same questions.

    Example:  saccade eval diff runs/pope-before runs/pope-after

    For programs, with every sample that flipped:  saccade eval diff A B --json
    """
    from saccade.evaluate.bootstrap import BOOTSTRAP_DRAWS
    from saccade.evaluate.compare import compare
    from saccade.evaluate.records import load_record
    from saccade.evaluate.rendered import any_benchmark

    records = load_record(a), load_record(b)
    benchmark = any_benchmark(records[0].header["benchmark"])
    with stages() as tell:
        found = compare(*records, benchmark, on_draw=lambda draws: tell("resampling", draws, BOOTSTRAP_DRAWS))
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        _print(found, benchmark, show)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage of some work; called with its name, how much is done, and of how much."""
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage in tasks:
                bar.update(tasks[stage], completed=done)
                return
            tasks[stage] = bar.add_task(stage, total=total, completed=done)
            if stage.endswith("asking") and done:
                bar.console.print(f"[dim]{done} of {total} samples were asked already[/]")

        yield tell


def _scores(record: Record, title: str) -> Table:
    header = record.header
    table = Table(
        title=escape(f"{header['origin']['model']} on {title}, asked as {header['prompt']['protocol']}"),
        caption="blanked: the same questions about a gray picture",
    )
    table.add_column("score")
    for name in ("value", "95 % interval", "blanked"):
        table.add_column(name, justify="right")
    say = _sayer(header["full"])
    for name, score in header["scores"].items():
        low, high = score["interval"]
        table.add_row(escape(name), say(score["value"]), f"{say(low)} to {say(high)}", say(score["blank"]))
    return table


def in_words(record: Record) -> str:
    """Return how many samples a record holds, and what kept answers short or samples from being asked, as markup."""
    header = record.header
    parts = [f"{header['set']['samples']} samples in {header['set']['units']} units"]
    most = header["decoding"]["max_new_tokens"]
    if header["cut"]:
        parts.append(f"{header['cut']} answers cut at {most} tokens{' or fewer' * (header['shortened'] > 0)}")
    if header["shortened"]:
        parts.append(
            f"[yellow]{header['shortened']} answers had room for fewer than {most} tokens, since "
            f"{header['decoding']['length']} are all that a question and its answer may take[/]"
        )
    if header["errors"]:
        parts.append(f"[yellow]{len(header['errors'])} could not be asked and count as wrong[/]")
    return f"{', '.join(parts)}: {escape(str(record.folder))}"


def _print(found: Comparison, benchmark: Benchmark, show: int) -> None:
    """Print a comparison for people."""
    out = stdout()
    if found.changes:
        out.print(_changes(found))
    else:
        out.print("The records were made under the same conditions.")
    say = _sayer(benchmark.full)
    table = Table(title=f"{benchmark.title}: the {found.both} samples of both", caption="*: the interval leaves 0 out")
    table.add_column("score")
    for name in ("A", "B", "B less A", "95 % interval"):
        table.add_column(name, justify="right")
    for shift in found.shifts:
        low, high = (say(end, "+") for end in shift.interval)
        star = "*" * shift.sure
        table.add_row(
            escape(shift.name), say(shift.a), say(shift.b), say(shift.difference, "+") + star, f"{low} to {high}"
        )
    out.print(table)
    if found.only_a or found.only_b:
        out.print(f"Left out: {found.only_a} samples that only A holds, {found.only_b} that only B holds.")
    better = sum(flip.score_b > flip.score_a for flip in found.flips)
    out.print(f"{len(found.flips)} samples flipped: {better} to the better, {len(found.flips) - better} to the worse.")
    if found.flips and show:
        out.print(_flips(found, show))


def _changes(found: Comparison) -> Table:
    table = Table(title="What differs")
    for name in ("condition", "A", "B"):
        table.add_column(name, overflow="fold")
    for change in found.changes:
        where = "" if change.samples is None else f" ({change.samples} samples)"
        table.add_row(escape(change.name) + where, _short(change.a), _short(change.b))
    return table


def _flips(found: Comparison, show: int) -> Table:
    table = Table(title=f"The first {min(show, len(found.flips))}")
    for name in ("sample", "prompt", "accepted", "A said", "B said", "score"):
        table.add_column(name, overflow="fold")
    for flip in found.flips[:show]:
        cells = (flip.key, flip.prompt, ", ".join(flip.answers), flip.said_a, flip.said_b)
        table.add_row(*(escape(cell) for cell in cells), f"{flip.score_a:g} to {flip.score_b:g}")
    return table


def _sayer(full: float) -> Callable[..., str]:
    """Return what writes the scores of a set: percent of fractions, points as they are."""
    form = ".1%" if full == 1 else ".1f"
    return lambda value, sign="": f"{value:{sign}{form}}"


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return escape(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
