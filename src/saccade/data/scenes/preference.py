"""Family `preference`: shapes, and questions whose right answer stands beside a wrong one that is easily given.

The wrong answer is the error that a model makes which answers from what is likely rather than from what it sees: a
thing that is not there, though its shape and its color are; a color, or a shape, that the thing beside it has.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.clutter import existence
from saccade.data.scenes.colors import draw_palette
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import draw_shape, painter
from saccade.data.scenes.scatter import scatter
from saccade.data.scenes.scene import Question, SceneObject, Sketch
from saccade.data.scenes.shapes import SHAPES
from saccade.data.scenes.wording import ask, with_article

# As small as in `clutter`, so that a small model errs, and half as many, so that each error has its cause. In fractions
# of the mean side: diameters of 9 to 12 pixels where the picture is squashed to 90 x 90.
_THINGS = (6, 10)
_DIAMETER = (0.1, 0.134)
_GAP = 0.03
# Fewer than there are, so that there is always one that is not there.
_KINDS = 5
_OTHER = {"yes": "no", "no": "yes"}


def sketch_preference(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `preference` scene."""
    width, height = draw_size(dice)
    palette, number = dice.shuffled(draw_palette(dice)), dice.between(*_THINGS)
    shapes, colors = dice.shuffled(SHAPES)[:_KINDS], palette[:_KINDS]
    spots = scatter(dice, number, width, height, _DIAMETER, _GAP, unit=math.sqrt(width * height))
    figures = [draw_shape(dice, split, dice.pick(shapes), dice.pick(colors), *spot) for spot in spots]
    ground = draw_ground(dice, list({figure.color: figure.rgb for figure in figures}.values()))
    objects = tuple(figure.as_object() for figure in figures)
    absent = _ask_for_absent(dice, split, objects, palette)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_caption(dice, objects, width, height, "object"),
        questions=tuple(dice.shuffled([*absent, *_ask_for_mistaken(dice, split, objects)])),
        paint=painter(width, height, ground, figures),
    )


def _ask_for_absent(dice: Dice, split: str, objects: tuple[SceneObject, ...], palette: list[str]) -> list[Question]:
    """Whether a thing is there: as often one that is as one that is not."""
    shape, there = _there_or_not(dice, {item.shape for item in objects}, SHAPES)
    color, seen = _there_or_not(dice, {item.color for item in objects}, palette)
    raw = [
        *existence(dice, "absent.pair", [(item.color, item.shape) for item in objects]),
        ("absent.shape", there, with_article(shape)),
        ("absent.color", seen, with_article(f"{color} object")),
    ]
    return [
        replace(ask(dice, split, "existence", answer, thing, filed=form), wrong=_OTHER[answer])
        for form, answer, thing in raw
    ]


def _there_or_not(dice: Dice, present: set[str], known: Sequence[str]) -> tuple[str, str]:
    """A word that is present, or one that is known but is not; and whether it is."""
    there = dice.chance(0.5)
    return dice.pick([word for word in known if (word in present) == there]), "yes" if there else "no"


def _ask_for_mistaken(dice: Dice, split: str, objects: tuple[SceneObject, ...]) -> list[Question]:
    """The color of each thing that its shape names, and the shape of each that its color names."""
    shapes, colors = Counter(item.shape for item in objects), Counter(item.color for item in objects)
    questions = []
    for item in objects:
        near = sorted(objects, key=lambda other: math.dist(item.center, other.center))
        color = next((other.color for other in near if other.color != item.color), None)
        shape = next((other.shape for other in near if other.shape != item.shape), None)
        if shapes[item.shape] == 1 and color is not None:
            questions.append(replace(ask(dice, split, "color", item.color, f"the {item.shape}"), wrong=color))
        if colors[item.color] == 1 and shape is not None:
            named = ask(dice, split, "shape", item.shape, f"the {item.color} object")
            questions.append(replace(named, wrong=shape))
    return questions
