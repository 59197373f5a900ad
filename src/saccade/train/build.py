"""What a stage trains, on which data, collated how."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from saccade.config import ImageConfig
from saccade.data.encoder import Encoder
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.patches import PatchDataset, PatchPretraining, collate_patches
from saccade.train.questions import CaptionDataset, QuestionDataset
from saccade.train.rows import Checked
from saccade.train.stages import Stage
from saccade.train.tasks import Captions, Patches, Questions, Tuning
from saccade.train.tuning import TuningDataset, collator
from saccade.train.world import StoredPatches, question_types


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the training loop is given.

    Attributes:
        module: What is trained: called with a batch it returns a loss.
        dataset: Items by number; a stage goes through them in the order of the numbers that the seed draws.
        collate: Makes a batch of items.
        steps: Optimizer steps that go once through the data; None where the stage says it.
    """

    module: nn.Module
    dataset: Dataset[Any]
    collate: Callable[[list[Any]], dict[str, Any]]
    steps: int | None = None


def build_lesson(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    patches: StoredPatches | None = None,
) -> Lesson:
    """Prepare a stage of the rendered world.

    Args:
        model: What learns.
        tokenizer: Its tokenizer.
        stage: What it learns.
        patches: What the frozen tower makes of the stage's pictures, where they were computed before.

    Raises:
        ConfigError: when the stage does not fit the questions of its families, the way pictures become views, or the
            patches.
    """
    task, config = stage.task, model.config
    length = (stage.steps or 0) * stage.batch
    if patches is not None and (isinstance(task, Patches) or len(patches) < length):
        raise ConfigError(
            f"{len(patches)} pictures were encoded before, but stage {stage.name} ({task.kind}) shows {length}: "
            "encode them all, and leave them out where the tower is trained"
        )
    if isinstance(task, Patches):
        _check_labels_fit(stage, config.image)
        labelled = PatchDataset(task.families, length, config.image, grid=config.grid)
        return Lesson(PatchPretraining(model.model), labelled, partial(collate_patches, config))
    if not isinstance(task, Captions | Questions):
        raise ConfigError(f"stage {stage.name} ({task.kind}) does not draw its data from the rendered world")
    encoder = Encoder(config, tokenizer)
    shared: dict[str, Any] = {
        "families": task.families,
        "length": length,
        "image": config.image,
        "patches": patches,
        "encoder": encoder,
    }
    if isinstance(task, Captions):
        return Lesson(model, CaptionDataset(**shared), encoder.collate)
    _check_emphasis(stage.name, task)
    return Lesson(model, QuestionDataset(**shared, task=task), encoder.collate)


def build_tuning(
    model: SaccadeForConditionalGeneration, stage: Stage, checked: Checked, encoder: Encoder, seed: int
) -> Lesson:
    """Prepare a stage of rows that were checked; the seed shuffles steps of rows of one length."""
    assert isinstance(stage.task, Tuning)
    rows = TuningDataset(checked, encoder, stage, seed)
    return Lesson(model, rows, collator(encoder, stage.task), rows.steps)


def _check_emphasis(name: str, task: Questions) -> None:
    """Raise ConfigError where a type of question is emphasized that no family asks."""
    asked = question_types(task.families) if task.emphasis else frozenset()
    unknown = task.emphasis.keys() - asked
    if unknown:
        raise ConfigError(
            f"stage {name} emphasizes {', '.join(sorted(unknown))}, but its families ask only for "
            f"{', '.join(sorted(asked))}: name types among these"
        )


def _check_labels_fit(stage: Stage, image: ImageConfig) -> None:
    """Raise ConfigError where a view is not the whole picture squashed to a square, which patch labels divide."""
    meant = {"layout": "single", "fit": "squash", "margin": 0}
    wrong = [f"image.{name} {getattr(image, name)!r}" for name, value in meant.items() if getattr(image, name) != value]
    if wrong:
        raise ConfigError(
            f"stage {stage.name} labels the patches of one view that the whole picture fills, not with "
            f"{', '.join(wrong)}: train the tower with the single layout, fit 'squash' and margin 0 first"
        )
