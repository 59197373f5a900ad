"""`saccade data`: look at what models are trained on and asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import stdout

data = typer.Typer(no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Look at the data that models are trained on and asked about.

    Example:  saccade data show --family digits --out sheet.png
    """


@data.command()
def show(
    family: Annotated[str, typer.Option(help="A family of the rendered world.")] = "objects",
    split: Annotated[str, typer.Option(help="train, val, test or shifted.")] = "train",
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 12,
    columns: Annotated[int, typer.Option(min=1, help="Scenes in a row of the sheet.")] = 4,
    out: Annotated[Path | None, typer.Option(help="Write the pictures with their questions to this PNG file.")] = None,
) -> None:
    """Show scenes of the rendered world with their questions and answers.

    Example:  saccade data show --family objects --count 12 --out sheet.png
    """
    from saccade.data import scenes

    shown = [scenes.render(family, split, index) for index in range(count)]
    if out is not None:
        scenes.contact_sheet(shown, columns).save(out)
        stdout().print(f"wrote [bold]{escape(str(out))}[/]", soft_wrap=True)
        return
    table = Table("scene", "size", "type", "question", "answer", title=f"{family}, {split}")
    for scene in shown:
        height, width = scene.image.shape[:2]
        for row, question in enumerate(scene.questions):
            head = (str(scene.index), f"{width} x {height}") if row == 0 else ("", "")
            table.add_row(*head, question.type, question.text, question.answer)
        table.add_section()
    stdout().print(table)
