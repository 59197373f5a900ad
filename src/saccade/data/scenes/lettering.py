"""Lettering: a line of printed characters, set as type is."""

import math
from dataclasses import dataclass

from saccade.data.scenes import glyphs
from saccade.data.scenes.colors import RGB
from saccade.data.scenes.figures import GlyphFigure
from saccade.data.scenes.glyphs import Warp


@dataclass(frozen=True, slots=True)
class Lettering:
    """A line of characters: `height` is that of its capitals in pixels, `angle` its turn in radians.

    `aspect` stretches its width; the lower `level`, the heavier its strokes.
    """

    text: str
    font: str
    height: float
    aspect: float = 1.0
    angle: float = 0.0
    level: float = 0.42

    @property
    def width(self) -> float:
        """Its length in pixels."""
        return sum(glyphs.pen(self.font, character)[0] for character in self.text) * self._scale * self.aspect

    @property
    def _scale(self) -> float:
        _, top, _, bottom = glyphs.printed(self.font, "H").box
        return self.height / (bottom - top)

    def figures(self, x: float, y: float, color: str, rgb: RGB) -> list[GlyphFigure]:
        """Its characters, the middle of the line at (x, y) in pixels."""
        warp = Warp(self.angle, slant=0.0, aspect=self.aspect, bend=0.0, phase=0.0, level=self.level, softness=1.0)
        scale, cos, sin = self._scale, math.cos(self.angle), math.sin(self.angle)
        start, figures = -self.width / 2, []
        for character in self.text:
            advance, right, above = glyphs.pen(self.font, character)
            across, down = start + right * scale * self.aspect, self.height / 2 - above * scale
            figures.append(
                GlyphFigure(
                    character=character,
                    glyph=glyphs.printed(self.font, character),
                    warp=warp,
                    color=color,
                    rgb=rgb,
                    x=x + cos * across - sin * down,
                    y=y + sin * across + cos * down,
                    scale=scale,
                )
            )
            start += advance * scale * self.aspect
        return figures
