"""Recipes: functions that return stages. A variant calls its parent and changes a few fields."""

from collections.abc import Callable
from functools import partial

from saccade.errors import ConfigError
from saccade.train.recipes.nano_recipes import nano, nano_flashvl, nano_hd
from saccade.train.stages import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "nano_hd": nano_hd,
    **{f"nano_flashvl_{layout}": partial(nano_flashvl, layout) for layout in ("static", "dynamic", "iss")},
}


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
