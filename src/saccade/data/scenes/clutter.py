"""Family `clutter`: a dozen or more small shapes and digits, and questions that each name one of them.

Several things share a window of any pooling: which of them is asked for is known to the question alone.
"""

import math
from collections import Counter
from collections.abc import Sequence

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_partial_caption
from saccade.data.scenes.colors import draw_palette
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import GlyphFigure, ShapeFigure, draw_printed, draw_shape, painter
from saccade.data.scenes.glyphs import DIGITS
from saccade.data.scenes.scatter import scatter
from saccade.data.scenes.scene import Question, SceneObject, Sketch
from saccade.data.scenes.shapes import SHAPES
from saccade.data.scenes.wording import ask, with_article

# A question before it is worded: form, answer, what `{a}` stands for.
Raw = tuple[str, str, str]

_SHAPES = (7, 11)
_DIGITS = (5, 9)
# In fractions of the mean side: a radius of 4.5 to 6 pixels where the picture is squashed to 90 x 90.
_DIAMETER = (0.1, 0.134)
_GAP = 0.016
_NAMED = 4
_EXISTENCE = 2
_MOST_QUESTIONS = 10


def sketch_clutter(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `clutter` scene."""
    width, height = draw_size(dice)
    palette = draw_palette(dice)
    shapes, digits = dice.between(*_SHAPES), dice.between(*_DIGITS)
    spots = scatter(dice, shapes + digits, width, height, _DIAMETER, _GAP, unit=math.sqrt(width * height))
    font = glyphs.draw_font(dice, split)
    figures: list[ShapeFigure | GlyphFigure] = [
        *(_shape(dice, split, dice.pick(palette), *spot) for spot in spots[:shapes]),
        *(_digit(dice, split, dice.pick(palette), font, *spot) for spot in spots[shapes:]),
    ]
    ground = draw_ground(dice, list({figure.color: figure.rgb for figure in figures}.values()))
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_partial_caption(dice, objects, width, height, "object", _NAMED),
        questions=_ask_about_clutter(dice, split, objects),
        paint=painter(width, height, ground, figures),
    )


def _shape(dice: Dice, split: str, color: str, x: float, y: float, radius: float) -> ShapeFigure:
    return draw_shape(dice, split, dice.pick(SHAPES), color, x, y, radius)


def _digit(dice: Dice, split: str, color: str, font: str, x: float, y: float, radius: float) -> GlyphFigure:
    return draw_printed(dice, split, dice.pick(DIGITS), font, color, x, y, radius)


def _ask_about_clutter(dice: Dice, split: str, objects: tuple[SceneObject, ...]) -> tuple[Question, ...]:
    """Up to ten different questions, in random order, each about a thing that it alone names."""
    shapes = [(item.color, item.shape) for item in objects if item.shape]
    digits = [(item.color, item.character) for item in objects if item.character]
    raw = [*existence(dice, "existence.shape", shapes), *existence(dice, "existence.digit", digits)]
    for pairs, color_form, kind_form in ((shapes, "color.shape", "shape.ink"), (digits, "color.digit", "ink")):
        colors, kinds = Counter(color for color, _ in pairs), Counter(kind for _, kind in pairs)
        raw += [(color_form, color, f"the {kind}") for color, kind in pairs if kinds[kind] == 1]
        raw += [(kind_form, kind, color) for color, kind in pairs if colors[color] == 1]
    return tuple(ask(dice, split, *question) for question in dice.shuffled(raw)[:_MOST_QUESTIONS])


def existence(dice: Dice, form: str, pairs: Sequence[tuple[str, str]]) -> list[Raw]:
    """Questions for pairs of a color and a kind; of a pair that is not there both occur, but not in one thing."""
    present = set(pairs)
    colors, kinds = (sorted(set(words)) for words in zip(*pairs, strict=True))
    apart = [(color, kind) for color in colors for kind in kinds if (color, kind) not in present]
    answers: dict[str, str] = {}
    for _ in range(_EXISTENCE):
        # Where the things are all of one kind, or of one color, no pair is apart.
        there = dice.chance(0.5) or not apart
        answers[with_article(" ".join(dice.pick(pairs if there else apart)))] = "yes" if there else "no"
    return [(form, answer, thing) for thing, answer in answers.items()]
