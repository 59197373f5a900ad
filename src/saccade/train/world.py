"""Training pictures from the rendered world: drawn when they are asked for, every one seen once in a stage."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from saccade.config import ImageConfig
from saccade.data import scenes
from saccade.image.transform import to_views

# Every type of question a family asks comes up in far fewer scenes.
SCENES_ASKED = 100


@dataclass(frozen=True, eq=False)
class StoredPatches:
    """What a frozen tower makes of pictures, computed before; a picture has as many views as its shape asks for.

    Attributes:
        patches: Those of all pictures, one after the other, `[views of all pictures, patches, vision_dim]`.
        starts: Where each picture's views start, and where the last one's end, `[pictures + 1]`.
    """

    patches: NDArray[np.float16]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> NDArray[np.float16]:
        """Patches of a picture, `[views, patches, vision_dim]`."""
        return self.patches[self.starts[number] : self.starts[number + 1]]


class Pictures(Dataset[Any]):
    """A map from a number to a scene of the training split; families have their shares of the numbers.

    Different numbers are different scenes, so a stage that goes through them once sees each once.

    A map, not a stream: an interrupted run resumes at any place without drawing what came before.

    Args:
        families: Families of the rendered world, each with its share.
        length: Number of pictures.
        image: How pictures become views.
        patches: What a frozen tower makes of each picture, computed before; the views are then not cut.
    """

    def __init__(
        self,
        families: dict[str, float],
        length: int,
        image: ImageConfig,
        patches: StoredPatches | None = None,
    ) -> None:
        self.shares = scenes.Shares(families)
        self.length = length
        self.image = image
        self.patches = patches

    def __len__(self) -> int:
        """Number of pictures."""
        return self.length

    def scene(self, number: int) -> scenes.Scene:
        """Render the scene of a number."""
        family, index = self.shares.place(number)
        return scenes.render(family, "train", index)

    def views(self, number: int, scene: scenes.Scene) -> NDArray[Any]:
        """Views of a picture, uint8 `[views, 3, side, side]`, or its patches where there are any."""
        if self.patches is not None:
            return self.patches[number]
        return to_views(Image.fromarray(scene.image), self.image)


def question_types(families: Iterable[str]) -> frozenset[str]:
    """The types of the questions that some families ask; raises DataError for an unknown family."""
    return frozenset().union(*map(_question_types, families))


@cache
def _question_types(family: str) -> frozenset[str]:
    sketches = (scenes.sketch(family, "train", index) for index in range(SCENES_ASKED))
    return frozenset(question.type for sketch in sketches for question in sketch.questions)
