"""Answers to the rendered world's questions, recomputed from the objects by other means than the world's own."""

import math
import re
from itertools import pairwise

from saccade.data.scenes import COLORS, SHAPES, Question, SceneObject
from saccade.data.scenes.scene import Sketch

OBJECT = re.compile(rf"\bthe (?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)}|object)\b", re.IGNORECASE)
SIGN = re.compile(rf"\bthe (?:({'|'.join(COLORS)}|left|right|top|middle|bottom) )?sign\b", re.IGNORECASE)
VALUED = re.compile(rf"\bthe ({'|'.join(COLORS)}) (bar|point)\b", re.IGNORECASE)
INVERTED = ("On which side of", "From ")


def matching(scene: Sketch, color: str, kind: str) -> list[SceneObject]:
    return [
        item
        for item in scene.objects
        if (not color or item.color == color) and (kind in ("", "object", item.shape, item.character, item.kind))
    ]


def only(found: list[SceneObject]) -> SceneObject:
    """The one thing that a description fits."""
    assert len(found) == 1, found
    return found[0]


def the(scene: Sketch, color: str, kind: str) -> SceneObject:
    """The object a description names, which must be one and only one."""
    return only(matching(scene, color, kind))


def words(text: str) -> tuple[str, str]:
    """The color and the shape or digit a question names, "" for what it leaves open."""
    color = re.findall(rf"\b({'|'.join(COLORS)})\b", text)
    kind = re.findall(rf"\b({'|'.join(SHAPES)}|\d)(?:e?s)?\b", text)
    assert len(color) <= 1
    assert len(kind) <= 1
    return "".join(color), "".join(kind)


def nearest_answer(scene: Sketch, question: Question) -> str:
    anchor = the(scene, *OBJECT.findall(question.text)[-1])
    x, y = anchor.center
    nearest = set()
    for stretch in (1.0, scene.width / scene.height):
        away = sorted(
            (math.hypot(item.center[0] - x, (item.center[1] - y) * stretch), item.color, item.shape)
            for item in scene.objects
            if item is not anchor
        )
        assert away[1][0] >= 1.4 * away[0][0] * (1 - 1e-9)
        nearest.add(away[0][1:])
    color, shape = nearest.pop()
    assert not nearest
    return color if question.form == "nearest.color" else shape


def side_answer(scene: Sketch, question: Question) -> str:
    named = [the(scene, *found) for found in OBJECT.findall(question.text)]
    one, other = reversed(named) if question.text.startswith(INVERTED) else named
    across = (one.center[0] - other.center[0]) / scene.width
    down = (one.center[1] - other.center[1]) / scene.height
    if question.form == "side.horizontal":
        assert abs(across) >= 0.18
        return "left" if across < 0 else "right"
    assert abs(down) >= 0.18
    return "above" if down < 0 else "below"


def object_answer(scene: Sketch, question: Question) -> str:
    if question.type == "nearest":
        return nearest_answer(scene, question)
    if question.type == "side":
        return side_answer(scene, question)
    color, shape = words(question.text)
    if question.type == "color":
        return the(scene, "", shape).color
    if question.type == "shape":
        return the(scene, color, "").shape
    found = matching(scene, color, shape)
    return str(len(found)) if question.type == "count" else ("yes" if found else "no")


def digit_answer(scene: Sketch, question: Question) -> str:
    ordered = sorted(scene.objects, key=lambda item: item.center[0])
    form = question.form.removeprefix("printed.")
    if form == "number":
        assert len(ordered) == 2
        assert ordered[0].character != "0"
        return "".join(item.character for item in ordered)
    if form == "read":
        assert len(ordered) == 1
        return ordered[0].character
    if form == "place":
        place = re.search(r"\b(left|middle|right)\b", question.text).group()
        assert place != "middle" or len(ordered) == 3
        return ordered[{"left": 0, "middle": 1, "right": -1}[place]].character
    return the(scene, words(question.text)[0], "").character


def clutter_answer(scene: Sketch, question: Question) -> str:
    color, kind = words(question.text)
    if question.type == "color":
        return the(scene, "", kind).color
    if question.type == "existence":
        return "yes" if matching(scene, color, kind) else "no"
    painted = [(item.shape, item.character) for item in matching(scene, color, "")]
    kinds = [shape if question.type == "shape" else character for shape, character in painted]
    (answer,) = filter(None, kinds)
    return answer


def text_answer(scene: Sketch, question: Question) -> str:
    says = re.search(r"sign that says (\w+)", question.text)
    if says:
        return only([item for item in scene.objects if item.content == says.group(1)]).color
    name = SIGN.search(question.text).group(1)
    if name in (None, *COLORS):
        return the(scene, name or "", "sign").content
    axis = 0 if name in ("left", "right") else 1
    ordered = sorted(scene.objects, key=lambda item: item.center[axis])
    assert len(ordered) == 3 if name == "middle" else len(ordered) > 1
    # A sign lies wholly beyond the next: there is no doubt about its place.
    for one, other in pairwise(ordered):
        assert one.box[axis + 2] <= other.box[axis]
    return ordered[{"left": 0, "top": 0, "middle": 1, "right": -1, "bottom": -1}[name]].content


def chart_answer(scene: Sketch, question: Question) -> str:
    values = [int(item.content) for item in scene.objects]
    if question.type in ("largest", "smallest"):
        extreme = max(values) if question.type == "largest" else min(values)
        return only([item for item in scene.objects if int(item.content) == extreme]).color
    named = [int(the(scene, *found).content) for found in VALUED.findall(question.text)]
    if question.type == "value":
        (value,) = named
        return str(value)
    high, low = named
    assert high > low
    return str(high - low)


def seam_answer(scene: Sketch, question: Question) -> str:
    says = re.search(r"sign that says (\w+)", question.text)
    color, kind = words(question.text)
    if says:
        item = only([item for item in scene.objects if item.content == says.group(1)])
    else:
        item = the(scene, color, kind or ("sign" if scene.marks else ""))
    # In every picture half of the things lie across a border; those come first.
    assert question.type == ("crossing" if item in scene.objects[: len(scene.objects) // 2] else "clear")
    if question.form.endswith(("sign", "color.shape")):
        return item.color
    return item.content or item.shape


ANSWER = {
    "objects": object_answer,
    "digits": digit_answer,
    "clutter": clutter_answer,
    "text": text_answer,
    "charts": chart_answer,
    "seams": seam_answer,
}
