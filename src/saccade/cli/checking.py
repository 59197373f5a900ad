"""`saccade data check`: every row validated before anything is trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from saccade.cli.shell import JsonOption, prepare_libraries, stdout
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from saccade.data.check import Findings
    from saccade.data.encoder import Encoder
    from saccade.data.rows import Rows

LISTED = 20  # bad rows of one reason that are shown
_FILES = "JSON, JSON lines, parquet or tar shards, a pattern of them, a folder of the latter two, or hf:owner/name."
_KIND = "chat, captions, preferences or problems."


def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=_FILES)],
    kind: Annotated[str, typer.Option(help=_KIND)] = "chat",
    pictures: Annotated[Path | None, typer.Option(help="Where relative names of pictures start.")] = None,
    split: Annotated[str, typer.Option(help="Split of a data set that has several.")] = "train",
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model inside the package, a folder, a hub id, or preset:NAME.")
    ] = "nano",
    tokenizer: Annotated[str | None, typer.Option(help="A model or folder that holds it; that of --model.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Most tokens of a row; the model's positions.")] = None,
    headers: Annotated[bool, typer.Option("--headers", help="Read only the headers of pictures: quicker.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes beside this one.")] = min(os.cpu_count() or 1, 8),
    samples: Annotated[int, typer.Option(min=0, help="Rows to show as the model will see them.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Check every row of training data without a GPU, and show some as the model will see them; exit 1 for bad rows.

    Example:  saccade data check talks.jsonl --model nano

    Example:  saccade data check 'shards/*.tar' --kind captions --max-length 512 --json
    """
    prepare_libraries()
    from saccade.data.check import check_rows
    from saccade.data.records import Joined
    from saccade.data.rows import Row
    from saccade.data.sources import Source, open_rows

    folder = None if pictures is None else str(pictures)
    fields: dict[str, Any] = {"kind": kind, "pictures": folder, "split": split}
    rows = Joined[Row]([open_rows(Source(path=file, **fields)) for file in files])
    encoder = _encoder(model, tokenizer)
    findings = check_rows(rows, encoder, max_length=max_length, workers=workers, whole=not headers)
    console = stdout()
    marks = as_json or console.color_system is None or console.no_color
    shown = _samples(rows, encoder, findings, samples, marks)
    if as_json:
        said = [{"where": where, "text": text.plain} for where, text in shown]
        typer.echo(json.dumps({"files": files, "kind": kind, "model": model, **findings.summary(), "samples": said}))
    else:
        _print(findings.summary(), shown, marks)
    if findings.bad:
        raise typer.Exit(1)


def _encoder(model: str, tokenizer: str | None) -> Encoder:
    from saccade.bench.plan import PRESET, configuration
    from saccade.data.encoder import Encoder
    from saccade.train.start import load_tokenizer

    config = configuration(model)
    if tokenizer is None and model.startswith(PRESET):
        raise ConfigError(f"{model} has no tokenizer of its own: name a model that holds it with --tokenizer")
    return Encoder(config, load_tokenizer(tokenizer or model))


def _samples(rows: Rows, encoder: Encoder, findings: Findings, count: int, marks: bool) -> list[tuple[str, Text]]:
    """Return some good rows with their prompts, each prompt of a row on lines of its own."""
    from saccade.data.check import picture_sizes, spread_samples
    from saccade.data.colored import colored

    shown = []
    for index in spread_samples(findings, count):
        row = rows[index]
        prompts = encoder.row(row, picture_sizes(row, encoder))
        shown.append((row.where, Text("\n").join(colored(prompt, encoder.tokenizer, marks) for prompt in prompts)))
    return shown


def _print(summary: dict[str, Any], shown: list[tuple[str, Text]], marks: bool) -> None:
    from saccade.data.colored import legend

    console = stdout()
    for where, text in shown:
        console.rule(escape(where))
        console.print(text, soft_wrap=True)
    if shown:
        console.rule()
        console.print(legend(marks), soft_wrap=True)
    console.print(_table(summary))
    for reason, bad in summary["bad"].items():
        console.print(f"[bold red]{reason}[/], {len(bad)}:")
        for row in bad[:LISTED]:
            console.print(f"  {escape(row['where'])}: {escape(row['detail'])}", soft_wrap=True)
        if len(bad) > LISTED:
            console.print(f"  and {len(bad) - LISTED} more: --json lists all")
    for note in summary["notes"][:LISTED]:
        console.print(f"[yellow]note[/], {escape(note['where'])}: {escape(note['note'])}", soft_wrap=True)


def _table(summary: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows", str(summary["rows"]))
    table.add_row("bad rows", str(summary["bad_rows"]), style="bold red" if summary["bad_rows"] else None)
    table.add_row("pictures", str(summary["pictures"]))
    table.add_row("rows without a picture", str(summary["text_only_rows"]))
    if summary["tokens_max"] is not None:
        lengths = f"{summary['tokens_mean']} / {summary['tokens_95_percent']} / {summary['tokens_max']}"
        table.add_row("tokens of a row: mean / 95 % / most", lengths)
        table.add_row("tokens that are trained", f"{summary['trained_share']:.1%}")
    return table
