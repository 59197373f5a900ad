"""Stages that compare answers, given or the model's own: trl's trainers on the rows of the stage."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

from saccade.data.encoder import Encoder
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.rows import open_checked
from saccade.train.stages import Stage
from saccade.train.tasks import Preferences, Problems


def answer_trainer(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    notes: Path,
    settings: Callable[[Stage], dict[str, Any]],
    callbacks: list[TrainerCallback],
    *,
    data: Path,
    seed: int,
    workers: int = 0,
    skip_bad: bool = False,
) -> Trainer:
    """Return the trainer of a stage of preferences or problems.

    Args:
        model: What learns, adapters included.
        tokenizer: Its tokenizer.
        stage: What it learns.
        notes: Folder that keeps what the check of the rows found.
        settings: Makes transformers' arguments of a stage whose steps are counted.
        callbacks: See the Trainer.
        data: Folder that mixtures were fetched to.
        seed: Draws the order of the rows.
        workers: Processes that help to check them.
        skip_bad: Leave bad rows out instead of stopping.

    Raises:
        ConfigError: when trl is not installed, or the stage does not fit the model.
        DataError: when rows are missing or bad.
    """
    try:
        from saccade.train.preferences import PreferenceTrainer
        from saccade.train.problems import ProblemTrainer
    except ModuleNotFoundError as error:
        library = (error.name or "trl").partition(".")[0]
        raise ConfigError(
            f"stage {stage.name} ({stage.task.kind}) needs the library {library}: pip install 'saccade[train]'"
        ) from error
    assert isinstance(stage.task, Preferences | Problems)
    encoder = Encoder(model.config, tokenizer)
    with PartialState().main_process_first():  # the others recall what it found
        checked = open_checked(stage.task, encoder, notes, data=data, seed=seed, workers=workers, skip_bad=skip_bad)
    rows = checked.rows
    steps = stage.steps or math.ceil(max(1, round((stage.epochs or 0) * len(rows))) / stage.batch)
    counted = stage.model_copy(update={"steps": steps})
    kind = PreferenceTrainer if isinstance(stage.task, Preferences) else ProblemTrainer
    trainer: Trainer = kind(model, counted, rows, encoder, settings(counted), callbacks)
    return trainer
