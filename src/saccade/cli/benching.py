"""`saccade bench` and `saccade plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.cli.measuring import (
    NONE,
    Device,
    Dtype,
    EnginePath,
    From,
    Markdown,
    Out,
    PaperModels,
    Peers,
    Pictures,
    Plot,
    Rounds,
    Seconds,
    Seed,
    Small,
    WarmUp,
    deliver,
    kept_result,
    to_place,
)
from saccade.cli.planning import PLAN_MODELS, to_size
from saccade.cli.shell import prepare_libraries, progress
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from saccade.bench.compare import Settings
    from saccade.bench.report import Result
    from saccade.bench.tasks import Task

TABLE1_MODELS = ("preset:flashsloth", "preset:flashsloth_hd")
TABLE1_PEERS = ("llava-1.5-7b", "imp-v1-3b", "qwen2-vl-2b", "internvl2-2b-6-tiles", "mobilevlm-v2-3b")
FLASHVL_MODELS = ("preset:flashvl_static", "preset:flashvl_dynamic", "preset:flashvl_iss")
FLASHVL_PEERS = ("qwen2-vl-2b", "internvl2-2b", "aquila-vl-2b")

TRAIN_MODELS = ("preset:flashsloth", "preset:flashsloth_hd", "preset:flashvl_static")
TRAIN_SMALL = ("preset:nano", "preset:nano_hd", "preset:nano_flashvl_static")
TRAIN_PEERS = ("llava-1.5-7b", "imp-v1-3b", "mobilevlm-v2-3b")

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
    path: EnginePath = "auto",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seconds: Seconds = None,
    seed: Seed = 0,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Measure one model: this machine's ceilings, then every stage beside the least time it can take.

    The model answers through plain `generate` and through the engine, by turns, on the same weights. The stages go from
    the bytes of a picture file to the tokens of the answer. The last line is one JSON object. Peak memory, rates at
    several batch sizes, FLOPs and MACs (half of them) stand in it, too.

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

        settings = Settings(new_tokens, rounds, warm_up, seed, seconds)
        result = _measured(model, to_size(picture), text, _numbers(batches), device, dtype, path, settings)
    else:
        result = kept_result(kept)
    deliver(result, out, plot, markdown)


@bench.command()
def table1(
    model: PaperModels = None,
    peer: Peers = None,
    pictures: Pictures = None,
    device: Device = None,
    dtype: Dtype = "bfloat16",
    path: EnginePath = "auto",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seconds: Seconds = None,
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

        paper = _Paper("table1", TASKS, TABLE1_MODELS, TABLE1_PEERS)
        settings = Settings(NEW_TOKENS, rounds, warm_up, seed, seconds)
        result = _compared(paper, model, peer, pictures, device, dtype, path, settings, small=small)
    else:
        result = kept_result(kept)
    deliver(result, out, plot, markdown)


@bench.command()
def flashvl(
    model: PaperModels = None,
    peer: Peers = None,
    pictures: Pictures = None,
    new_tokens: Annotated[
        int | None, typer.Option(min=2, help="Tokens of every answer; the paper's 128 if left out.")
    ] = None,
    device: Device = None,
    dtype: Dtype = "bfloat16",
    path: EnginePath = "auto",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seconds: Seconds = None,
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

        paper = _Paper("flashvl", TASKS, FLASHVL_MODELS, FLASHVL_PEERS)
        settings = Settings(new_tokens or NEW_TOKENS, rounds, warm_up, seed, seconds)
        result = _compared(paper, model, peer, pictures, device, dtype, path, settings, small=small)
    else:
        result = kept_result(kept)
    deliver(result, out, plot, markdown)


@bench.command("train")
def training(
    model: PaperModels = None,
    peer: Peers = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two steps of a quarter of the rows: to try it.")] = False,
    device: Device = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of products; bfloat16 on an accelerator, float32 on a CPU, if left out.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps that count, after two that do not.")] = 5,
    seed: Seed = 0,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Redo FlashSloth's Figure 3: memory and samples per second of a step of pretraining and of tuning.

    With the paper's rows on a device, 32 and 8, activations computed again, weights and optimizer in float32. On an
    accelerator our presets and the peers at full size, one after the other, and what does not fit is said with the
    memory it would take; on a CPU nano's shapes and small copies of the peers.

    Example:  saccade bench train --out train.json --plot train.png
    """
    result = _trained(model, peer, device, dtype, rounds, seed, quick=quick) if kept is None else kept_result(kept)
    deliver(result, out, plot, markdown)


@dataclass(frozen=True)
class _Paper:
    """What a paper measured: its lists, its models, its peers."""

    kind: str
    tasks: tuple[Task, ...]
    models: tuple[str, ...]
    peers: tuple[str, ...]


def _measured(
    model: str,
    size: tuple[int, int],
    text: int,
    batches: Sequence[int],
    device: str | None,
    dtype: str,
    path: str,
    settings: Settings,
) -> Result:
    """Measure one model, through plain `generate` and through the engine."""
    prepare_libraries()
    from saccade.bench.ceilings import Ceilings, measure_ceilings, steps_of
    from saccade.bench.count import Analysis, Workload
    from saccade.bench.engined import room_for
    from saccade.bench.opening import open_subjects
    from saccade.bench.plan import configuration, shapes_of
    from saccade.bench.report import new_result
    from saccade.bench.rounds import Budget
    from saccade.bench.tasks import Ask
    from saccade.bench.waterfall import measure_batches, measure_waterfall, runs_per_round
    from saccade.engine.paths import check_path
    from saccade.image import num_views

    place, number = to_place(device, dtype)
    steps = check_path(path, place)
    config = configuration(model)
    ask = Ask(*size, text)
    budget = Budget(settings.seconds, parts=2)
    shapes = shapes_of(config, Workload(num_views(*size, config.image), text))
    room = partial(room_for, asks=[ask], new_tokens=settings.new_tokens, rows=max(batches), path=steps)
    answers = runs_per_round(2, len(batches)) * (settings.rounds + settings.warm_up)
    with progress() as bar:
        task = bar.add_task("measuring", total=steps_of(place, number, shapes) + answers)
        ceilings = measure_ceilings(place, number, shapes, lambda: bar.advance(task))
        subjects = open_subjects([model], [], str(place), number, settings.seed, room=room)

        def tell(_: str) -> None:
            bar.advance(task)

        analysis = Analysis(config)
        fall = measure_waterfall(subjects, analysis, ceilings, ask, settings, tell, budget)
        ceilings = Ceilings(**fall["ceilings"])  # of memory, what was read beside the answers
        rates = measure_batches(subjects, analysis, ceilings, ask, batches, settings, tell, budget)
    content = {"model": subjects[0].name, "batches": rates, **fall}
    return new_result("model", place, number, settings, cut=budget.cut, **content)


def _compared(
    paper: _Paper,
    models: Sequence[str] | None,
    peers: Sequence[str] | None,
    pictures: int | None,
    device: str | None,
    dtype: str,
    path: str,
    settings: Settings,
    *,
    small: bool,
) -> Result:
    """Measure models, through plain `generate` and through the engine, and peers over a paper's lists."""
    prepare_libraries()
    from saccade.bench.ceilings import measure_ceilings
    from saccade.bench.compare import compare, runs_of
    from saccade.bench.engined import room_for
    from saccade.bench.opening import open_subjects
    from saccade.bench.report import new_result
    from saccade.bench.rounds import Budget
    from saccade.engine.paths import check_path

    place, number = to_place(device, dtype)
    steps = check_path(path, place)
    tasks = [replace(task, asks=task.asks[:pictures]) for task in paper.tasks]
    others = [] if peers == [NONE] else peers or paper.peers
    named = [] if models == [NONE] else models or paper.models
    asks = [ask for task in tasks for ask in task.asks]
    room = partial(room_for, asks=asks, new_tokens=settings.new_tokens, path=steps)
    budget = Budget(settings.seconds, parts=len(asks))
    with progress() as bar:
        opening = bar.add_task("building", total=len(named) + len(others))
        subjects = open_subjects(
            named,
            others,
            str(place),
            number,
            settings.seed,
            small=small,
            room=room,
            on_open=lambda _: bar.advance(opening),
        )
        task = bar.add_task("measuring", total=runs_of(tasks, len(subjects), settings))
        ceilings = measure_ceilings(place, number, {})
        rows = [row for one in tasks for row in compare(subjects, one, settings, lambda _: bar.advance(task), budget)]
    content = {"small": small, "cut": budget.cut, "ceilings": ceilings.to_dict(), "rows": rows}
    return new_result(paper.kind, place, number, settings, **content)


def _trained(
    models: Sequence[str] | None,
    peers: Sequence[str] | None,
    device: str | None,
    dtype: str | None,
    rounds: int,
    seed: int,
    *,
    quick: bool,
) -> Result:
    """Measure steps of training, of models and peers."""
    prepare_libraries()
    from saccade.bench.report import new_result
    from saccade.bench.training import Steps, learners, measure_training, steps_of

    place, _ = to_place(device, "float32")
    small = place.type == "cpu"
    _, number = to_place(device, dtype or ("float32" if small else "bfloat16"))
    others = [] if peers == [NONE] else peers or TRAIN_PEERS
    named = [] if models == [NONE] else models or (TRAIN_SMALL if small else TRAIN_MODELS)
    steps = Steps(2 if quick else rounds, seed, quick)
    found = learners(named, others, small=small)
    with progress() as bar:
        task = bar.add_task("training", total=steps_of(found, steps))
        rows = measure_training(found, place, number, steps, lambda: bar.advance(task))
    return new_result("train", place, number, steps, small=small, exercises=rows)


def _check_place_of_options(context: typer.Context) -> None:
    """Raise ConfigError for options before the word of a subcommand, which would go unheard."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"an option stands before {context.invoked_subcommand}, which has options of its own: write it behind"
            )


def _numbers(text: str) -> list[int]:
    """Read numbers of rows separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--batches is {text!r}: write different numbers above 0 like 1,8")
    return [int(part) for part in parts]
