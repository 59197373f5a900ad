"""Which object of a scene is nearest to which, where that is clear to the eye."""

import math
from collections.abc import Sequence

from saccade.data.scenes.scene import SceneObject


def nearest_objects(objects: Sequence[SceneObject], width: int, height: int, margin: float) -> list[SceneObject | None]:
    """For each object the one clearly nearest, in the picture as it is and squashed to a square, or None.

    Args:
        objects: All objects of the scene.
        width: The picture's, in pixels.
        height: The picture's, in pixels.
        margin: How many times as far, center to center, the next nearest must lie at least.
    """
    return [_nearest(index, objects, width, height, margin) for index in range(len(objects))]


def _nearest(index: int, objects: Sequence[SceneObject], width: int, height: int, margin: float) -> SceneObject | None:
    found = set()
    x, y = objects[index].center
    for across, down in ((1, 1), (width, height)):
        ranked = sorted(
            (math.hypot((item.center[0] - x) / across, (item.center[1] - y) / down), other)
            for other, item in enumerate(objects)
            if other != index
        )
        if not ranked or (len(ranked) > 1 and ranked[1][0] < margin * ranked[0][0]):
            return None
        found.add(ranked[0][1])
    return objects[found.pop()] if len(found) == 1 else None
