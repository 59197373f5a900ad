"""Family `digits`: one to three digits, handwritten by people or printed, and what they say."""

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.colors import COLORS, shade
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import GlyphFigure, painter
from saccade.data.scenes.glyphs import DIGITS
from saccade.data.scenes.scene import Question, SceneObject, Sketch
from saccade.data.scenes.wording import ask

_MOST = 3
_HANDWRITTEN = 0.75
_HEIGHT = (0.3, 0.6)
# A digit may fill this much of its column, so that neighbors never touch.
_FILL = 0.86
_MARGIN = 0.04
_PLACES = {2: ("left", "right"), 3: ("left", "middle", "right")}
_WHERE = {"left": "on the left", "middle": "in the middle", "right": "on the right"}


def sketch_digits(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `digits` scene."""
    width, height = draw_size(dice)
    handwritten = dice.chance(_HANDWRITTEN)
    figures = _draw_figures(dice, split, dice.between(1, _MOST), handwritten, width, height)
    ground = draw_ground(dice, [figure.rgb for figure in figures])
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_caption(dice, objects, width, height, "digit"),
        questions=_ask_about_digits(dice, split, objects, "" if handwritten else "printed."),
        paint=painter(width, height, ground, figures),
    )


def _draw_figures(dice: Dice, split: str, number: int, handwritten: bool, width: int, height: int) -> list[GlyphFigure]:
    """Digits from left to right, each inside a column of its own."""
    font = "" if handwritten else glyphs.draw_font(dice, split)
    short, column = min(width, height), width / number
    one_ink = dice.pick(COLORS) if dice.chance(0.25) else ""
    line = dice.random() if dice.chance(0.65) else None
    figures = []
    for place in range(number):
        character = dice.pick(DIGITS)
        glyph = glyphs.draw_handwritten(dice, character, split) if handwritten else glyphs.printed(font, character)
        warp = glyphs.draw_warp(dice, handwritten, split)
        unit_width, unit_height = warp.extent(glyph, 1.0)
        largest = min(_HEIGHT[1] * short, _FILL * column * unit_height / unit_width)
        tall = dice.uniform(min(_HEIGHT[0] * short, largest), largest)
        scale = tall / unit_height
        half, edge = scale * unit_width / 2, tall / 2 + _MARGIN * height
        slack = _FILL * column / 2 - half
        color = one_ink or dice.pick(COLORS)
        figures.append(
            GlyphFigure(
                character=character,
                glyph=glyph,
                warp=warp,
                color=color,
                rgb=shade(dice, color, split),
                x=(place + 0.5) * column + dice.uniform(-slack, slack),
                y=edge + (height - 2 * edge) * (dice.random() if line is None else line),
                scale=scale,
            )
        )
    return figures


def _is_number(objects: tuple[SceneObject, ...]) -> bool:
    """Whether two digits stand in one line; a number does not begin with 0: read aloud, "07" is seven."""
    if len(objects) != 2 or objects[0].character == "0":
        return False
    (_, top, _, bottom), (_, top2, _, bottom2) = objects[0].box, objects[1].box
    return abs(top + bottom - top2 - bottom2) < 0.5 * min(bottom - top, bottom2 - top2)


def _ask_about_digits(dice: Dice, split: str, objects: tuple[SceneObject, ...], prefix: str) -> tuple[Question, ...]:
    """Every question the scene allows, in random order."""
    if len(objects) == 1:
        return (ask(dice, split, "read", objects[0].character, prefix=prefix),)
    questions = []
    for where, item in zip(_PLACES[len(objects)], objects, strict=True):
        questions.append(ask(dice, split, "place", item.character, where, _WHERE[where], prefix))
    colors = [item.color for item in objects]
    for item in objects:
        if colors.count(item.color) == 1:
            questions.append(ask(dice, split, "ink", item.character, item.color, prefix=prefix))
    if _is_number(objects):
        questions.append(ask(dice, split, "number", objects[0].character + objects[1].character, prefix=prefix))
    return tuple(dice.shuffled(questions))
