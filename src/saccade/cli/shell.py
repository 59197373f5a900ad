"""What all commands share: how errors are told, where text goes, and how a model is opened."""

from __future__ import annotations

import importlib
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from saccade.errors import SaccadeError, SaccadeWarning

if TYPE_CHECKING:
    from saccade.vlm import VLM

INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
ANOTHER_MODEL = 'saccade ask PHOTO "..." --model Tongbo/FlashSloth-3.2B'

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A model inside the package, such as nano, a folder, or a hub id.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; CUDA when there is one.")]
DtypeOption = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; the checkpoint's own if left out.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


class Shell(TyperGroup):
    """Tells errors in one line, and takes `--debug` before or after the command's word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move `--debug` to the front; after `--` it is an argument like any other."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(word for word in args[:end] if word != "--debug"), *args[end:]]
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors end it with exit code 1, Ctrl-C with 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except SaccadeError as error:
            _tell(ctx, error, str(error))
        except Exception as error:
            if hasattr(error, "exit_code"):  # a wrong usage, which tells itself
                raise
            _tell(ctx, error, f"{type(error).__name__}: {error} (run again with --debug to see where)")
        raise typer.Exit(1)


def _tell(ctx: Any, error: Exception, sentence: str) -> None:
    if ctx.params.get("debug"):
        traceback.print_exception(error)
    else:
        stderr().print(f"[bold red]error[/]: {escape(sentence)}", soft_wrap=True, highlight=False)


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for everything that is not the result."""
    return Console(stderr=True, highlight=False)


def progress() -> Any:
    """Return a bar with a count and the time left, silent where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def open_vlm(model: str, device: str | None, dtype: str | None, max_pixels: int | None = None) -> VLM:
    """Open a model; a limit of pixels that is given is this process's, so Pillow's own makes room for it."""
    prepare_libraries()
    from PIL import Image

    from saccade.vlm import load

    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)
    return load(model, device=device, dtype=dtype, max_pixels=max_pixels)


def prepare_libraries() -> None:
    """Register with transformers, and keep its progress bars and warnings away from what a command prints.

    Trainers of trl report their use over the network unless told not to: a command sends nothing anywhere by itself.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the hub's library, which reads it once, is imported
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    importlib.import_module("saccade.registration")


def tell_knowledge(vlm: VLM) -> None:
    """Say in one dim line what a model knows, when its configuration says it, and how to ask one that knows more."""
    if vlm.description:
        line = f"{vlm.name}: {vlm.description}. For photographs use a released model (6.4 GB): {ANOTHER_MODEL}"
        stderr().print(f"[dim]{escape(line)}[/]", soft_wrap=True)


@contextmanager
def warnings_told(*, quiet: bool = False) -> Iterator[list[str]]:
    """Collect what is to be said about a picture; at the end, also one by an error, say each in a line unless quiet."""
    told: list[str] = []
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, SaccadeWarning):
                told.append(str(message))
            else:
                others(message, category, *where)

        warnings.simplefilter("always", SaccadeWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield told
        finally:
            for sentence in [] if quiet else told:
                stderr().print(f"[yellow]note[/]: {escape(sentence)}", soft_wrap=True, highlight=False)


def option_words(given: Mapping[str, Any]) -> list[str]:
    """Return options by their names in Python as words of a command: None for one left out, True for a switch."""
    words = []
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def print_version(wanted: bool) -> None:
    """Print the version and exit, when that is wanted."""
    if wanted:
        import saccade

        typer.echo(f"saccade {saccade.__version__}")
        raise typer.Exit


def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may also stand after the command.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""
