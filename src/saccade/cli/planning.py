"""`saccade plan`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import JsonOption, prepare_libraries, progress, stdout
from saccade.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from saccade.bench.ceilings import Ceilings
    from saccade.bench.plan import Question
    from saccade.config import SaccadeConfig

PLAN_MODELS = "A model inside the package, a folder, a hub id, or preset:NAME, which needs no weights."


def plan(
    model: Annotated[str, typer.Option("--model", "-m", help=PLAN_MODELS)] = "nano",
    picture: Annotated[list[str] | None, typer.Option(help="A size, WIDTHxHEIGHT. Repeatable.")] = None,
    text: Annotated[int, typer.Option(min=1, help="Tokens of the prompt beside visual and query tokens.")] = 48,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 1,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 64,
    dtype: Annotated[str, typer.Option(help="Of weights, cache and activations.")] = "bfloat16",
    ceilings: Annotated[
        Path | None, typer.Option(help="A JSON file of `saccade bench --out`: adds the least possible times.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine for the least times.")] = False,
    device: Annotated[str | None, typer.Option(help="With --measure: cpu or cuda.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the bill before anything is loaded or runs: tokens, FLOPs, bytes, and the least possible times.

    One multiply-accumulate (MAC) is two FLOPs. No weights are read.

    Example:  saccade plan --model preset:flashsloth_hd --picture 1024x768

    Example:  saccade plan --model nano --picture 320x240 --picture 640x480 --measure
    """
    prepare_libraries()
    from saccade.bench.ceilings import read_ceilings
    from saccade.bench.plan import Question, configuration, make_plan
    from saccade.vlm import parse_dtype

    number = parse_dtype(dtype)
    assert number is not None
    if ceilings is not None and measure:
        raise ConfigError("--ceilings and --measure both say how fast the machine is: give one")
    questions = [Question(to_size(size), text, new_tokens, batch) for size in picture or ["640x480"]]
    config = configuration(model)
    rates = None if ceilings is None else read_ceilings(ceilings)
    if measure:
        rates = _measured(config, questions[0], number, device)
    bill = {"model": model, **make_plan(config, questions, number, rates)}
    if as_json:
        typer.echo(json.dumps(bill))
        return
    stdout().print(f"{escape(model)}: {bill['parameters']:,} parameters, {bill['dtype']}", soft_wrap=True)
    stdout().print(_weights(bill))
    for question in bill["questions"]:
        stdout().print(_said(question), soft_wrap=True)
        stdout().print(_stages(question))


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
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in question["stages"]:
        numbers = [stage["flops"] / 1e9, stage["macs"] / 1e9, stage["bytes_read"] / 1e9]
        numbers += [stage["least_seconds"] * 1e3] if timed else []
        table.add_row(stage["name"], *(f"{number:,.4g}" for number in numbers))
    return table
