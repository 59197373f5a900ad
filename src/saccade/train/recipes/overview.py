"""A recipe in one line: what it starts from, what its stages teach, and where that comes from."""

from dataclasses import dataclass

from saccade.data.sources import Source
from saccade.train.stages import Recipe, Stage
from saccade.train.tasks import Listed, RowTask, World

WORLD = "the rendered world"


@dataclass(frozen=True)
class Overview:
    """What tells one recipe from another.

    Attributes:
        name: What `saccade train` calls it.
        start: Whose weights it starts from; empty where all are fresh.
        stages: Name of each stage, with its kind in brackets where the name is another.
        data: Mixtures, files or the rendered world, in the order of the stages, each once.
    """

    name: str
    start: tuple[str, ...]
    stages: tuple[str, ...]
    data: tuple[str, ...]


def overview(recipe: Recipe) -> Overview:
    """Return a recipe's line."""
    parts = [f"{name} of {recipe.base}" for name in recipe.base_modules or ()]
    starts = (recipe.whole_base, *parts, recipe.vision_tower, recipe.language_model)
    return Overview(
        name=recipe.name,
        start=tuple(filter(None, starts)),
        stages=tuple(_told(stage) for stage in recipe.stages),
        data=tuple(dict.fromkeys(name for stage in recipe.stages for name in _data(stage))),
    )


def _told(stage: Stage) -> str:
    return stage.name if stage.name == stage.task.kind else f"{stage.name} ({stage.task.kind})"


def _data(stage: Stage) -> list[str]:
    if not isinstance(stage.task, RowTask):
        return [WORLD]
    return [_place(source) for source in stage.task.data]


def _place(source: Source | World | Listed) -> str:
    match source:
        case Listed():
            return source.mixture
        case World():
            return WORLD
    return str(source.path)
