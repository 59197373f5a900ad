"""`saccade eval`: which of its words is meant, and the report on the rendered world."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from typer.core import TyperGroup

from saccade.cli.recording import chosen_benchmark, make_record
from saccade.cli.shell import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    open_vlm,
    option_words,
    progress,
    stdout,
)
from saccade.errors import ConfigError

REPORT_BATCH = 64
Shown = Literal["alone", "after", "beside"]
_HAS_WORD = f"{__name__}.has_word"

Set = Annotated[
    str | None, typer.Argument(metavar="SET", help="A public set such as pope, or world; left out, a report on it.")
]
Copy = Annotated[
    Path | None, typer.Argument(metavar="PATH", help="The set's local copy; of the world a split, test if left out.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the record; without SET, a file for the report.")]
Named = Annotated[str | None, typer.Option(help="With SET: whose words it is asked in; the set's first if left out.")]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="At most so many units of SET; without, questions (pointing: scenes) of each family."),
]
NewTokens = Annotated[
    int | None, typer.Option(min=1, help="With SET: of an answer; if left out the protocol's, or what fits.")
]
Length = Annotated[int | None, typer.Option(min=1, help="With SET: most tokens of a question and its answer.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="With SET: count what cannot be asked as wrong, instead of stopping.")
]
Families = Annotated[
    str | None,
    typer.Option(help="Families of the world, separated by commas; if left out, all but preference and reasoning."),
]
Split = Annotated[str | None, typer.Option(help="Without SET: test (if left out), val, shifted, or train.")]
SettingOption = Annotated[
    Shown | None,
    typer.Option(help="Without SET: the picture alone, shown after another was asked about, or beside another."),
]
Pointing = Annotated[
    bool,
    typer.Option("--pointing", help="Without SET: score where the queries look when different things are named."),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Questions at once.")]


class Scoring(TyperGroup):
    """Takes a set and its path, or one of its own words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Tell apart by the first word what follows."""
        ctx.meta[_HAS_WORD] = bool(args) and args[0] in self.commands
        ctx.allow_interspersed_args = not ctx.meta[_HAS_WORD]
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """Leave what follows a word of its own to that word."""
        params = super().get_params(ctx)
        return [param for param in params if param.param_type_name == "option" or not ctx.meta.get(_HAS_WORD)]


scoring = typer.Typer(cls=Scoring, invoke_without_command=True)


@scoring.callback()
def evaluate(
    context: typer.Context,
    benchmark: Set = None,
    path: Copy = None,
    model: ModelOption = "nano",
    out: Out = None,
    protocol: Named = None,
    limit: Limit = None,
    max_new_tokens: NewTokens = None,
    length: Length = None,
    skip_bad: SkipBad = False,
    families: Families = None,
    split: Split = None,
    setting: SettingOption = None,
    pointing: Pointing = False,
    batch_size: BatchSize = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model with its eyes open and shut, on a public set or on the rendered world.

    A set is asked in the words of a paper's tool, and judged as that tool does. Scores, conditions and all answers
    become a record, a folder; the same command goes on where it was stopped.

    Example:  saccade eval pope data/POPE --model Tongbo/FlashSloth-3.2B --out runs/pope

    Example:  saccade eval diff runs/pope runs/pope-bfloat16

    Without a set, a report on the rendered world:  saccade eval --families objects --limit 100

    Where the queries look:  saccade eval --pointing --limit 200
    """
    if context.invoked_subcommand is not None:
        return
    names = None if families is None else tuple(name.strip() for name in families.split(","))
    shared = {"limit": limit, "batch_size": batch_size}
    for_set = {"protocol": protocol, "max_new_tokens": max_new_tokens, "length": length, "skip_bad": skip_bad or None}
    for_report = {"split": split, "setting": setting, "pointing": pointing or None}
    if benchmark is None:
        options = {**_given(shared), "families": names, **_given(for_report)}
        _refuse(for_set, "is about a public set: name one, or leave the option out")
        _report(partial(open_vlm, model, device, dtype), out, as_json, **options)
        return
    _refuse(for_report, "is about the report without a set: leave it out, or leave out the set")
    if out is None:
        raise ConfigError("a set's scores and answers become a record: name its folder with --out")
    chosen, place = chosen_benchmark(benchmark, path, names)
    settings = _given(shared | for_set)
    asked_as = {"model": model, **_given({"families": families, "device": device, "dtype": dtype}), **settings}
    command = shlex.join(["saccade", "eval", benchmark, str(place), *option_words(asked_as)])  # but for the folder
    make_record(partial(open_vlm, model, device, dtype), chosen, place, out, as_json, command=command, **settings)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: Mapping[str, Any], why: str) -> None:
    for name in _given(options):
        raise ConfigError(f"--{name.replace('_', '-')} {why}")


def _report(
    load: Callable[[], Any],
    out: Path | None,
    as_json: bool,
    *,
    families: tuple[str, ...] | None,
    pointing: bool = False,
    setting: Shown = "alone",
    split: str = "test",
    limit: int | None = None,
    batch_size: int = REPORT_BATCH,
) -> None:
    """Score a model on the rendered world and print the report."""
    from saccade.data import scenes
    from saccade.evaluate import evaluate_world
    from saccade.evaluate.pointing import FAMILIES, evaluate_pointing

    if pointing and setting != "alone":
        raise ConfigError("--pointing looks at one picture: leave --setting out")
    measure: Callable[..., Any] = evaluate_pointing if pointing else partial(evaluate_world, setting=setting)
    names = families or (FAMILIES if pointing else scenes.FAMILIES)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    vlm = load()
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
