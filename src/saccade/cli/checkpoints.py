"""`saccade convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from saccade.cli.shell import DtypeOption, prepare_libraries, stdout, warnings_told


def convert(
    source: Annotated[str, typer.Option("--from", help="A folder or a hub id.")],
    target: Annotated[Path, typer.Option("--to", help="The folder to write.")],
    layout: Annotated[str, typer.Option(help="native, or released for the names of the release.")] = "native",
    dtype: DtypeOption = None,
) -> None:
    """Rewrite a checkpoint in another layout.

    Example:  saccade convert --from downloads/released --to models/native
    """
    prepare_libraries()
    from saccade.checkpoint import convert as rewrite
    from saccade.vlm import parse_dtype

    with warnings_told():
        folder = rewrite(source, target, to=layout, dtype=parse_dtype(dtype))  # type: ignore[arg-type]  # an unknown layout is told by convert itself
    stdout().print(f"wrote [bold]{escape(str(folder))}[/]", soft_wrap=True)
