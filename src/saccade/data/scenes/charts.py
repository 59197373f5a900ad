"""Family `charts`: two to five bars or points, each of its own color, and questions about their values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import Ground, draw_ground, draw_size
from saccade.data.scenes.captions import numbered
from saccade.data.scenes.colors import COLORS, RGB, lightness, shade
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.figures import BoxFigure, GlyphFigure, ShapeFigure, painter
from saccade.data.scenes.lettering import Lettering
from saccade.data.scenes.scene import Question, SceneObject, Sketch
from saccade.data.scenes.wording import ask, listed

LARGEST = 9
_NUMBER = (2, 5)
_DIFFERENCES = 2
# Where an axis ends, and how far apart its labelled lines are.
_AXES = {6: 2, 9: 3, 10: 5}
# Sizes in fractions of the mean side.
_LINE = 0.011
_LABEL = 0.085
_POINT = 0.042


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where a chart is drawn: edges in pixels, the value its upper edge stands for, and the ink of lines and labels.

    `unit` is the mean side of the picture in pixels.
    """

    left: float
    top: float
    right: float
    bottom: float
    end: int
    unit: float
    font: str
    ink: str
    rgb: RGB

    def y(self, value: float) -> float:
        """How far down a value lies."""
        return self.bottom - (self.bottom - self.top) * value / self.end

    def slot(self, place: int, number: int) -> float:
        """How far right the middle of one of `number` bars or points lies."""
        return self.left + (self.right - self.left) * (place + 0.5) / number


def sketch_charts(dice: Dice, split: str) -> Sketch:
    """Draw the symbolic part of a `charts` scene."""
    width, height = draw_size(dice)
    number, kind = dice.between(*_NUMBER), dice.pick(("bar", "point"))
    values = [dice.between(1, LARGEST) for _ in range(number)]
    inks = [(color, shade(dice, color, split)) for color in dice.shuffled(COLORS)[:number]]
    ground = draw_ground(dice, [rgb for _, rgb in inks])
    # Values beside their bars, or to be read off an axis; beside a point they would lie on its line.
    labelled = kind == "bar" and dice.chance(0.4)
    plot = _draw_plot(dice, split, ground, width, height, max(values), labelled)
    figures = (_bars if kind == "bar" else _points)(dice, plot, values, inks)
    marks = _value_labels(plot, values) if labelled else _axis_labels(plot)
    backing = [*([] if labelled else _grid(plot)), *_axes(plot), *([] if kind == "bar" else _path(plot, values))]
    objects = tuple(figure.as_object() for figure in figures)
    return Sketch(
        width=width,
        height=height,
        objects=objects,
        caption=_write_caption(dice, objects, kind),
        questions=_ask_about_chart(dice, split, objects, kind),
        paint=painter(width, height, ground, [*figures, *marks], backing),
        marks=tuple(mark.as_object() for mark in marks),
    )


def _draw_plot(dice: Dice, split: str, ground: Ground, width: int, height: int, largest: int, labelled: bool) -> _Plot:
    light = lightness(ground.start) + lightness(ground.end) > 255
    ink = "black" if light else "white"
    font, unit = glyphs.draw_font(dice, split), math.sqrt(width * height)
    end = dice.pick([end for end in _AXES if end >= largest])
    label = Lettering(str(end), font, unit * _LABEL)
    return _Plot(
        left=width * 0.06 if labelled else label.width + label.height,
        top=height * (0.19 if labelled else 0.08),
        right=width * dice.uniform(0.9, 0.96),
        bottom=height * dice.uniform(0.89, 0.93),
        end=end,
        unit=unit,
        font=font,
        ink=ink,
        rgb=shade(dice, ink, split),
    )


def _bars(dice: Dice, plot: _Plot, values: Sequence[int], inks: Sequence[tuple[str, RGB]]) -> list[BoxFigure]:
    half = (plot.right - plot.left) / len(values) * dice.uniform(0.27, 0.4)
    if len(values) == 2:
        half *= 0.8
    return [
        BoxFigure(
            color=color,
            rgb=rgb,
            x=plot.slot(place, len(values)),
            y=(plot.y(value) + plot.bottom) / 2,
            half_width=half,
            half_height=(plot.bottom - plot.y(value)) / 2,
            kind="bar",
            content=str(value),
        )
        for place, (value, (color, rgb)) in enumerate(zip(values, inks, strict=True))
    ]


def _points(dice: Dice, plot: _Plot, values: Sequence[int], inks: Sequence[tuple[str, RGB]]) -> list[ShapeFigure]:
    radius = plot.unit * _POINT * dice.uniform(0.9, 1.2)
    return [
        ShapeFigure(
            shape="circle",
            color=color,
            rgb=rgb,
            x=plot.slot(place, len(values)),
            y=plot.y(value),
            radius=radius,
            angle=0.0,
            kind="point",
            content=str(value),
        )
        for place, (value, (color, rgb)) in enumerate(zip(values, inks, strict=True))
    ]


def _line(plot: _Plot, start: tuple[float, float], end: tuple[float, float], opacity: float) -> BoxFigure:
    """A straight line from one (x, y) to another."""
    across, down = end[0] - start[0], end[1] - start[1]
    thick = max(1.0, plot.unit * _LINE) / 2
    return BoxFigure(
        color=plot.ink,
        rgb=plot.rgb,
        x=(start[0] + end[0]) / 2,
        y=(start[1] + end[1]) / 2,
        half_width=math.hypot(across, down) / 2 + thick,
        half_height=thick,
        angle=math.atan2(down, across),
        opacity=opacity,
    )


def _axes(plot: _Plot) -> list[BoxFigure]:
    corner = (plot.left, plot.bottom)
    return [_line(plot, (plot.left, plot.top), corner, 0.9), _line(plot, corner, (plot.right, plot.bottom), 0.9)]


def _grid(plot: _Plot) -> list[BoxFigure]:
    """A line at every unit, a heavier one where there is a label."""
    return [
        _line(
            plot,
            (plot.left, plot.y(value)),
            (plot.right, plot.y(value)),
            0.2 if value % _AXES[plot.end] else 0.5,
        )
        for value in range(1, plot.end + 1)
    ]


def _path(plot: _Plot, values: Sequence[int]) -> list[BoxFigure]:
    """What joins the points."""
    places = [(plot.slot(place, len(values)), plot.y(value)) for place, value in enumerate(values)]
    return [_line(plot, start, end, 0.9) for start, end in pairwise(places)]


def _axis_labels(plot: _Plot) -> list[GlyphFigure]:
    labels = []
    for value in range(0, plot.end + 1, _AXES[plot.end]):
        label = Lettering(str(value), plot.font, plot.unit * _LABEL)
        right = plot.left - 0.4 * label.height
        labels += label.figures(right - label.width / 2, plot.y(value), plot.ink, plot.rgb)
    return labels


def _value_labels(plot: _Plot, values: Sequence[int]) -> list[GlyphFigure]:
    labels = []
    for place, value in enumerate(values):
        label = Lettering(str(value), plot.font, plot.unit * _LABEL)
        labels += label.figures(plot.slot(place, len(values)), plot.y(value) - 0.9 * label.height, plot.ink, plot.rgb)
    return labels


def _write_caption(dice: Dice, objects: tuple[SceneObject, ...], kind: str) -> str:
    """One sentence with the values from left to right."""
    opening = dice.pick(("", " in the picture"))
    return f"{numbered(objects, kind)}{opening}: {listed([f'{item.color} {item.content}' for item in objects])}."


def _ask_about_chart(dice: Dice, split: str, objects: tuple[SceneObject, ...], kind: str) -> tuple[Question, ...]:
    """Every value, the extremes that are alone, and two differences, in random order."""
    values = {f"the {item.color} {kind}": int(item.content) for item in objects}
    questions = [ask(dice, split, f"value.{kind}", str(value), name) for name, value in values.items()]
    ranked = sorted(objects, key=lambda item: int(item.content))
    for form, item, other in (("smallest", ranked[0], ranked[1]), ("largest", ranked[-1], ranked[-2])):
        if item.content != other.content:
            questions.append(ask(dice, split, f"{form}.{kind}", item.color))
    # Great differences are rare; each is as likely as there are fewer pairs of values that have it.
    gaps = {(a, b): values[a] - values[b] for a, b in permutations(values, 2) if values[a] > values[b]}
    for _ in range(min(_DIFFERENCES, len(gaps))):
        a, b = dice.weighted({pair: 1 / (LARGEST - gap) for pair, gap in gaps.items()})
        questions.append(ask(dice, split, f"difference.{kind}", str(gaps.pop((a, b))), a, b))
    return tuple(dice.shuffled(questions))
