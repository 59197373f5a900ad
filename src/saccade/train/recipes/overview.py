"""A recipe in one line: what it starts from, what its stages teach, and where that comes from."""

from dataclasses import dataclass

from saccade.train.stages import Recipe, Stage
from saccade.train.tasks import Listed

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
    base = [recipe.base] if recipe.base and not recipe.base_modules else []
    parts = [f"{name} of {recipe.base}" for name in recipe.base_modules or ()]
    return Overview(
        name=recipe.name,
        start=tuple(start for start in (*base, *parts, recipe.vision_tower, recipe.language_model) if start),
        stages=tuple(_told(stage) for stage in recipe.stages),
        data=tuple(dict.fromkeys(name for stage in recipe.stages for name in _data(stage))),
    )


def _told(stage: Stage) -> str:
    return stage.name if stage.name == stage.task.kind else f"{stage.name} ({stage.task.kind})"


def _data(stage: Stage) -> list[str]:
    sources = getattr(stage.task, "data", None)
    if sources is None:
        return [WORLD]
    return [one.mixture if isinstance(one, Listed) else str(getattr(one, "path", WORLD)) for one in sources]
