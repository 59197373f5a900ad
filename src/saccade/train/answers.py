"""Stages that compare answers, given or the model's own: trl's trainers."""

from typing import Any

from saccade.errors import ConfigError
from saccade.train.stages import Stage
from saccade.train.tasks import Preferences


def answer_trainer(stage: Stage) -> Any:
    """Return the class of the trainer of a stage of preferences or problems.

    Raises:
        ConfigError: when trl is not installed.
    """
    try:
        from saccade.train.preferences import PreferenceTrainer
        from saccade.train.problems import ProblemTrainer
    except ModuleNotFoundError as error:
        library = (error.name or "trl").partition(".")[0]
        raise ConfigError(
            f"stage {stage.name} ({stage.task.kind}) needs the library {library}: pip install 'saccade[train]'"
        ) from error
    return PreferenceTrainer if isinstance(stage.task, Preferences) else ProblemTrainer
