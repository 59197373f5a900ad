"""Captions: every object of a scene in reading order, with words for its place."""

import re
from collections.abc import Callable

from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.scene import SceneObject
from saccade.data.scenes.wording import listed, with_article

_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the center", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


def place(item: SceneObject, width: int, height: int) -> tuple[int, int]:
    """(row, column) of an object's center in a 3 x 3 division of the picture."""
    x, y = item.center
    return min(2, int(3 * y / height)), min(2, int(3 * x / width))


def place_words(item: SceneObject, width: int, height: int) -> str:
    """Words for an object's place: "at the top left", "in the center"."""
    row, column = place(item, width, height)
    return _PLACES[row][column]


def noun(item: SceneObject) -> str:
    """What an object is called: "red circle", "blue 7", "green sign"."""
    return f"{item.color} {_kind(item)}"


def named(item: SceneObject, objects: tuple[SceneObject, ...]) -> list[str]:
    """The names that only this one of the objects answers to: by color and kind, by kind, by color."""
    alike = [(other.color == item.color, _kind(other) == _kind(item)) for other in objects]
    names = []
    if alike.count((True, True)) == 1:
        names.append(f"the {noun(item)}")
    if sum(kind for _, kind in alike) == 1:
        names.append(f"the {_kind(item)}")
    if sum(color for color, _ in alike) == 1 and not item.kind:
        names.append(f"the {item.color} {'object' if item.shape else 'digit'}")
    return names


def _kind(item: SceneObject) -> str:
    return item.kind or item.shape or item.character


def write_caption(dice: Dice, objects: tuple[SceneObject, ...], width: int, height: int, kind: str) -> str:
    """One or two sentences that begin with the number of objects and name each of them.

    Args:
        dice: Chooses the template.
        objects: What to name.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        kind: What one of the things is called ("object", "digit").
    """
    return dice.pick(_TEMPLATES)(numbered(objects, kind), _things(objects, width, height))


def write_partial_caption(
    dice: Dice, objects: tuple[SceneObject, ...], width: int, height: int, kind: str, named: int
) -> str:
    """A caption that begins with the number of objects and names only some of them.

    Args:
        dice: Chooses what is named.
        objects: What is in the picture.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        kind: What one of the things is called ("object", "digit").
        named: How many of the objects are named.
    """
    chosen = _things(tuple(dice.shuffled(objects)[:named]), width, height)
    return f"{numbered(objects, kind)}, among them {listed([f'{what} {where}' for what, where in chosen])}."


def names_all(caption: str, objects: tuple[SceneObject, ...]) -> bool:
    """Whether a caption names every one of the objects; what it names, it names once and by its color."""
    return sum(word in COLORS for word in re.findall(r"\w+", caption)) == len(objects)


def in_reading_order(objects: tuple[SceneObject, ...], width: int, height: int) -> list[SceneObject]:
    """The objects row by row in a 3 x 3 division of the picture, each row from the left."""
    return sorted(objects, key=lambda item: (place(item, width, height)[0], item.center[0]))


def numbered(objects: tuple[SceneObject, ...], kind: str) -> str:
    """The number of objects with what one of them is called: "1 sign", "3 signs"."""
    return f"{len(objects)} {kind if len(objects) == 1 else f'{kind}s'}"


def _things(objects: tuple[SceneObject, ...], width: int, height: int) -> list[tuple[str, str]]:
    """Each object in reading order, as a noun with its article and words for its place."""
    return [
        (with_article(noun(item)), place_words(item, width, height))
        for item in in_reading_order(objects, width, height)
    ]


def _plain(number: str, things: list[tuple[str, str]]) -> str:
    return f"{number}: {listed([f'{what} {where}' for what, where in things])}."


def _in_the_picture(number: str, things: list[tuple[str, str]]) -> str:
    return f"{number} in the picture: {listed([f'{what} {where}' for what, where in things])}."


def _two_sentences(number: str, things: list[tuple[str, str]]) -> str:
    sentence = listed([f"{what} is {where}" for what, where in things])
    return f"{number}. {sentence[0].upper()}{sentence[1:]}."


def _places_first(number: str, things: list[tuple[str, str]]) -> str:
    return f"{number}: {listed([f'{where} {what}' for what, where in things])}."


_TEMPLATES: tuple[Callable[[str, list[tuple[str, str]]], str], ...] = (
    _plain,
    _in_the_picture,
    _two_sentences,
    _places_first,
)
