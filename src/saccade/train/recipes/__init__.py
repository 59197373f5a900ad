"""Recipes: functions that return stages. A variant calls its parent and changes a few fields."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from saccade.errors import ConfigError
from saccade.train.recipes.changes import changed, changes_of, differences, read_file, with_data
from saccade.train.recipes.finetune_recipes import finetune, finetune_full
from saccade.train.recipes.flashsloth_recipes import flashsloth, flashsloth_hd, flashsloth_llava
from saccade.train.recipes.flashvl_recipes import flashvl, flashvl_ablation, flashvl_reasoning
from saccade.train.recipes.nano_recipes import nano, nano_flashvl, nano_hd
from saccade.train.stages import Recipe

__all__ = ["RECIPES", "changed", "changes_of", "differences", "recipe", "with_data"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "nano_hd": nano_hd,
    **{f"nano_flashvl_{layout}": partial(nano_flashvl, layout) for layout in ("static", "dynamic", "iss")},
    "finetune": finetune,
    "finetune_full": finetune_full,
    "flashsloth": flashsloth,
    "flashsloth_llava": flashsloth_llava,
    "flashsloth_hd": flashsloth_hd,
    "flashsloth_hd_frozen": partial(flashsloth_hd, train_tower=False),
    "flashvl_static": partial(flashvl, "static"),
    "flashvl_dynamic": partial(flashvl, "dynamic"),
    "flashvl_iss": partial(flashvl, "iss"),
    "flashvl_reasoning": flashvl_reasoning,
    "flashvl_ablation": flashvl_ablation,
}


def recipe(name: str) -> Recipe:
    """Return a recipe by name, hyphens and underscores alike, or from a YAML file.

    A file holds the fields of a recipe, or `parent: NAME` and those that differ from the parent's.

    Raises:
        ConfigError: when there is none of that name, or the file is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _of_file(Path(name), ())
    known = name.replace("-", "_")
    if known not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}, or name a .yaml file")
    return RECIPES[known]()


def _of_file(path: Path, children: tuple[Path, ...]) -> Recipe:
    if path in children:
        raise ConfigError(f"{path} descends from itself: name another parent in one of its files")
    fields = {"name": path.stem} | read_file(path)
    parent = fields.get("parent")
    if parent is None:
        return Recipe(**fields)
    if not isinstance(parent, str):
        raise ConfigError(f"{path} has the parent {parent!r}: name a recipe")
    its = _of_file(Path(parent), (*children, path)) if parent.endswith((".yaml", ".yml")) else recipe(parent)
    return changed(its, fields)
