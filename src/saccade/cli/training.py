"""`saccade train`: recipes, shown and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from saccade.cli.shell import prepare_libraries, stdout

train = typer.Typer(no_args_is_help=True)
RecipeArgument = Annotated[str, typer.Argument(help="Name of a recipe.")]


@train.callback()
def _group() -> None:
    """Train a model by a recipe.

    Example:  saccade train run nano --out runs/nano
    """


@train.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was interrupted goes on where it stopped.")],
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw pictures.")] = 1,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the patch stages: a minute, then faster.")
    ] = False,
) -> None:
    """Run a recipe from its first stage to its last; the same command again goes on after an interrupt.

    Example:  saccade train run nano --out runs/nano
    """
    prepare_libraries()
    from saccade.train.recipes import recipe as named
    from saccade.train.run import run_recipe

    folder = run_recipe(named(recipe), out, workers=workers, compiled=compiled)
    stdout().print(f"trained [bold]{escape(str(folder))}[/]; ask it with --model {escape(str(folder))}", soft_wrap=True)


@train.command()
def show(recipe: RecipeArgument) -> None:
    """Show the stages of a recipe without running anything.

    Example:  saccade train show nano
    """
    import yaml

    from saccade.train.recipes import recipe as named

    typer.echo(yaml.safe_dump(named(recipe).model_dump(mode="json"), sort_keys=False), nl=False)
