"""Recipes changed field by field: by options, by files, and what two of them differ in."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from saccade.errors import ConfigError
from saccade.train.stages import Recipe
from saccade.train.tasks import Listed


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some of its fields changed, however deep they lie.

    Args:
        recipe: The recipe.
        changes: New values as a tree of the recipe's fields. A member of a list is named by its number, a stage also by
            its name; a list that is given whole replaces the one there.

    Raises:
        ConfigError: when there is no such field or member, or a value is not valid.
    """
    tree = recipe.model_dump(mode="json")
    return Recipe(**_merged(tree, changes, "the recipe"))


def changes_of(settings: Iterable[str]) -> dict[str, Any]:
    """Read settings such as `stages.0.epochs=3`, the value in YAML, into the tree that `changed` takes.

    Raises:
        ConfigError: when one is not of this form.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise ConfigError(f"{setting!r} sets nothing: write PATH=VALUE, such as stages.0.epochs=3")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {setting!r} is not YAML: quote it") from error
        *above, last = path.split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{setting!r} lies below a field that another setting replaces: give one of them")
        place[last] = value
    return tree


def read_file(path: Path) -> dict[str, Any]:
    """Return the fields in a recipe's file.

    Raises:
        ConfigError: when it cannot be read as YAML fields.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]}): correct the file") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} holds no fields of a recipe: write lines such as 'parent: nano'")
    return fields


def with_data(recipe: Recipe, where: str) -> Recipe:
    """Return a recipe whose mixtures lie in a folder, or whose only source is somewhere else.

    Raises:
        ConfigError: when the recipe draws all its data, or has several sources.
    """
    places = [
        (number, place, one)
        for number, stage in enumerate(recipe.stages)
        for place, one in enumerate(getattr(stage.task, "data", ()))
    ]
    if any(isinstance(one, Listed) for _, _, one in places):
        return changed(recipe, {"data": where})
    sources = [(number, place) for number, place, one in places if hasattr(one, "path")]
    if not sources:
        raise ConfigError(f"the recipe {recipe.name} reads no files, it draws its data: leave --data out")
    if len(sources) != 1:
        raise ConfigError(
            f"the recipe {recipe.name} has {len(sources)} sources, so --data does not say which is meant: use --set "
            "stages.0.task.data.0.path=..."
        )
    ((number, place),) = sources
    return changed(recipe, {"stages": {str(number): {"task": {"data": {str(place): {"path": where}}}}}})


def differences(recipe: Recipe, parent: Recipe) -> list[tuple[str, Any, Any]]:
    """Return path, the parent's value and the recipe's of every field that differs; None for what one lacks."""
    theirs, ours = (
        {path: None if value in ({}, []) else value for path, value in _leaves(one.model_dump(mode="json"))}
        for one in (parent, recipe)
    )
    paths = [path for path in dict.fromkeys([*theirs, *ours]) if path not in ("name", "parent")]
    both = [(path, theirs.get(path), ours.get(path)) for path in paths]
    return [(path, before, after) for path, before, after in both if before != after]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that has none below it; stages go by name, so that each is compared with its namesake."""
    if isinstance(value, dict) and value:
        members: Iterable[tuple[str, Any]] = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        members = [(str(one.get("name", place)), one) for place, one in enumerate(value)]
    else:
        yield path, value
        return
    for name, member in members:
        yield from _leaves(member, f"{path}.{name}" if path else name)


def _merged(tree: Any, changes: Any, where: str) -> Any:
    if not isinstance(changes, Mapping):
        return changes
    if isinstance(tree, list):
        members = copy.copy(tree)
        for name, change in changes.items():
            place = _place(tree, str(name), where)
            members[place] = _merged(tree[place], change, f"{where}.{name}")
        return members
    below = tree if isinstance(tree, dict) else {}
    return below | {name: _merged(below.get(name), change, f"{where}.{name}") for name, change in changes.items()}


def _place(members: list[Any], name: str, where: str) -> int:
    known = [
        one["name"] if isinstance(one, dict) and "name" in one else str(place) for place, one in enumerate(members)
    ]
    if name in known:
        return known.index(name)
    if name.isdigit() and int(name) < len(members):
        return int(name)
    raise ConfigError(f"{where} has no member {name!r}: it has {', '.join(known)}")
