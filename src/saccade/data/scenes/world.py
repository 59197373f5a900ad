"""The families of the world, and how a scene of one is called up."""

from collections.abc import Callable

from saccade.data.scenes.dice import Dice, dice_for
from saccade.data.scenes.digits import sketch_digits
from saccade.data.scenes.objects import sketch_objects
from saccade.data.scenes.practice import sketch_practice
from saccade.data.scenes.scene import SPLITS, Scene, Sketch
from saccade.errors import DataError

_FAMILIES: dict[str, Callable[[Dice, str], Sketch]] = {"objects": sketch_objects, "digits": sketch_digits}
FAMILIES = tuple(_FAMILIES)
# Drawn to learn from, never asked about: no test is made of it.
_DRAWN = _FAMILIES | {"practice": sketch_practice}


def sketch(family: str, split: str, index: int) -> Sketch:
    """The symbolic part of a scene: several times cheaper than its pixels.

    Raises:
        DataError: No such family or split, or a negative index.
    """
    if family not in _DRAWN:
        raise DataError(f"the world has no family {family!r}; it has {', '.join(_DRAWN)}")
    if split not in SPLITS:
        raise DataError(f"the world has no split {split!r}; it has {', '.join(SPLITS)}")
    if index < 0:
        raise DataError(f"scenes are numbered from 0, not {index}")
    return _DRAWN[family](dice_for(family, split, index), split)


def render(family: str, split: str, index: int) -> Scene:
    """Render one scene: a pure function of its arguments, for any index from 0 on.

    Raises:
        DataError: No such family or split, or a negative index.
    """
    drawn = sketch(family, split, index)
    image, instances = drawn.paint()
    return Scene(
        family=family,
        split=split,
        index=index,
        image=image,
        objects=drawn.objects,
        caption=drawn.caption,
        questions=drawn.questions,
        instance_map=instances,
    )
