"""What the commands that measure share: their options, and what becomes of a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.cli.goals import verdicts
from saccade.cli.planning import PLAN_MODELS
from saccade.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from saccade.bench.report import Result

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
EnginePath = Annotated[
    str,
    typer.Option(
        "--path", help="How the engine decodes: auto, plain, compiled (faster on a CPU once it has compiled) or graphs."
    ),
]
Rounds = Annotated[int, typer.Option(help="Rounds over everything, forwards and backwards by turns; 5 or more.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Rounds before the first, not counted.")]
Seconds = Annotated[
    float | None, typer.Option(min=1, help="After so many begin no more rounds, with less than --rounds if need be.")
]
Seed = Annotated[int, typer.Option(help="Of pictures and random weights.")]
Pictures = Annotated[int | None, typer.Option(min=1, help="Only so many pictures of each list.")]
Small = Annotated[bool, typer.Option("--small", help="Small copies of the peers: to try the command, not to time.")]
Out = Annotated[Path | None, typer.Option(help="Keep the result in this JSON file.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the result into this PNG file.")]
Markdown = Annotated[Path | None, typer.Option(help="Write the tables into this Markdown file.")]
From = Annotated[Path | None, typer.Option("--from", help="Run nothing: take the result that this JSON file keeps.")]


def kept_result(path: Path) -> Result:
    """Read what `--from` names.

    Raises:
        ConfigError: when the file lacks what is told of a result today.
    """
    from saccade.bench.report import add_targets, read_result
    from saccade.bench.report import markdown as tables

    result = read_result(path)
    try:
        result = add_targets(result, verdicts(result))
        tables(result)
    except KeyError as error:
        raise ConfigError(f"{path} lacks {error}: an earlier version wrote it, so measure again") from error
    return result


def deliver(result: Result, out: Path | None, plot: Path | None, markdown: Path | None) -> None:
    """Judge a result; print the tables and, as the last line, the result; write the files that are wanted."""
    from saccade.bench.report import add_targets, write_result
    from saccade.bench.report import markdown as tables

    result = add_targets(result, verdicts(result))
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


def to_place(device: str | None, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Return device and dtype by their names; CUDA where none is named and there is one."""
    import torch

    from saccade.vlm import parse_dtype

    number = parse_dtype(dtype)
    assert number is not None
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")), number
