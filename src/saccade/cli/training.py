"""`saccade train`: recipes, shown and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from saccade.cli.shell import ModelOption, prepare_libraries, stdout

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

    Several processes share the work under torchrun, also on a CPU, where one thread each is quickest:
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 -m saccade train run nano --out runs/nano
    """
    prepare_libraries()
    from accelerate import PartialState

    from saccade.train.recipes import recipe as named
    from saccade.train.run import run_recipe

    folder = run_recipe(named(recipe), out, workers=workers, compiled=compiled)
    if PartialState().is_main_process:
        stdout().print(
            f"trained [bold]{escape(str(folder))}[/]; ask it with --model {escape(str(folder))}", soft_wrap=True
        )


@train.command()
def ablate(
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Names of studies; if left out, all but those that presume a special base."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results and of the page made from them.")] = Path(
        "docs/ablations"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 3,
    cache: Annotated[Path, typer.Option(help="Folder for what can be computed again.")] = Path("runs/ablations"),
    model: ModelOption = "nano",
) -> None:
    """Repeat the papers' ablations on the rendered world; the same command again runs what is still missing.

    Every variant is trained for a few minutes on the frozen tower of --model.

    Example:  saccade train ablate table3 --seeds 1 --out runs/table3
    """
    prepare_libraries()
    from saccade.ablate import STUDIES, run_studies, study
    from saccade.vlm import load

    named = studies or [name for name, known in STUDIES.items() if not known.presumes]
    chosen = [study(name) for name in named]
    page = run_studies(chosen, out, seeds, load(model, dtype="float32"), cache)
    stdout().print(f"written [bold]{escape(str(page))}[/]", soft_wrap=True)


@train.command()
def show(recipe: RecipeArgument) -> None:
    """Show the stages of a recipe without running anything.

    Example:  saccade train show nano
    """
    import yaml

    from saccade.train.recipes import recipe as named

    typer.echo(yaml.safe_dump(named(recipe).model_dump(mode="json"), sort_keys=False), nl=False)
