"""`saccade train`: recipes, shown and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import JsonOption, ModelOption, prepare_libraries, stdout
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from saccade.train.stages import Recipe

train = typer.Typer(no_args_is_help=True)
RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe, or a .yaml file of fields beside 'parent: NAME'.")
]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder that mixtures were fetched to; or, where the recipe has one source, its file or folder."),
]
BaseOption = Annotated[
    str | None, typer.Option("--model", "-m", help="The model to start from: inside the package, a folder, a hub id.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="PATH=VALUE: change a field of the recipe; may stand several times.")
]


def resolved(name: str, data: str | None = None, model: str | None = None, settings: list[str] | None = None) -> Recipe:
    """Return the recipe that the options of a command ask for."""
    from saccade.train.recipes import changed, changes_of, recipe, with_data

    found = recipe(name)
    if data is not None:
        found = with_data(found, data)
    if model is not None:
        parts = {} if found.base_modules else {"vision_tower": None, "language_model": None}
        found = changed(found, {"base": model, **parts})
    return changed(found, changes_of(settings or []))


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
    sharded: Annotated[
        bool, typer.Option(help="Divide weights, gradients and optimizer among the processes too (FSDP2).")
    ] = False,
    data: DataOption = None,
    model: BaseOption = None,
    settings: SetOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be trained on, and list them.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files; see them with tensorboard --logdir OUT.")
    ] = False,
) -> None:
    """Run a recipe from its first stage to its last; the same command again goes on after an interrupt.

    Example:  saccade train run nano --out runs/nano

    Example:  saccade train run finetune --data my.jsonl --out runs/mine --set stages.tuning.epochs=3

    Several processes share the work under torchrun, also on a CPU, where one thread each is quickest:
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 -m saccade train run nano --out runs/nano
    """
    prepare_libraries()
    from accelerate import PartialState

    from saccade.train.processes import leave_processes
    from saccade.train.run import run_recipe

    folder = run_recipe(
        resolved(recipe, data, model, settings),
        out,
        workers=workers,
        compiled=compiled,
        sharded=sharded,
        skip_bad=skip_bad,
        tensorboard=tensorboard,
    )
    first = PartialState().is_main_process
    leave_processes()
    if first:
        stdout().print(
            f"trained [bold]{escape(str(folder))}[/]; ask it with --model {escape(str(out))}", soft_wrap=True
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
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of one thread.")] = 1,
    model: ModelOption = "nano",
) -> None:
    """Repeat the papers' ablations on the rendered world; the same command again runs what is still missing.

    Every variant is trained for a few minutes on the frozen tower of --model. The studies 'stages', 'preference' and
    'reasoning' go through several stages, and score the model after each; the last two go on from --model itself.

    Example:  saccade train ablate table3 --seeds 1 --out runs/table3

    Example:  saccade train ablate stages preference reasoning --jobs 4
    """
    prepare_libraries()
    from saccade.ablate import STUDIES, run_studies, study
    from saccade.vlm import load

    named = studies or [name for name, known in STUDIES.items() if not known.presumes]
    chosen = [study(name) for name in named]
    page = run_studies(chosen, out, seeds, load(model, dtype="float32"), cache, jobs)
    stdout().print(f"written [bold]{escape(str(page))}[/]", soft_wrap=True)


@train.command()
def show(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or a .yaml file; if left out, all are listed.")
    ] = None,
    data: DataOption = None,
    model: BaseOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe's stages train, on what, how fast; of a variant first what differs from its parent.

    Example:  saccade train show

    Example:  saccade train show flashsloth-hd
    """
    import json

    import yaml

    from saccade.train.recipes import differences
    from saccade.train.recipes import recipe as named

    if recipe is None:
        if data or model or settings:
            raise ConfigError("--data, --model and --set change a recipe: name one")
        _list_recipes(as_json)
        return
    found = resolved(recipe, data, model, settings)
    fields = found.model_dump(mode="json")
    changes = [] if found.parent is None else differences(found, named(found.parent))
    if as_json:
        told = [{"path": path, "parent": before, "recipe": after} for path, before, after in changes]
        typer.echo(json.dumps({"recipe": fields, "differences": told}))
        return
    if found.parent is not None:
        stdout().print(f"# {found.name} differs from its parent {found.parent} in", highlight=False)
        for path, before, after in changes:
            stdout().print(f"#   [bold]{escape(path)}[/]: {escape(f'{before} -> {after}')}", soft_wrap=True)
        typer.echo()
    typer.echo(yaml.safe_dump(fields, sort_keys=False), nl=False)


def _list_recipes(as_json: bool) -> None:
    """Print one line for each recipe."""
    import json
    from dataclasses import asdict

    from saccade.train.recipes import RECIPES
    from saccade.train.recipes.overview import overview

    lines = [overview(make()) for make in RECIPES.values()]
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines]))
        return
    table = Table("recipe", "starts from", "stages", "data")
    for line in lines:
        cells = ("\n".join(words) for words in (line.start or ("nothing",), line.stages, line.data))
        table.add_row(line.name, *(escape(cell) for cell in cells))
    stdout().print(table)
