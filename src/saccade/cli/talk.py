"""`saccade ask` and `saccade chat`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from saccade.cli.bulk import AT_ONCE, ask_many, is_bulk
from saccade.cli.shell import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    open_vlm,
    stderr,
    stdout,
    tell_knowledge,
    warnings_told,
)
from saccade.errors import ConfigError, SaccadeError

if TYPE_CHECKING:
    from saccade.vlm import Answer, Event

TokensOption = Annotated[int, typer.Option("--max-new-tokens", help="Most tokens of an answer.")]
TemperatureOption = Annotated[float, typer.Option(help="0 takes the likeliest words; above 0 draws.")]
SeedOption = Annotated[int | None, typer.Option(help="Makes a draw repeatable.")]
PixelsOption = Annotated[
    int | None, typer.Option(min=1, help="Refuse pictures of more pixels; the model's own limit if left out.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help=f"Many pictures: so many at once; {AT_ONCE} if left out.")]

COMMANDS = "/image PATH shows another picture, /reset forgets everything, /quit leaves"


def ask(
    image: Annotated[Path, typer.Argument(help="A picture; or, with --out, a folder or a .jsonl file of requests.")],
    question: Annotated[str | None, typer.Argument(help="What to ask.")] = None,
    model: ModelOption = "nano",
    max_new_tokens: TokensOption = 64,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    timings: Annotated[bool, typer.Option("--timings", help="Draw where the time went.")] = False,
    max_pixels: PixelsOption = None,
    out: Annotated[Path | None, typer.Option(help="Many pictures: the file of JSON lines for the answers.")] = None,
    batch_size: BatchOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Many pictures: exit with 1 when any row failed.")] = False,
) -> None:
    """Ask one question about a picture, or many about many.

    Example:  saccade ask photo.jpg "What color is the circle?" --timings

    With --out, a folder is asked about every file in it, and a .jsonl file
    holds lines {"image": "a.jpg", "question": "...", "id": "..."}; QUESTION is
    for lines without one. The same command goes on after an interrupt. A file
    that is no picture becomes a row with its error; the exit code stays 0.

    Example:  saccade ask photos/ "How many objects are there?" --out answers.jsonl
    """
    if out is not None or is_bulk(image):
        out = _check_bulk(image, out, drawn=temperature > 0 or seed is not None, timings=timings)
        ask_many(
            image,
            question,
            out,
            model=model,
            device=device,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
            max_pixels=max_pixels,
            batch_size=batch_size or AT_ONCE,
            strict=strict,
            as_json=as_json,
        )
        return
    if batch_size is not None or strict:
        raise ConfigError("--batch-size and --strict are for many pictures: name a folder or a .jsonl file, and --out")
    if question is None:
        raise ConfigError("there is no question: write it after the picture")
    vlm = open_vlm(model, device, dtype, max_pixels)
    events = vlm.stream(image, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    with warnings_told(quiet=as_json) as told:
        answer = _print_stream(events, quiet=as_json)
    if as_json:
        data = {"model": vlm.name, **answer.to_dict(), "description": vlm.description, "warnings": told}
        typer.echo(json.dumps(data))
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
                with warnings_told():
                    _print_stream(
                        talk.stream(line, pictures, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
                    )
            except SaccadeError as error:
                stderr().print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
            pictures = []


def _check_bulk(source: Path, out: Path | None, *, drawn: bool, timings: bool) -> Path:
    """Return where many answers go; raise ConfigError for options that do not fit them."""
    if not is_bulk(source):
        raise ConfigError(f"--out is for many pictures, but {source} is neither a folder nor a .jsonl file")
    if out is None:
        raise ConfigError(f"{source} holds many pictures: name the file for the answers with --out answers.jsonl")
    if drawn or timings:
        raise ConfigError(
            "--temperature, --seed and --timings are for one picture: many are answered with the likeliest words"
        )
    return out


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
