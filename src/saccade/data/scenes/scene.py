"""What a scene is: a picture, the objects in it, a caption and questions with their only right answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The version that is meant where none is named: its families ask what is seen. Those that came after it are for tuning
# what a model says of that, and are asked by name.
WORLD_VERSION = "3"
VERSIONS = ("1", "2", "3", "4")
SPLITS = ("train", "val", "test", "shifted")

Pixels = NDArray[np.uint8]
Instances = NDArray[np.int8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer.

    `type` is what scores are reported by. `form` is finer (`count.color`): it fixes what a model that cannot see could
    still know about the set of possible answers, so the frozen tests are balanced within each form. `wrong` is a wrong
    answer that is easily given, where the family has one.
    """

    text: str
    answer: str
    type: str
    form: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in the picture: a colored shape, a colored character, or a thing of another kind.

    `shape` and `character` are empty where the thing is none. `box` is (left, top, right, bottom) in pixels, with
    (0, 0) the upper left corner of the picture. Its middle is the object's center in every question and label. `kind`
    is what the thing is called if neither by its shape nor by its character ("sign", "bar", "point"); `content` is then
    what stands on it, or the value it stands for.
    """

    shape: str
    color: str
    character: str
    box: Box
    kind: str = ""
    content: str = ""

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box as (x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered scene.

    `image` is uint8 `[height, width, 3]`. `instance_map` is int8 `[height, width]`: 0 where the background shows, i + 1
    where `objects[i]` covers more than half of the pixel; the numbers of `marks` follow on those of the objects.
    `marks` are characters that are no objects of their own, such as the letters on a sign or the numbers beside an
    axis: labelled, but never counted, named or asked for.
    """

    family: str
    split: str
    index: int
    image: Pixels
    objects: tuple[SceneObject, ...]
    caption: str
    questions: tuple[Question, ...]
    instance_map: Instances
    marks: tuple[SceneObject, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Sketch:
    """A scene before a pixel of it is painted: all that is symbolic, and how to paint it."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]
    caption: str
    questions: tuple[Question, ...]
    paint: Callable[[], tuple[Pixels, Instances]]
    marks: tuple[SceneObject, ...] = ()
