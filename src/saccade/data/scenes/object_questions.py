"""Questions about a scene of shapes: answer first where that is possible, asked only where there is one answer."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property

from saccade.data.scenes.captions import named
from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.nearest import nearest_objects
from saccade.data.scenes.scene import Question, SceneObject
from saccade.data.scenes.shapes import PLURALS, SHAPES
from saccade.data.scenes.wording import ask, with_article

# A question before it is worded: form, answer, what `{a}` and `{b}` stand for.
Raw = tuple[str, str, str, str]

_NEAREST_MARGIN = 1.4
_SIDE_MARGIN = 0.18
_COUNT_DRAWS = 5
# Where color and shape of an absent pair can be present apart, they mostly are; where not, the question is mostly not
# asked. Over all scenes about half of the absent pairs are then hard.
_HARD = 0.85
_EASY_SKIPPED = 0.65
# How often each count is tried for, by what is counted: the rarer the scenes that have it, the more often, so that the
# answers come out near uniform over many scenes.
_COUNT_TRIES: dict[str, dict[int, float]] = {
    "shape": {0: 0.6, 1: 0.7, 2: 2.0, 3: 5.0, 4: 9.0, 5: 16.0},
    "color": {0: 0.6, 1: 0.7, 2: 2.0, 3: 5.0, 4: 9.0, 5: 16.0},
    "pair": {0: 0.6, 1: 0.8, 2: 3.0, 3: 8.0, 4: 12.0, 5: 20.0},
}


def ask_about_objects(
    dice: Dice, split: str, objects: tuple[SceneObject, ...], width: int, height: int
) -> tuple[Question, ...]:
    """Six to ten different questions about the scene, the types taking turns in random order."""
    arrangement = _Arrangement(dice, objects, width, height)
    wanted = dice.between(6, 10)
    drawn: dict[tuple[str, str, str], str] = {}
    for draw in _turns(dice):
        raw = draw(arrangement)
        if raw is not None:
            form, answer, a, b = raw
            drawn.setdefault((form, a, b), answer)
        if len(drawn) == wanted:
            break
    return tuple(ask(dice, split, form, answer, a, b) for (form, a, b), answer in drawn.items())


def ask_all_nearest(
    dice: Dice, split: str, objects: tuple[SceneObject, ...], width: int, height: int
) -> tuple[Question, ...]:
    """Color and shape of what is nearest to each object, where that and the object's name are clear."""
    arrangement = _Arrangement(dice, objects, width, height)
    return tuple(
        ask(dice, split, form, answer, name)
        for item, nearest in zip(objects, arrangement.nearest, strict=True)
        if nearest is not None and len(objects) > 2 and (name := arrangement.name(item)) is not None
        for form, answer in (("nearest.color", nearest.color), ("nearest.shape", nearest.shape))
    )


def _turns(dice: Dice) -> Iterator[Callable[["_Arrangement"], Raw | None]]:
    while True:
        yield from dice.shuffled(_DRAWS)


class _Arrangement:
    """A scene with the tallies that make a question clear or not."""

    def __init__(self, dice: Dice, objects: tuple[SceneObject, ...], width: int, height: int) -> None:
        self.dice = dice
        self.objects = objects
        self.width = width
        self.height = height
        self.shapes = Counter(item.shape for item in objects)
        self.colors = Counter(item.color for item in objects)
        self.pairs = Counter((item.color, item.shape) for item in objects)

    @cached_property
    def apart(self) -> list[tuple[str, str]]:
        """The (color, shape) pairs of which the scene has both, but not in one object."""
        return [(color, shape) for color in self.colors for shape in self.shapes if (color, shape) not in self.pairs]

    @cached_property
    def nearest(self) -> list[SceneObject | None]:
        """For each object the one clearly nearest, or None."""
        return nearest_objects(self.objects, self.width, self.height, _NEAREST_MARGIN)

    def name(self, item: SceneObject) -> str | None:
        """A name that only this object in the scene answers to, or None if it has none."""
        names = named(item, self.objects)
        return self.dice.pick(names) if names else None


def _draw_color(scene: _Arrangement) -> Raw | None:
    item = scene.dice.pick(scene.objects)
    return ("color", item.color, f"the {item.shape}", "") if scene.shapes[item.shape] == 1 else None


def _draw_shape(scene: _Arrangement) -> Raw | None:
    item = scene.dice.pick(scene.objects)
    return ("shape", item.shape, f"the {item.color} object", "") if scene.colors[item.color] == 1 else None


def _draw_count(scene: _Arrangement) -> Raw | None:
    kind = scene.dice.weighted({"shape": 0.3, "color": 0.3, "pair": 0.2, "all": 0.2})
    if kind == "all":
        return "count.all", str(len(scene.objects)), "objects", ""
    for _ in range(_COUNT_DRAWS):
        number = scene.dice.weighted(_COUNT_TRIES[kind])
        plurals = _counted(scene, kind, number)
        if plurals:
            return f"count.{kind}", str(number), scene.dice.pick(plurals), ""
    return None


def _counted(scene: _Arrangement, kind: str, number: int) -> list[str]:
    """What there is exactly this number of."""
    if kind == "shape":
        return [PLURALS[shape] for shape in SHAPES if scene.shapes[shape] == number]
    if kind == "color":
        return [f"{color} objects" for color in COLORS if scene.colors[color] == number]
    pairs = [_absent_pair(scene)] if number == 0 else [key for key, held in scene.pairs.items() if held == number]
    return [f"{color} {PLURALS[shape]}" for color, shape in pairs]


def _draw_existence(scene: _Arrangement) -> Raw | None:
    kind = scene.dice.weighted({"pair": 0.6, "shape": 0.2, "color": 0.2})
    # Set so that both answers come up equally often: what is present is soon used up, easy absent pairs often skipped.
    yes = scene.dice.chance(0.46 if kind == "pair" else 0.53)
    answer = "yes" if yes else "no"
    if kind == "pair":
        if not yes and not scene.apart and scene.dice.chance(_EASY_SKIPPED):
            return None
        pair = scene.dice.pick(list(scene.pairs)) if yes else _absent_pair(scene)
        return "existence.pair", answer, with_article(" ".join(pair)), ""
    if kind == "shape":
        shapes = [shape for shape in SHAPES if (shape in scene.shapes) == yes]
        return "existence.shape", answer, with_article(scene.dice.pick(shapes)), ""
    colors = [color for color in COLORS if (color in scene.colors) == yes]
    return "existence.color", answer, with_article(f"{scene.dice.pick(colors)} object"), ""


def _absent_pair(scene: _Arrangement) -> tuple[str, str]:
    """A color and a shape that do not occur together; mostly, where the scene allows it, both occur apart."""
    if scene.apart and scene.dice.chance(_HARD):
        return scene.dice.pick(scene.apart)
    while True:
        pair = scene.dice.pick(COLORS), scene.dice.pick(SHAPES)
        if pair not in scene.pairs:
            return pair


def _draw_nearest(scene: _Arrangement) -> Raw | None:
    if len(scene.objects) < 3:
        return None
    for index in scene.dice.shuffled(range(len(scene.objects))):
        name, nearest = scene.name(scene.objects[index]), scene.nearest[index]
        if name is not None and nearest is not None:
            if scene.dice.chance(0.5):
                return "nearest.color", nearest.color, name, ""
            return "nearest.shape", nearest.shape, name, ""
    return None


def _draw_side(scene: _Arrangement) -> Raw | None:
    if len(scene.objects) < 2:
        return None
    first, second = scene.dice.shuffled(range(len(scene.objects)))[:2]
    one, other = scene.objects[first], scene.objects[second]
    # The axis along which they lie further apart, so that "left" is not said of what is mostly above.
    across = (one.center[0] - other.center[0]) / scene.width
    down = (one.center[1] - other.center[1]) / scene.height
    name, other_name = scene.name(one), scene.name(other)
    if name is None or other_name is None or max(abs(across), abs(down)) < _SIDE_MARGIN:
        return None
    if abs(across) > abs(down):
        clear = one.box[2] <= other.box[0] or other.box[2] <= one.box[0]
        return ("side.horizontal", "left" if across < 0 else "right", name, other_name) if clear else None
    clear = one.box[3] <= other.box[1] or other.box[3] <= one.box[1]
    return ("side.vertical", "above" if down < 0 else "below", name, other_name) if clear else None


# Counts twice a turn: most of what they try for is not in the scene.
_DRAWS: tuple[Callable[[_Arrangement], Raw | None], ...] = (
    _draw_count,
    _draw_color,
    _draw_shape,
    _draw_count,
    _draw_existence,
    _draw_nearest,
    _draw_side,
)
