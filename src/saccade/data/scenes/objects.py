"""Family `objects`: one to five colored shapes, and questions about color, shape, number and place."""

from saccade.data.scenes.canvas import draw_ground, draw_size
from saccade.data.scenes.captions import write_caption
from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import draw_shape, painter
from saccade.data.scenes.object_questions import ask_about_objects
from saccade.data.scenes.scatter import scatter
from saccade.data.scenes.scene import Sketch
from saccade.data.scenes.shapes import SHAPES

_MOST = 5
_DIAMETER = (0.18, 0.34)
# Five of the largest would hardly fit: the upper end of the diameters gives way to the number of objects.
_CROWDED = {4: 0.31, 5: 0.28}
_GAP = 0.05


def sketch_objects(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of an `objects` scene."""
    width, height = draw_size(dice)
    kinds = _draw_kinds(dice, dice.between(1, _MOST))
    diameters = (_DIAMETER[0], _CROWDED.get(len(kinds), _DIAMETER[1]))
    spots = scatter(dice, len(kinds), width, height, diameters, _GAP, unit=min(width, height))
    figures = [draw_shape(dice, split, *kind, *spot) for kind, spot in zip(kinds, spots, strict=True)]
    ground = draw_ground(dice, [figure.rgb for figure in figures])
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=write_caption(dice, objects, width, height, "object"),
        questions=ask_about_objects(dice, split, objects, width, height),
        paint=painter(width, height, ground, figures),
    )


def _draw_kinds(dice: Dice, number: int) -> list[tuple[str, str]]:
    """(shape, color) of each object; some scenes repeat a shape, a color or both, so that all counts occur."""
    shapes = [dice.pick(SHAPES) for _ in range(number)]
    colors = [dice.pick(COLORS) for _ in range(number)]
    if dice.chance(0.42):
        kept, both = dice.between(max(1, number - 1), number), dice.chance(0.3)
        if both or dice.chance(0.5):
            shapes[:kept] = [shapes[0]] * kept
        if both or shapes[:kept] != [shapes[0]] * kept:
            colors[:kept] = [colors[0]] * kept
    return list(zip(shapes, colors, strict=True))
