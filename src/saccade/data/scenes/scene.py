"""What a scene is: a picture, the objects in it, a caption and questions with their only right answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORLD_VERSION = "1"
SPLITS = ("train", "val", "test", "shifted")

Pixels = NDArray[np.uint8]
Instances = NDArray[np.int8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer.

    `type` is what scores are reported by. `form` is finer (`count.color`): it fixes what a model that cannot see could
    still know about the set of possible answers, so the frozen tests are balanced within each form.
    """

    text: str
    answer: str
    type: str
    form: str = ""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in the picture: a colored shape, or a colored character (the other name is then empty).

    `box` is (left, top, right, bottom) in pixels, with (0, 0) the upper left corner of the picture. Its middle is the
    object's center in every question and label.
    """

    shape: str
    color: str
    character: str
    box: Box

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box as (x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered scene.

    `image` is uint8 `[height, width, 3]`. `instance_map` is int8 `[height, width]`: 0 where the background shows, i + 1
    where `objects[i]` covers more than half of the pixel.
    """

    family: str
    split: str
    index: int
    image: Pixels
    objects: tuple[SceneObject, ...]
    caption: str
    questions: tuple[Question, ...]
    instance_map: Instances


@dataclass(frozen=True, eq=False, slots=True)
class Sketch:
    """A scene before a pixel of it is painted: all that is symbolic, and how to paint it."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]
    caption: str
    questions: tuple[Question, ...]
    paint: Callable[[], tuple[Pixels, Instances]]
