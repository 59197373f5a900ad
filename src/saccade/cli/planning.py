"""`saccade plan`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import JsonOption, prepare_libraries, progress, stdout
from saccade.cli.training import DataOption, SetOption, resolved
from saccade.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from saccade.bench.ceilings import Ceilings
    from saccade.bench.plan import Question
    from saccade.config import SaccadeConfig
    from saccade.train.stages import Recipe

PLAN_MODELS = "A model inside the package, a folder, a hub id, or preset:NAME, which needs no weights."


def plan(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="Plan a training: name of a recipe, or its file.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help=PLAN_MODELS)] = "nano",
    picture: Annotated[list[str] | None, typer.Option(help="A size, WIDTHxHEIGHT. Repeatable.")] = None,
    text: Annotated[
        int, typer.Option(min=1, help="Tokens beside visual and query tokens, of the prompt or of a round in training.")
    ] = 48,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 1,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 64,
    dtype: Annotated[str, typer.Option(help="Of weights, cache and activations.")] = "bfloat16",
    ceilings: Annotated[
        Path | None, typer.Option(help="A JSON file of `saccade bench --out`: adds the least possible times.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine for the least times.")] = False,
    device: Annotated[str | None, typer.Option(help="With --measure: cpu or cuda.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Of a recipe: processes that share its steps.")] = 1,
    sharded: Annotated[bool, typer.Option("--sharded", help="Of a recipe: they share the weights, too.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Of a recipe: TFLOPs that a process computes in a second.")
    ] = None,
    data: DataOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the bill before anything is loaded or runs: tokens, FLOPs, bytes, and the least possible times.

    One multiply-accumulate (MAC) is two FLOPs. No weights are read. Of a recipe, stage by stage: what a process holds
    in memory at most, with activations kept or computed again, and what all steps compute.

    Example:  saccade plan --model preset:flashsloth_hd --picture 1024x768

    Example:  saccade plan --model nano --picture 320x240 --picture 640x480 --measure

    Example:  saccade plan flashsloth --processes 8 --sharded --rate 100 --set stages.tuning.batch=256
    """
    prepare_libraries()
    _check_options(context, of_recipe=recipe is not None)
    if recipe is not None:
        found = resolved(recipe, data, None, settings)
        _plan_recipe(found, picture or ["640x480"], text, dtype, (processes, sharded, rate), as_json)
        return
    from saccade.bench.ceilings import read_ceilings
    from saccade.bench.plan import Question, configuration, make_plan
    from saccade.vlm import parse_dtype

    if ceilings is not None and measure:
        raise ConfigError("--ceilings and --measure both say how fast the machine is: give one")
    number = parse_dtype(dtype)
    assert number is not None
    questions = [Question(to_size(size), text, new_tokens, batch) for size in picture or ["640x480"]]
    config = configuration(model)
    rates = None if ceilings is None else read_ceilings(ceilings)
    if measure:
        rates = _measured(config, questions[0], number, device)
    bill = {"model": model, **make_plan(config, questions, number, rates)}
    if as_json:
        typer.echo(json.dumps(bill))
        return
    _print_bill(bill)


OF_RECIPES = ("processes", "sharded", "rate", "data", "settings")
OF_MODELS = ("model", "batch", "new_tokens", "ceilings", "measure", "device")


def _check_options(context: typer.Context, *, of_recipe: bool) -> None:
    """Raise ConfigError for options that go unheard, of a recipe or of a model."""
    words = {param.name: param.opts[0] for param in context.command.params}
    for name in OF_MODELS if of_recipe else OF_RECIPES:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            planned = "recipe" if of_recipe else "model"
            raise ConfigError(f"the plan of a {planned} has no use for {words[name]}: leave it out")


def _plan_recipe(
    recipe: Recipe,
    pictures: Sequence[str],
    text: int,
    dtype: str,
    shared: tuple[int, bool, float | None],
    as_json: bool,
) -> None:
    from saccade.bench.recipe_plan import Run, plan_recipe
    from saccade.vlm import parse_dtype

    number = parse_dtype(dtype)
    assert number is not None
    if len(pictures) > 1:
        raise ConfigError("the plan of a recipe is made for one size of picture: give one --picture")
    size = to_size(pictures[0])
    processes, sharded, rate = shared
    run = Run(size, text, processes, sharded, number, None if rate is None else rate * 1e12)
    with progress() as bar:
        task = bar.add_task("tracing", total=len(recipe.stages))
        bill = plan_recipe(recipe, run, lambda: bar.advance(task))
    if as_json:
        typer.echo(json.dumps(bill))
        return
    stdout().print(_held(bill))
    stdout().print(_computed(bill))
    stdout().print(
        f"{processes} processes; pictures of {size[0]} x {size[1]}, {text} text tokens a round; weights in float32, "
        f"products in {bill['dtype']}. Kept, again: at most, with activations kept or computed again; * marks how the "
        "stage is set. What it takes to sample answers is left out.",
        soft_wrap=True,
    )


def _held(bill: dict[str, Any]) -> Table:
    table = Table("stage", "M trained", "weights", "gradients", "optimizer", "kept", "again", title="GB a process")
    for stage in bill["stages"]:
        parts, most, again = stage["bytes"], stage["bytes_at_most"], stage["checkpointing"]
        table.add_row(
            escape(stage["name"]),
            f"{stage['trained'] / 1e6:,.4g}",
            *(f"{parts[name] / 1e9:.3g}" for name in ("weights", "gradients", "optimizer")),
            f"{most['kept'] / 1e9:.3g}{'' if again else '*'}",
            f"{most['computed again'] / 1e9:.3g}{'*' if again else ''}",
        )
    return _to_the_right(table)


def _computed(bill: dict[str, Any]) -> Table:
    table = Table("stage", "tokens a step", "TFLOPs a step", "steps", "PFLOPs", "hours", title="work of all processes")
    for stage in bill["stages"]:
        counts = stage["tokens_per_step"] or None, stage["steps"]
        steps_flops, flops, hours = stage["flops_per_step"] / 1e12, stage["flops"], stage["hours"]
        tokens, steps = ("–" if count is None else f"{count:,}" for count in counts)
        table.add_row(
            escape(stage["name"]),
            tokens,
            f"{steps_flops:,.3g}",
            steps,
            "–" if flops is None else f"{flops / 1e15:,.3g}",
            "–" if hours is None else f"{hours:,.3g}",
        )
    return _to_the_right(table)


def _to_the_right(table: Table) -> Table:
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def to_size(text: str) -> tuple[int, int]:
    """Read a picture's size; raises ConfigError when it is none."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise ConfigError(f"{text!r} is no size of a picture: write WIDTHxHEIGHT, such as 640x480")
    return int(found[1]), int(found[2])


def _measured(config: SaccadeConfig, question: Question, dtype: torch.dtype, device: str | None) -> Ceilings:
    import torch

    from saccade.bench.ceilings import measure_ceilings
    from saccade.bench.count import Workload
    from saccade.bench.plan import shapes_of
    from saccade.image import num_views

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    work = Workload(num_views(*question.picture, config.image), question.text_tokens, question.batch)
    with progress() as bar:
        task = bar.add_task("measuring the machine", total=None)
        return measure_ceilings(place, dtype, shapes_of(config, work), lambda: bar.advance(task))


def _print_bill(bill: dict[str, Any]) -> None:
    stdout().print(f"{escape(bill['model'])}: {bill['parameters']:,} parameters, {bill['dtype']}", soft_wrap=True)
    stdout().print(_weights(bill))
    for question in bill["questions"]:
        stdout().print(_said(question), soft_wrap=True)
        stdout().print(_stages(question))


def _weights(bill: dict[str, Any]) -> Table:
    table = Table("part", "MB")
    table.columns[1].justify = "right"
    for name, size in bill["weights"].items():
        if size:
            table.add_row(name, f"{size / 1e6:,.1f}")
    table.add_row("cache, a token", f"{bill['kv_bytes_per_token'] / 1e6:.3f}")
    return table


def _said(question: dict[str, Any]) -> str:
    width, height = question["picture"]
    return (
        f"{width} x {height}, {question['views']} views, batch {question['batch']}: {question['visual_tokens']} visual "
        f"and {question['query_tokens']} query tokens in a prompt of {question['prompt_tokens']}; at most "
        f"{question['bytes_at_most'] / 1e9:.3g} GB, of which cache {question['kv_bytes'] / 1e6:.4g} MB"
    )


def _stages(question: dict[str, Any]) -> Table:
    table = Table("stage", "GFLOPs", "GMACs", "GB read")
    timed = question["stages"][0]["least_seconds"] is not None
    if timed:
        table.add_column("least ms")
    for stage in question["stages"]:
        numbers = [stage["flops"] / 1e9, stage["macs"] / 1e9, stage["bytes_read"] / 1e9]
        numbers += [stage["least_seconds"] * 1e3] if timed else []
        table.add_row(stage["name"], *(f"{number:,.4g}" for number in numbers))
    return _to_the_right(table)
