"""`saccade ask` and `saccade chat`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from saccade.cli.shell import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    open_vlm,
    stderr,
    stdout,
    tell_knowledge,
)

if TYPE_CHECKING:
    from saccade.vlm import Answer, Event

TokensOption = Annotated[int, typer.Option("--max-new-tokens", help="Most tokens of an answer.")]
TemperatureOption = Annotated[float, typer.Option(help="0 takes the likeliest words; above 0 draws.")]
SeedOption = Annotated[int | None, typer.Option(help="Makes a draw repeatable.")]

COMMANDS = "/image PATH shows another picture, /reset forgets everything, /quit leaves"


def ask(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: ModelOption = "nano",
    max_new_tokens: TokensOption = 64,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    timings: Annotated[bool, typer.Option("--timings", help="Draw where the time went.")] = False,
) -> None:
    """Ask one question about a picture.

    Example:  saccade ask photo.jpg "What color is the circle?" --timings
    """
    vlm = open_vlm(model, device, dtype)
    events = vlm.stream(image, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    answer = _print_stream(events, quiet=as_json)
    if as_json:
        typer.echo(json.dumps({"model": vlm.name, **answer.to_dict(), "description": vlm.description}))
        return
    tell_knowledge(vlm)
    if timings:
        from saccade.cli.waterfall import waterfall

        stderr().print(waterfall(answer))


def chat(
    image: Annotated[Path | None, typer.Argument(help="A picture to begin with.")] = None,
    model: ModelOption = "nano",
    max_new_tokens: TokensOption = 256,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """Talk about pictures; the conversation is remembered.

    Example:  saccade chat photo.jpg
    """
    from saccade.errors import SaccadeError

    vlm = open_vlm(model, device, dtype)
    tell_knowledge(vlm)
    stderr().print(f"[dim]{COMMANDS}[/]")
    talk, pictures = vlm.chat(), [] if image is None else [image]
    for line in _lines():
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return
        if word == "/reset":
            talk, pictures = vlm.chat(), []
        elif word == "/image":
            pictures.append(Path(rest.strip()))
        elif word.startswith("/"):
            stderr().print(f"[dim]{COMMANDS}[/]")
        else:
            try:
                _print_stream(
                    talk.stream(line, pictures, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
                )
            except SaccadeError as error:
                stderr().print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
            pictures = []


def _lines() -> Iterator[str]:
    """Yield what the user types, without empty lines, until the input ends."""
    prompt = "[bold]> [/]" if sys.stdin.isatty() else ""
    while True:
        try:
            line = stdout().input(prompt).strip()
        except EOFError:
            return
        if line:
            yield line


def _print_stream(events: Iterator[Event], *, quiet: bool = False) -> Answer:
    """Print an answer while it arrives and return it."""
    answer = None
    for event in events:
        if not quiet:
            typer.echo(event.text, nl=False)
        answer = event.answer
    if not quiet:
        typer.echo()
    assert answer is not None
    return answer
