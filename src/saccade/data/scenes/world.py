"""The families of the world, and how a scene of one is called up."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from saccade.data.scenes.charts import sketch_charts
from saccade.data.scenes.clutter import sketch_clutter
from saccade.data.scenes.dice import Dice, dice_for
from saccade.data.scenes.digits import sketch_digits
from saccade.data.scenes.objects import sketch_objects
from saccade.data.scenes.pages import sketch_pages
from saccade.data.scenes.practice import sketch_practice
from saccade.data.scenes.preference import sketch_preference
from saccade.data.scenes.reasoning import sketch_reasoning
from saccade.data.scenes.scene import SPLITS, VERSIONS, WORLD_VERSION, Scene, Sketch
from saccade.data.scenes.seams import sketch_seams
from saccade.data.scenes.text import sketch_text
from saccade.errors import DataError


@dataclass(frozen=True, slots=True)
class _Family:
    """How a family is sketched, and since which version of the world it is sketched so."""

    sketch: Callable[[Dice, str], Sketch]
    since: int


_FAMILIES = {
    "objects": _Family(sketch_objects, since=1),
    "digits": _Family(sketch_digits, since=1),
    "clutter": _Family(sketch_clutter, since=2),
    "text": _Family(sketch_text, since=2),
    "charts": _Family(sketch_charts, since=2),
    "seams": _Family(sketch_seams, since=3),
    "preference": _Family(sketch_preference, since=4),
    "reasoning": _Family(sketch_reasoning, since=4),
}
ALL_FAMILIES = tuple(_FAMILIES)
# Drawn to learn from, never asked about: no test is made of them.
_DRAWN = _FAMILIES | {"practice": _Family(sketch_practice, since=2), "pages": _Family(sketch_pages, since=3)}


def families(version: str = WORLD_VERSION) -> tuple[str, ...]:
    """The families that a version of the world has.

    A new version keeps the scenes of the families before it: the score on an older world is the one over its families.

    Raises:
        DataError: There is no such version.
    """
    if version not in VERSIONS:
        raise DataError(f"there is no version {version!r} of the world; there are {', '.join(VERSIONS)}")
    return tuple(name for name, family in _FAMILIES.items() if family.since <= int(version))


FAMILIES = families()


def version_with(names: Iterable[str]) -> str:
    """The version whose families some families are: the usual one, unless one of them came later."""
    return max((WORLD_VERSION, *(str(_FAMILIES[name].since) for name in names)), key=int)


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
    drawn = _DRAWN[family]
    return drawn.sketch(dice_for(family, split, index, drawn.since), split)


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
        marks=drawn.marks,
    )
