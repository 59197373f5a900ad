"""A picture while it is being painted: a background, and coverages blended onto it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from saccade.data.scenes.colors import RGB, backdrop
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.scene import Instances, Pixels

Coverage = NDArray[np.float32]

_SHORT_SIDE = (72, 160)
_LONGEST_ASPECT = 1.6
_NOISE_SIDE = 320
_NOISE_SEED = 20250101


def draw_size(dice: Dice, short_side: tuple[int, int] = _SHORT_SIDE) -> tuple[int, int]:
    """Width and height of a picture in pixels, landscape or portrait.

    Args:
        dice: Draws them.
        short_side: Least and greatest shorter side; the longer one is up to 1.6 times as long.
    """
    short = dice.between(*short_side)
    long = round(short * dice.uniform(1.0, _LONGEST_ASPECT)) if dice.chance(0.75) else short
    return (long, short) if dice.chance(0.5) else (short, long)


@dataclass(frozen=True, slots=True)
class Ground:
    """A background: a color or a gradient from `start` to `end` along (across, down), under noise of some strength.

    `noise_place` says, in 0..1, where the noise is cut out of its tile.
    """

    start: RGB
    end: RGB
    across: float
    down: float
    noise: float
    noise_place: tuple[float, float]


def draw_ground(dice: Dice, inks: Sequence[RGB]) -> Ground:
    """A background that every ink stands out from; six in ten are noisy."""
    start, end = backdrop(dice, inks)
    return Ground(
        start=start,
        end=end,
        across=dice.uniform(-1, 1),
        down=dice.uniform(-1, 1),
        noise=dice.uniform(0.5, 5.0) if dice.chance(0.6) else 0.0,
        noise_place=(dice.random(), dice.random()),
    )


class Canvas:
    """Planar float pixels and the map of who covers which pixel.

    Planes (`[3, height, width]`) rather than interleaved colors, because numpy's inner loops then run over whole rows.
    """

    def __init__(self, width: int, height: int, ground: Ground) -> None:
        self.instances: Instances = np.zeros((height, width), dtype=np.int8)
        self._planes = np.empty((3, height, width), dtype=np.float32)
        start, end = (np.array(color, dtype=np.float32).reshape(3, 1, 1) for color in (ground.start, ground.end))
        if ground.start == ground.end:
            self._planes[:] = start
        else:
            np.multiply(_ramp(ground, width, height), end - start, out=self._planes)
            self._planes += start
        if ground.noise:
            noise = _noise(math.ceil(height / _NOISE_SIDE), math.ceil(width / _NOISE_SIDE))
            top = int(ground.noise_place[0] * (noise.shape[0] - height))
            left = int(ground.noise_place[1] * (noise.shape[1] - width))
            self._planes += noise[top : top + height, left : left + width] * np.float32(ground.noise)

    def paint(self, coverage: Coverage, left: int, top: int, color: RGB, instance: int) -> None:
        """Blend a color over the background where `coverage` `[rows, columns]` (0..1) says, from (left, top) on.

        What lies outside the picture is cut away. Pixels more than half covered are given to `instance` in the map.
        """
        height, width = self.instances.shape
        rows, columns = coverage.shape
        y0, x0, y1, x1 = max(0, top), max(0, left), min(height, top + rows), min(width, left + columns)
        visible = coverage[y0 - top : y1 - top, x0 - left : x1 - left]
        region = self._planes[:, y0:y1, x0:x1]
        region += visible * (np.array(color, dtype=np.float32).reshape(3, 1, 1) - region)
        self.instances[y0:y1, x0:x1][visible > 0.5] = instance

    def finish(self) -> Pixels:
        """The picture as uint8 `[height, width, 3]`."""
        planes = self._planes
        planes += np.float32(0.5)
        np.minimum(planes, np.float32(255), out=planes)
        np.maximum(planes, np.float32(0), out=planes)
        picture: Pixels = np.empty((*self.instances.shape, 3), dtype=np.uint8)
        np.copyto(picture.transpose(2, 0, 1), planes, casting="unsafe")
        return picture


def _ramp(ground: Ground, width: int, height: int) -> Coverage:
    """A linear ramp from 0 to 1 across the picture along the ground's direction, `[height, width]`."""
    across, down = ground.across, ground.down
    total = max(abs(across) + abs(down), 1e-3)
    xs = np.linspace(0, across / total, width, dtype=np.float32)
    ys = np.linspace(0, down / total, height, dtype=np.float32)
    offset = np.float32(-min(across, 0) / total - min(down, 0) / total)
    return ys[:, None] + (xs + offset)


@cache
def _noise(down: int, across: int) -> Coverage:
    """Fixed noise of unit variance that pictures take a random cut of: fresh noise would cost most of the time.

    It is a square tile, repeated down and across as often as a picture needs.
    """
    generator = np.random.Generator(np.random.PCG64(_NOISE_SEED))
    # Three uniforms summed are close to normal; the stream of `random` is stable where that of `normal` is not.
    total = generator.random((3, _NOISE_SIDE, _NOISE_SIDE)).sum(axis=0)
    tile = ((total - 1.5) * 2.0).astype(np.float32)
    return np.tile(tile, (down, across))
