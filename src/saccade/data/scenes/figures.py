"""Figures: shapes, characters and boxes with their ink and their place, ready to be painted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import Canvas, Ground
from saccade.data.scenes.colors import RGB
from saccade.data.scenes.glyphs import Glyph, Warp
from saccade.data.scenes.scene import Instances, Pixels, SceneObject
from saccade.data.scenes.shapes import box_coverage, box_reach, coverage


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
