"""`saccade eval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from saccade.cli.shell import DeviceOption, DtypeOption, JsonOption, ModelOption, open_vlm, progress, stdout
from saccade.errors import ConfigError


def evaluate(
    model: ModelOption = "nano",
    split: Annotated[str, typer.Option(help="test, val, shifted, or train.")] = "test",
    families: Annotated[
        str | None,
        typer.Option(help="Scene families, separated by commas; if left out, all but preference and reasoning."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many questions (or, pointing, scenes) of each family.")
    ] = None,
    setting: Annotated[
        Literal["alone", "after", "beside"],
        typer.Option(help="The picture alone, shown after another was asked about, or beside another."),
    ] = "alone",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 64,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    out: Annotated[Path | None, typer.Option(help="Write the report with every single answer to this file.")] = None,
    pointing: Annotated[
        bool, typer.Option("--pointing", help="Score where the queries look when different things are named.")
    ] = False,
) -> None:
    """Score a model on the rendered world, with its eyes open and shut.

    Example:  saccade eval --families objects --limit 100

    Example:  saccade eval --families preference,reasoning

    Example:  saccade eval --pointing --limit 200
    """
    from saccade.data import scenes
    from saccade.evaluate import evaluate_world
    from saccade.evaluate.pointing import FAMILIES, evaluate_pointing

    if pointing and setting != "alone":
        raise ConfigError("--pointing looks at one picture: leave --setting out")
    measure: Callable[..., Any] = evaluate_pointing if pointing else partial(evaluate_world, setting=setting)
    default = FAMILIES if pointing else scenes.FAMILIES
    names = default if families is None else tuple(name.strip() for name in families.split(","))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    vlm = open_vlm(model, device, dtype)
    with progress() as bar:
        task = bar.add_task("asking", total=None)
        report = measure(
            vlm,
            names,
            split=split,
            limit=limit,
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if out is not None:
        out.write_text(json.dumps(report.to_dict(samples=True), indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        stdout().print((_pointing_table if pointing else _table)(report.to_dict()))


def _table(report: dict[str, Any]) -> Table:
    table = _empty_table(
        f"{report['model']} on the rendered world, version {report['world']}, split {report['split']}",
        "blanked: the same questions about a gray picture",
        ("right", "95 % interval", "blanked", "questions"),
    )
    for family, score in report["families"].items():
        low, high = score["interval"]
        table.add_row(
            f"[bold]{family}[/]", "all", *_cells(score, f"{low:.1%} to {high:.1%}"), end_section=not score["types"]
        )
        for kind, part in score["types"].items():
            table.add_row("", kind, *_cells(part, ""))
        table.add_section()
    return table


def _pointing_table(report: dict[str, Any]) -> Table:
    table = _empty_table(
        f"pointing of {report['model']}, rendered world, version {report['world']}, split {report['split']}",
        "score: the queries' attention on a thing when it is named, less that when another is",
        ("score", "95 % interval", "named", "other", "scenes"),
    )
    for family, score in report["families"].items():
        for kind, part in {"all": score, **score["types"]}.items():
            low, high = part["interval"]
            table.add_row(
                f"[bold]{family}[/]" if kind == "all" else "",
                kind,
                f"{part['mean']:.1%}",
                f"{low:.1%} to {high:.1%}",
                *(f"{part[name]:.1%}" for name in ("named", "other")),
                str(part["n"]),
                end_section=kind == "all",
            )
        table.add_section()
    return table


def _empty_table(title: str, caption: str, figures: tuple[str, ...]) -> Table:
    """A table with a row for every family and type, and columns of figures."""
    table = Table(title=title, caption=caption)
    for name in ("family", "type"):
        table.add_column(name)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _cells(score: dict[str, Any], span: str) -> tuple[str, str, str, str]:
    return f"{score['accuracy']:.1%}", span, f"{score['blank_accuracy']:.1%}", str(score["n"])
