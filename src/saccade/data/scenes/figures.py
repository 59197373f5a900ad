"""Figures: shapes and characters with their ink and their place, ready to be painted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saccade.data.scenes import glyphs
from saccade.data.scenes.canvas import Canvas, Ground
from saccade.data.scenes.colors import RGB
from saccade.data.scenes.glyphs import Glyph, Warp
from saccade.data.scenes.scene import Instances, Pixels, SceneObject
from saccade.data.scenes.shapes import coverage


@dataclass(frozen=True, slots=True)
class ShapeFigure:
    """A shape: center and radius in pixels, angle in radians."""

    shape: str
    color: str
    rgb: RGB
    x: float
    y: float
    radius: float
    angle: float

    def as_object(self) -> SceneObject:
        """What the scene says of it."""
        box = (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)
        return SceneObject(shape=self.shape, color=self.color, character="", box=box)

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


def painter(
    width: int, height: int, ground: Ground, figures: Sequence[ShapeFigure | GlyphFigure]
) -> Callable[[], tuple[Pixels, Instances]]:
    """Return the function that paints figures on a background; the first figure is instance 1."""

    def paint() -> tuple[Pixels, Instances]:
        canvas = Canvas(width, height, ground)
        for number, figure in enumerate(figures, start=1):
            figure.paint(canvas, number)
        return canvas.finish(), canvas.instances

    return paint
