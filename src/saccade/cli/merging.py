"""`saccade merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from saccade.cli.shell import prepare_libraries, stdout


def merge(
    adapter: Annotated[Path, typer.Argument(help="The folder `adapter` that a stage with LoRA left.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    base: Annotated[
        str | None, typer.Option(help="The model it was trained beside; the one that the folder names if left out.")
    ] = None,
) -> None:
    """Add LoRA adapters to the weights of the model they were trained beside, and write an ordinary model.

    Example:  saccade merge runs/mine/0-tuning/adapter --out models/mine
    """
    prepare_libraries()
    from saccade.train.lora import merge_adapter

    folder = merge_adapter(adapter, out, base)
    stdout().print(f"wrote [bold]{escape(str(folder))}[/]", soft_wrap=True)
