"""Captions: every object of a scene in reading order, with words for its place."""

from collections.abc import Callable

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


def noun(item: SceneObject) -> str:
    """What an object is called: "red circle", "blue 7"."""
    return f"{item.color} {item.shape or item.character}"


def write_caption(dice: Dice, objects: tuple[SceneObject, ...], width: int, height: int, kind: str) -> str:
    """One or two sentences that begin with the number of objects and name each of them.

    Args:
        dice: Chooses the template.
        objects: What to name.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        kind: What one of the things is called ("object", "digit").
    """

    def reading_order(item: SceneObject) -> tuple[int, float]:
        return place(item, width, height)[0], item.center[0]

    named = []
    for item in sorted(objects, key=reading_order):
        row, column = place(item, width, height)
        named.append((with_article(noun(item)), _PLACES[row][column]))
    plural = kind if len(objects) == 1 else f"{kind}s"
    return dice.pick(_TEMPLATES)(f"{len(objects)} {plural}", named)


def _plain(number: str, named: list[tuple[str, str]]) -> str:
    return f"{number}: {listed([f'{what} {where}' for what, where in named])}."


def _in_the_picture(number: str, named: list[tuple[str, str]]) -> str:
    return f"{number} in the picture: {listed([f'{what} {where}' for what, where in named])}."


def _two_sentences(number: str, named: list[tuple[str, str]]) -> str:
    sentence = listed([f"{what} is {where}" for what, where in named])
    return f"{number}. {sentence[0].upper()}{sentence[1:]}."


def _places_first(number: str, named: list[tuple[str, str]]) -> str:
    return f"{number}: {listed([f'{where} {what}' for what, where in named])}."


_TEMPLATES: tuple[Callable[[str, list[tuple[str, str]]], str], ...] = (
    _plain,
    _in_the_picture,
    _two_sentences,
    _places_first,
)
