"""What trl's trainers lack: our groups of parameters, a model to compare with, and leaving the model as it was lent."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.stages import Stage
from saccade.train.trainer import assign_groups, build_optimizer


class ComparingTrainer(Trainer):
    """Goes before a trainer of trl's in the bases of a class, which calls `borrow` before it constructs trl's."""

    def borrow(self, model: SaccadeForConditionalGeneration, stage: Stage) -> SaccadeForConditionalGeneration:
        """Note what is trained and what is to be given back, and return a model that stays as this one is now.

        Raises:
            ConfigError: when the groups do not fit the model, or its output head has adapters.
        """
        self.stage, self.members = stage, assign_groups(model, stage.groups)
        self.rates = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
        return frozen_copy(model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of the stage's groups."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.stage, self.members)
        return self.optimizer

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card beside the checkpoints: a run describes itself."""

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, and take back the forward that trl gave the model and the dropout that it took from it."""
        try:
            return super().train(*args, **kwargs)
        finally:
            vars(self.model).pop("forward", None)
            for module, rate in self.rates.items():
                module.p = rate


def frozen_copy(model: SaccadeForConditionalGeneration) -> SaccadeForConditionalGeneration:
    """Copy a model as it is before a stage; parameters that the stage does not train are shared, not copied.

    Beside adapters (LoRA) the copy therefore costs next to nothing; a module that is trained has a copy of its own.

    Raises:
        ConfigError: when the output head has adapters: trl reads the weight of the head alone.
    """
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise ConfigError(
            "adapters of lm_head would not be trained by this stage: leave it out of the groups with LoRA"
        )
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    copy: SaccadeForConditionalGeneration = deepcopy(model, shared)
    # Libraries put a forward of their own beside the class's; a copy of that would run the model it was made for.
    vars(copy).pop("forward", None)
    copy.requires_grad_(False)
    copy.eval()
    return copy


def numbers(column: str, count: int) -> Dataset:
    """Return the data set that trl is given: numbers of rows, which are opened when a step needs them."""
    return Dataset.from_dict({column: np.arange(count)})
