"""`saccade bench` and `saccade plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.planning import PLAN_MODELS, to_size
from saccade.cli.shell import prepare_libraries, progress
from saccade.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from saccade.bench.compare import Settings
    from saccade.bench.report import Result, Target
    from saccade.bench.tasks import Task

NONE = "none"
PaperModels = Annotated[
    list[str] | None, typer.Option("--model", "-m", help=f"{PLAN_MODELS} Or none. Repeatable; the paper's if left out.")
]
Peers = Annotated[
    list[str] | None,
    typer.Option("--peer", help="A peer, or none. Repeatable; the paper's if left out."),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; CUDA when there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Rounds = Annotated[int, typer.Option(help="Rounds over everything, forwards and backwards by turns; 5 or more.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Rounds before the first, not counted.")]
Seed = Annotated[int, typer.Option(help="Of pictures and random weights.")]
Pictures = Annotated[int | None, typer.Option(min=1, help="Only so many pictures of each list.")]
Small = Annotated[bool, typer.Option("--small", help="Small copies of the peers: to try the command, not to time.")]
Out = Annotated[Path | None, typer.Option(help="Keep the result in this JSON file.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the result into this PNG file.")]
Markdown = Annotated[Path | None, typer.Option(help="Write the tables into this Markdown file.")]
From = Annotated[Path | None, typer.Option("--from", help="Run nothing: take the result that this JSON file keeps.")]

TABLE1_MODELS = ("preset:flashsloth", "preset:flashsloth_hd")
TABLE1_PEERS = ("llava-1.5-7b", "imp-v1-3b", "qwen2-vl-2b", "internvl2-2b-6-tiles", "mobilevlm-v2-3b")
FLASHVL_MODELS = ("preset:flashvl_static", "preset:flashvl_dynamic", "preset:flashvl_iss")
FLASHVL_PEERS = ("qwen2-vl-2b", "internvl2-2b", "aquila-vl-2b")
# Subject, what it is divided by, task or None for all, bound of the ratio of times to the first token.
TABLE1_TARGETS = (("flashsloth", "llava-1.5-7b", None, 0.20),)
FLASHVL_TARGETS = (("flashvl_static", "qwen2-vl-2b", "1024 x 768", 0.12),)

bench = typer.Typer(invoke_without_command=True)


@bench.callback()
def measure(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help=PLAN_MODELS)] = "nano",
    picture: Annotated[str, typer.Option(help="Its size, WIDTHxHEIGHT.")] = "640x480",
    text: Annotated[int, typer.Option(help="Tokens of the prompt beside visual and query tokens.")] = 48,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of every answer; none stops earlier.")] = 64,
    batches: Annotated[str, typer.Option(help="Numbers of rows to measure rates at, separated by commas.")] = "1,8",
    device: Device = None,
    dtype: Dtype = "bfloat16",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seed: Seed = 0,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Measure one model: this machine's ceilings, then every stage beside the least time it can take.

    The stages go from the bytes of a picture file to the tokens of the answer. The last line is one JSON object. Peak
    memory, rates at several batch sizes, FLOPs and MACs (half of them) stand in it, too.

    Example:  saccade bench --model nano --dtype float32 --out bench.json --plot bench.png

    A preset has random weights; speed does not depend on the values:
    saccade bench --model preset:flashsloth --picture 1024x768 --batches 1

    Tables and plots are made from the JSON file alone, as often as you like:
    saccade bench --from bench.json --plot bench.png --markdown bench.md
    """
    if context.invoked_subcommand is not None:
        _check_place_of_options(context)
        return
    if kept is None:
        from saccade.bench.compare import Settings

        settings = Settings(new_tokens, rounds, warm_up, seed)
        result = _measured(model, to_size(picture), text, _numbers(batches), device, dtype, settings)
    else:
        result = _kept(kept)
    _deliver(result, out, plot, markdown)


@bench.command()
def table1(
    model: PaperModels = None,
    peer: Peers = None,
    pictures: Pictures = None,
    device: Device = None,
    dtype: Dtype = "bfloat16",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seed: Seed = 0,
    small: Small = False,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Redo FlashSloth's Table 1: tokens, work, memory, time to the first token and answers per second.

    Over five lists of picture sizes that give the dynamic peers the paper's numbers of visual tokens. What the paper
    prints as TFLOPs looks like multiply-accumulates: both units are given. All models stay in memory to take turns.

    Example:  saccade bench table1 --out table1.json --plot pareto.png

    On a machine with little memory, two at a time:
    saccade bench table1 --model preset:flashsloth --peer llava-1.5-7b --pictures 2
    """
    if kept is None:
        from saccade.bench.compare import Settings
        from saccade.bench.table1 import NEW_TOKENS, TASKS

        paper = _Paper("table1", TASKS, TABLE1_MODELS, TABLE1_PEERS, TABLE1_TARGETS)
        settings = Settings(NEW_TOKENS, rounds, warm_up, seed)
        result = _compared(paper, model, peer, pictures, device, dtype, settings, small=small)
    else:
        result = _kept(kept)
    _deliver(result, out, plot, markdown)


@bench.command()
def flashvl(
    model: PaperModels = None,
    peer: Peers = None,
    pictures: Pictures = None,
    device: Device = None,
    dtype: Dtype = "bfloat16",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seed: Seed = 0,
    small: Small = False,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Redo Flash-VL's Figure 1 and Appendix A.4: MMMU-like pictures and prompts, batch 1, 128 tokens.

    Times to the first token and per later token come with their percentiles; single samples stand in the JSON.

    Example:  saccade bench flashvl --out flashvl.json --plot pareto.png
    """
    if kept is None:
        from saccade.bench.compare import Settings
        from saccade.bench.mmmu import NEW_TOKENS, TASKS

        paper = _Paper("flashvl", TASKS, FLASHVL_MODELS, FLASHVL_PEERS, FLASHVL_TARGETS)
        settings = Settings(NEW_TOKENS, rounds, warm_up, seed)
        result = _compared(paper, model, peer, pictures, device, dtype, settings, small=small)
    else:
        result = _kept(kept)
    _deliver(result, out, plot, markdown)


@dataclass(frozen=True)
class _Paper:
    """What a paper measured: its lists, its models, its peers, and the bounds of ratios to reach."""

    kind: str
    tasks: tuple[Task, ...]
    models: tuple[str, ...]
    peers: tuple[str, ...]
    targets: tuple[tuple[str, str, str | None, float], ...]


def _measured(
    model: str,
    size: tuple[int, int],
    text: int,
    batches: Sequence[int],
    device: str | None,
    dtype: str,
    settings: Settings,
) -> Result:
    """Measure one model."""
    prepare_libraries()
    from saccade.bench.ceilings import SQUARES, measure_ceilings
    from saccade.bench.count import Analysis, Workload
    from saccade.bench.opening import open_subjects
    from saccade.bench.plan import configuration, shapes_of
    from saccade.bench.report import new_result
    from saccade.bench.tasks import Ask
    from saccade.bench.waterfall import measure_batches, measure_waterfall
    from saccade.image import num_views

    place, number = _place(device, dtype)
    config = configuration(model)
    analysis = Analysis(config)
    shapes = shapes_of(config, Workload(num_views(*size, config.image), text))
    answers = (2 + len(batches)) * (settings.rounds + settings.warm_up)
    with progress() as bar:
        task = bar.add_task("measuring", total=1 + len(shapes) + len(SQUARES[place.type]) + answers)
        ceilings = measure_ceilings(place, number, shapes, lambda: bar.advance(task))
        (subject,) = open_subjects([model], [], str(place), number, settings.seed)
        ask = Ask(*size, text)
        fall = measure_waterfall(subject, analysis, ceilings, ask, settings, lambda _: bar.advance(task))
        rates = measure_batches(subject, ask, batches, settings, lambda _: bar.advance(task))
    return new_result(
        "model", place, number, settings, model=subject.name, ceilings=ceilings.to_dict(), batches=rates, **fall
    )


def _compared(
    paper: _Paper,
    models: Sequence[str] | None,
    peers: Sequence[str] | None,
    pictures: int | None,
    device: str | None,
    dtype: str,
    settings: Settings,
    *,
    small: bool,
) -> Result:
    """Measure models and peers over a paper's lists."""
    prepare_libraries()
    from saccade.bench.ceilings import measure_ceilings
    from saccade.bench.compare import compare, runs_of
    from saccade.bench.opening import open_subjects
    from saccade.bench.report import new_result

    place, number = _place(device, dtype)
    tasks = [replace(task, asks=task.asks[:pictures]) for task in paper.tasks]
    others = [] if peers == [NONE] else peers or paper.peers
    named = [] if models == [NONE] else models or paper.models
    with progress() as bar:
        opening = bar.add_task("building", total=len(named) + len(others))
        subjects = open_subjects(
            named, others, str(place), number, settings.seed, small=small, on_open=lambda _: bar.advance(opening)
        )
        task = bar.add_task("measuring", total=runs_of(tasks, len(subjects), settings))
        ceilings = measure_ceilings(place, number, {})
        rows = [row for one in tasks for row in compare(subjects, one, settings, lambda _: bar.advance(task))]
    targets = _ratios(paper, rows)
    return new_result(paper.kind, place, number, settings, targets, small=small, ceilings=ceilings.to_dict(), rows=rows)


def _ratios(paper: _Paper, rows: Sequence[dict[str, Any]]) -> list[Target]:
    """Compare the ratios of times to the first token with their bounds, where both models were measured."""
    from saccade.bench.compare import over
    from saccade.bench.report import Target

    found = []
    for name, other, task, bound in paper.targets:
        ratio = over([row for row in rows if task in (None, row["task"])], name, other)
        if ratio is not None:
            where = "all tasks" if task is None else task
            found.append(Target(f"time to first token, {name} over {other}, {where}", ratio["median"], bound))
    return found


def _check_place_of_options(context: typer.Context) -> None:
    """Raise ConfigError for options before the word of a subcommand, which would go unheard."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"an option stands before {context.invoked_subcommand}, which has options of its own: write it behind"
            )


def _kept(path: Path) -> Result:
    from saccade.bench.report import read_result

    return read_result(path)


def _deliver(result: Result, out: Path | None, plot: Path | None, markdown: Path | None) -> None:
    """Print the tables and, as the last line, the result; write the files that are wanted."""
    from saccade.bench.report import markdown as tables
    from saccade.bench.report import write_result

    if out is not None:
        write_result(result, out)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(tables(result), encoding="utf-8")
    if plot is not None:
        from saccade.bench.draw import draw

        draw(result, plot)
    typer.echo(tables(result))
    typer.echo(json.dumps(result))


def _place(device: str | None, dtype: str) -> tuple[torch.device, torch.dtype]:
    import torch

    from saccade.vlm import parse_dtype

    number = parse_dtype(dtype)
    assert number is not None
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")), number


def _numbers(text: str) -> list[int]:
    """Read numbers of rows separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--batches is {text!r}: write different numbers above 0 like 1,8")
    return [int(part) for part in parts]
