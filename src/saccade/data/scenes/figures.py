"""Figures: shapes, characters and boxes with their ink and their place, ready to be painted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import Canvas, Ground
from saccade.data.scenes.colors import RGB, shade
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.glyphs import Glyph, Warp
from saccade.data.scenes.scene import Instances, Pixels, SceneObject
from saccade.data.scenes.shapes import TURNS, box_coverage, box_reach, coverage

# A printed digit's height in radii of its circle, so that its corners stay in it too.
_TALL = 1.75


@dataclass(frozen=True, slots=True)
class ShapeFigure:
    """A shape: center and radius in pixels, angle in radians; `kind` and `content` as in a `SceneObject`."""

    shape: str
    color: str
    rgb: RGB
    x: float
    y: float
    radius: float
    angle: float
    kind: str = ""
    content: str = ""

    def as_object(self) -> SceneObject:
        """What the scene says of it."""
        box = (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)
        return SceneObject(self.shape, self.color, "", box, self.kind, self.content)

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint it as instance `number`."""
        covered, left, top = coverage(self.shape, self.x, self.y, self.radius, self.angle)
        canvas.paint(covered, left, top, self.rgb, number)


@dataclass(frozen=True, slots=True)
class GlyphFigure:
    """A character: center in pixels, pixels per glyph cell."""

    character: str
    glyph: Glyph
    warp: Warp
    color: str
    rgb: RGB
    x: float
    y: float
    scale: float

    def as_object(self) -> SceneObject:
        """What the scene says of it."""
        width, height = self.warp.extent(self.glyph, self.scale)
        box = (self.x - width / 2, self.y - height / 2, self.x + width / 2, self.y + height / 2)
        return SceneObject(shape="", color=self.color, character=self.character, box=box)

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint it as instance `number`."""
        covered, left, top = glyphs.stamp(self.glyph, self.x, self.y, self.scale, self.warp)
        canvas.paint(covered, left, top, self.rgb, number)


@dataclass(frozen=True, slots=True)
class BoxFigure:
    """A board, a bar or a line: center and halves of its sides in pixels, angle in radians, radius of its corners.

    `opacity` below 1 lets what lies below shine through. `kind` and `content` as in a `SceneObject`.
    """

    color: str
    rgb: RGB
    x: float
    y: float
    half_width: float
    half_height: float
    angle: float = 0.0
    corner: float = 0.0
    opacity: float = 1.0
    kind: str = ""
    content: str = ""

    def as_object(self) -> SceneObject:
        """What the scene says of it."""
        across, down = box_reach(self.half_width, self.half_height, self.angle)
        box = (self.x - across, self.y - down, self.x + across, self.y + down)
        return SceneObject("", self.color, "", box, self.kind, self.content)

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint it as instance `number`."""
        covered, left, top = box_coverage(self.x, self.y, self.half_width, self.half_height, self.angle, self.corner)
        canvas.paint(covered * self.opacity, left, top, self.rgb, number)


Figure = ShapeFigure | GlyphFigure | BoxFigure


def draw_shape(dice: Dice, split: str, shape: str, color: str, x: float, y: float, radius: float) -> ShapeFigure:
    """A shape in some shade of its color, turned as far as it may be; all lengths in pixels."""
    angle = math.radians(dice.uniform(-1, 1) * TURNS[shape])
    return ShapeFigure(shape, color, shade(dice, color, split), x, y, radius, angle)


def draw_printed(
    dice: Dice, split: str, character: str, font: str, color: str, x: float, y: float, radius: float
) -> GlyphFigure:
    """A printed character that fits into a circle; all lengths in pixels."""
    glyph, warp = glyphs.printed(font, character), glyphs.draw_warp(dice, False, split)
    scale = _TALL * radius / warp.extent(glyph, 1.0)[1]
    return GlyphFigure(character, glyph, warp, color, shade(dice, color, split), x, y, scale)


def painter(
    width: int, height: int, ground: Ground, figures: Sequence[Figure], backing: Sequence[Figure] = ()
) -> Callable[[], tuple[Pixels, Instances]]:
    """Return the function that paints figures on a background; the first figure is instance 1.

    What is `backing` is painted first and counts as background.
    """

    def paint() -> tuple[Pixels, Instances]:
        canvas = Canvas(width, height, ground)
        for figure in backing:
            figure.paint(canvas, 0)
        for number, figure in enumerate(figures, start=1):
            figure.paint(canvas, number)
        return canvas.finish(), canvas.instances

    return paint
