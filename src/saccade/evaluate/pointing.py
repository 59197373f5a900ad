"""The pointing score: do the embedded queries look at the thing that a question names?

In one picture every thing with a name of its own is asked about in the same words. The score of a thing is the share of
the queries' attention on its pixels when it is named, minus that share when others are: 0 for queries that do not heed
the question, however good they are at finding things, and 1 at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.data import scenes
from saccade.data.scenes.captions import named
from saccade.data.scenes.dice import dice_for
from saccade.data.scenes.wording import ask
from saccade.errors import ConfigError, DataError
from saccade.evaluate.bootstrap import intervals
from saccade.evaluate.provenance import scored_with
from saccade.evaluate.world import Progress
from saccade.explain import attend, grid_boxes, to_map
from saccade.vlm.chat import Conversation
from saccade.vlm.inputs import batch_inputs

if TYPE_CHECKING:
    from saccade.vlm import VLM

FAMILIES = ("objects",)
SCENES = 500  # of a family, unless a limit is given
BARREN = 200  # so many scenes in which nothing can be asked say that the family has none
# What a question of each type calls a shape; it is asked where no other thing goes by that name.
NAMES: dict[str, Callable[[scenes.SceneObject], str]] = {
    "color": lambda item: f"the {item.shape}",
    "shape": lambda item: f"the {item.color} object",
}


@dataclass(frozen=True, slots=True)
class Aim:
    """A question that names one thing of a scene.

    Attributes:
        family: Scene family.
        scene: Index of the scene in its split.
        type: "color" or "shape", what is asked of the thing.
        named: Index of the thing in the scene.
        question: The question.
    """

    family: str
    scene: int
    type: str
    named: int
    question: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a question made the queries look at: the share of their attention on each thing of the scene."""

    aim: Aim
    masses: tuple[float, ...]


@dataclass(frozen=True)
class PointingReport:
    """Looks and what they were obtained with.

    Attributes:
        model: Name of the model.
        split: Split of the world.
        looks: One per question.
        settings: What else is needed to repeat the measurement.
    """

    model: str
    split: str
    looks: tuple[Look, ...]
    settings: dict[str, Any]

    def to_dict(self, *, samples: bool = False) -> dict[str, Any]:
        """Return plain JSON types: by family the score, by type too; `samples` adds every single question."""
        families: dict[str, Any] = {}
        for family, looks in groupby(self.looks, lambda look: look.aim.family):
            members = list(looks)
            types = {kind: [look for look in members if look.aim.type == kind] for kind in NAMES}
            families[family] = {
                **_score(members),
                "types": {kind: _score(part) for kind, part in types.items() if part},
            }
        report = {
            "families": families,
            "model": self.model,
            "split": self.split,
            "world": scenes.version_with(families),
            **self.settings,
        }
        if samples:
            report["samples"] = [{**asdict(look.aim), "masses": list(look.masses)} for look in self.looks]
        return report


def evaluate_pointing(
    vlm: VLM,
    families: Sequence[str] = FAMILIES,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> PointingReport:
    """Measure where a model's queries look when different things of one picture are named.

    Args:
        vlm: The model.
        families: Families of scenes, with shapes to name; one that is named twice counts once.
        split: Split of the world.
        limit: At most so many scenes of each family.
        batch_size: Questions at once.
        progress: Called with (questions so far, questions in all).

    Raises:
        ConfigError: when the model has no embedded queries.
        DataError: for an unknown family or split, a family without shapes to name, or a limit below 1.
    """
    if vlm.model.config.query is None:
        raise ConfigError("the model has no embedded queries that could point: use a model with a query module")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: look at 1 scene at least")
    groups = (_scenes(family, split, limit or SCENES) for family in dict.fromkeys(families))
    aims = [aim for group in groups for scene in group for aim in scene]
    looks: list[Look] = []
    for start in range(0, len(aims), batch_size):
        looks += _look(vlm, split, aims[start : start + batch_size])
        if progress is not None:
            progress(len(looks), len(aims))
    return PointingReport(vlm.name, split, tuple(looks), {"limit": limit, **scored_with(vlm)})


def gains(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Return `[questions, 2]`: the attention on a thing when it is named, and the mean when another one is.

    Args:
        looks: The looks of one type at one scene, two at least, each with a different thing named.
    """
    masses = np.array([look.masses for look in looks])[:, [look.aim.named for look in looks]]
    own = np.diagonal(masses)
    return np.stack([own, (masses.sum(axis=0) - own) / (len(looks) - 1)], axis=-1)


def _scenes(family: str, split: str, number: int) -> Iterator[list[Aim]]:
    """Yield the questions of the first scenes in which two things can be told apart by name."""
    found = 0
    for index in count():
        aims = _aims(family, split, index)
        if aims:
            found += 1
            yield aims
        if found == number:
            return
        if not found and index >= BARREN:
            raise DataError(
                f"family {family!r} shows no two shapes that could be named: use one that does, such as {FAMILIES[0]}"
            )


def _aims(family: str, split: str, index: int) -> list[Aim]:
    """Return the questions of a scene: of each type those of all things that have a name, if they are two or more."""
    objects = scenes.sketch(family, split, index).objects
    aims: list[Aim] = []
    for kind, name in NAMES.items():
        group = [
            # Fresh dice for every question: all of a scene are worded alike.
            Aim(family, index, kind, n, ask(dice_for(family, split, index), split, kind, "", name(item)).text)
            for n, item in enumerate(objects)
            if item.shape and name(item) in named(item, objects)
        ]
        aims += group if len(group) > 1 else []
    return aims


def _look(vlm: VLM, split: str, aims: Sequence[Aim]) -> list[Look]:
    """Ask a batch of questions and measure the attention on every thing of their scenes."""
    rendered = {(aim.family, aim.scene): scenes.render(aim.family, split, aim.scene) for aim in aims}
    encoded = dict(zip(rendered, vlm.encode_batch([scene.image for scene in rendered.values()]), strict=True))
    shown = [encoded[aim.family, aim.scene] for aim in aims]
    talks = [Conversation().ask(aim.question, (image,)) for aim, image in zip(aims, shown, strict=True)]
    looks = []
    for aim, row in zip(aims, attend(vlm.model, batch_inputs(talks, shown, vlm.processor)), strict=True):
        assert row.query_image is not None
        instances = rendered[aim.family, aim.scene].instance_map
        height, width = instances.shape
        boxes = grid_boxes(width, height, vlm.model.config)
        laid = to_map(row.query_image.mean(axis=(0, 1, 2)), boxes, width, height)
        things = len(rendered[aim.family, aim.scene].objects)
        masses = np.bincount(instances.ravel(), weights=laid.ravel(), minlength=things + 1)[1:]
        looks.append(Look(aim, tuple(masses.tolist())))
    return looks


def _score(looks: Sequence[Look]) -> dict[str, Any]:
    """Average over the scenes, each of which counts once, with a 95 % bootstrap interval over them."""
    by_type = groupby(looks, lambda look: (look.aim.scene, look.aim.type))
    parts = [(scene, gains(list(group))) for (scene, _), group in by_type]
    by_scene = groupby(parts, lambda part: part[0])
    rows = np.array([np.concatenate([gain for _, gain in group]).mean(axis=0) for _, group in by_scene])
    scores = rows[:, 0] - rows[:, 1]
    low, high = intervals(len(scores), lambda drawn: scores[drawn].mean())
    named_mass, other_mass = rows.mean(axis=0).tolist()
    return {
        "mean": round(float(scores.mean()), 4),
        "interval": (round(float(low), 4), round(float(high), 4)),
        "named": round(named_mass, 4),
        "other": round(other_mass, 4),
        "n": len(scores),
        "questions": len(looks),
    }
