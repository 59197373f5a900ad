"""Family `reasoning`: digits and shapes side by side, and questions that none of them answers alone.

Every answer is a number or yes or no, and can be verified: what is learned from a reward needs no more.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.colors import draw_palette
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import GlyphFigure, ShapeFigure, draw_printed, draw_shape, painter
from saccade.data.scenes.glyphs import DIGITS
from saccade.data.scenes.scatter import scatter
from saccade.data.scenes.scene import Question, SceneObject, Sketch
from saccade.data.scenes.shapes import PLURALS, SHAPES
from saccade.data.scenes.wording import ask

# Digits are to be read without doubt: no picture is smaller than a view of 90 pixels, and few inks leave backgrounds to
# choose from. Diameters are in fractions of the mean side: 13 to 17 pixels in such a view.
_SHORT_SIDE = (90, 160)
_INKS = 4
_DIAMETER = (0.15, 0.19)
_GAP = 0.02
_ADDED = (2, 3)
_BESIDE = (1, 2)
_LARGEST_SUM = 18
_ONE_COLOR = 0.6
# How many there are of the less frequent of two kinds, at most, by how many more there are of the other.
_FEWER = {0: 3, 1: 3, 2: 2, 3: 2, 4: 1}
_MOST_SHAPES = 7
_STRAY = 2
_KINDS = 3
# How often two kinds are asked about, by how many more there are of one: the rarer, the more often.
_DIFFERENCES = {1: 1.0, 2: 2.0, 3: 5.0, 4: 12.0}
_MORE = 0.57
# How often such a value is asked for, so that all come up about equally often: the rest always are.
_ASKED = {
    "largest": {5: 0.7, 6: 0.65, 7: 0.6, 8: 0.4, 9: 0.3},
    "smallest": {0: 0.1, 1: 0.25, 2: 0.4, 3: 0.6, 4: 0.8},
}


def sketch_reasoning(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `reasoning` scene."""
    width, height = draw_size(dice, _SHORT_SIDE)
    palette = dice.shuffled(draw_palette(dice))[:_INKS]
    digits, shapes = _draw_digits(dice, palette), _draw_shapes(dice, dice.shuffled(palette))
    number = len(digits) + len(shapes)
    spots = scatter(dice, number, width, height, _DIAMETER, _GAP, unit=math.sqrt(width * height))
    font = glyphs.draw_font(dice, split)
    figures: list[ShapeFigure | GlyphFigure] = [
        *(
            draw_printed(dice, split, digit, font, color, *spot)
            for (digit, color), spot in zip(digits, spots, strict=False)
        ),
        *(draw_shape(dice, split, *kind, *spot) for kind, spot in zip(shapes, spots[len(digits) :], strict=True)),
    ]
    ground = draw_ground(dice, list({figure.color: figure.rgb for figure in figures}.values()))
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_caption(dice, objects, width, height, "object"),
        questions=_ask_about_all(dice, split, objects),
        paint=painter(width, height, ground, figures),
    )


def _draw_digits(dice: Dice, palette: Sequence[str]) -> list[tuple[str, str]]:
    """(digit, color) of each; of some of them the sum was drawn first, so that all sums are equally likely."""
    left, added = dice.between(0, _LARGEST_SUM), []
    for following in reversed(range(dice.between(*_ADDED))):
        added.append(dice.between(max(0, left - 9 * following), min(9, left)))
        left -= added[-1]
    if dice.chance(_ONE_COLOR):
        beside = [dice.pick(DIGITS) for _ in range(dice.between(*_BESIDE))]
        return [*((str(digit), palette[0]) for digit in added), *((digit, palette[1]) for digit in beside)]
    return [(str(digit), dice.pick(palette)) for digit in added]


def _draw_shapes(dice: Dice, palette: Sequence[str]) -> list[tuple[str, str]]:
    """(shape, color) of each; by shape or by color, how many more there are of one kind was drawn first."""
    difference = dice.between(0, max(_FEWER))
    fewer = dice.between(1, _FEWER[difference])
    numbers = (fewer + difference, fewer)
    strays = dice.between(0, min(_STRAY, _MOST_SHAPES - sum(numbers)))
    shapes, colors = dice.shuffled(SHAPES)[:_KINDS], palette[:_KINDS]
    by_shape = dice.chance(0.5)
    compared, free = (shapes, colors) if by_shape else (colors, shapes)
    kinds = [kind for kind, number in zip(compared, (*numbers, strays), strict=True) for _ in range(number)]
    pairs = [(kind, dice.pick(free)) for kind in kinds]
    return pairs if by_shape else [(shape, color) for color, shape in pairs]


def _ask_about_all(dice: Dice, split: str, objects: tuple[SceneObject, ...]) -> tuple[Question, ...]:
    """Every question the digits allow and some of those that compare shapes, in random order."""
    digits = [(int(item.character), item.color) for item in objects if item.character]
    shapes = Counter(item.shape for item in objects if item.shape)
    colors = Counter(item.color for item in objects if item.shape)
    questions = [
        *_ask_for_sums(dice, split, digits),
        *_ask_for_extremes(dice, split, [digit for digit, _ in digits]),
        *_compare(dice, split, "shape", {PLURALS[shape]: number for shape, number in shapes.items()}),
        *_compare(dice, split, "color", {f"{color} shapes": number for color, number in colors.items()}),
    ]
    return tuple(dice.shuffled(questions))


def _ask_for_sums(dice: Dice, split: str, digits: Sequence[tuple[int, str]]) -> list[Question]:
    """The sum of all digits, and of those of each color that several, but not all of them, have."""
    named = {"all": ("all digits", [digit for digit, _ in digits])}
    for color in dict.fromkeys(color for _, color in digits):
        held = [digit for digit, other in digits if other == color]
        if 1 < len(held) < len(digits):
            named[color] = f"the {color} digits", held
    return [
        ask(dice, split, "sum.all" if name == "all" else "sum.color", str(sum(added)), words)
        for name, (words, added) in named.items()
        if sum(added) <= _LARGEST_SUM
    ]


def _ask_for_extremes(dice: Dice, split: str, digits: Sequence[int]) -> list[Question]:
    """The largest and the smallest value, where the digits differ."""
    if len(set(digits)) == 1:
        return []
    return [
        ask(dice, split, f"extreme.{name}", str(value), name)
        for name, value in (("largest", max(digits)), ("smallest", min(digits)))
        if dice.chance(_ASKED[name].get(value, 1.0))
    ]


def _compare(dice: Dice, split: str, kind: str, tally: dict[str, int]) -> list[Question]:
    """Whether there are more of one kind than of another, and how many more; of each at most one question."""
    pairs = {(a, b): tally[a] - tally[b] for a, b in permutations(tally, 2)}
    if not pairs:
        return []
    more = dice.chance(_MORE)
    a, b = dice.pick([pair for pair, difference in pairs.items() if (difference > 0) == more] or list(pairs))
    questions = [ask(dice, split, f"more.{kind}", "yes" if pairs[a, b] > 0 else "no", a, b)]
    likely = {pair: _DIFFERENCES[difference] for pair, difference in pairs.items() if difference in _DIFFERENCES}
    if likely:
        a, b = dice.weighted(likely)
        questions.append(ask(dice, split, "surplus", str(pairs[a, b]), a, b, filed=f"difference.{kind}"))
    return questions
