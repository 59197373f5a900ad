"""The rendered world: pictures drawn from a seed, with everything that is true about them.

`render(family, split, index)` is a pure function: the same arguments give the same scene in any order and in any
process. Splits are seeded apart, so no scene of one occurs in another. `shifted` differs from `test` in its shades,
fonts, strokes and wordings.
"""

from saccade.data.scenes.colors import COLORS
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.frozen import fingerprint, frozen_test
from saccade.data.scenes.glyphs import CHARACTERS, DIGITS
from saccade.data.scenes.labels import SPELLED, patch_labels
from saccade.data.scenes.practice_questions import ask_again, ask_to_describe, ask_where
from saccade.data.scenes.scene import SPLITS, VERSIONS, WORLD_VERSION, Question, Scene, SceneObject
from saccade.data.scenes.shapes import SHAPES
from saccade.data.scenes.shares import Shares
from saccade.data.scenes.sheet import contact_sheet
from saccade.data.scenes.small_talk import ask_without_picture
from saccade.data.scenes.wording import about_picture
from saccade.data.scenes.world import ALL_FAMILIES, FAMILIES, families, render, sketch, version_with

__all__ = [
    "ALL_FAMILIES",
    "CHARACTERS",
    "COLORS",
    "DIGITS",
    "FAMILIES",
    "SHAPES",
    "SPELLED",
    "SPLITS",
    "VERSIONS",
    "WORLD_VERSION",
    "Dice",
    "Question",
    "Scene",
    "SceneObject",
    "Shares",
    "about_picture",
    "ask_again",
    "ask_to_describe",
    "ask_where",
    "ask_without_picture",
    "contact_sheet",
    "families",
    "fingerprint",
    "frozen_test",
    "patch_labels",
    "render",
    "sketch",
    "version_with",
]
