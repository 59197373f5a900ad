"""The one training loop: transformers' Trainer, with a learning rate for each group of parameters."""

import re
from typing import Any

import torch
from torch import nn

from saccade.errors import ConfigError
from saccade.train.lora import is_adapter, plain_name
from saccade.train.sharding import ShardingTrainer
from saccade.train.stages import Group, Stage


def assign_groups(model: nn.Module, groups: tuple[Group, ...]) -> list[list[tuple[str, nn.Parameter]]]:
    """Freeze what no group names, and return each group's trained parameters by name.

    Of a group with adapters, which are in the model already, only they are trained. An adapter belongs to the group of
    the weight it stands beside.

    Raises:
        ConfigError: when a group names no parameter, or two groups name the same one.
    """
    members: list[list[tuple[str, nn.Parameter]]] = [[] for _ in groups]
    for name, parameter in model.named_parameters():
        hits = [index for index, group in enumerate(groups) if re.search(group.pattern, plain_name(name))]
        if len(hits) > 1:
            patterns = ", ".join(repr(groups[index].pattern) for index in hits)
            raise ConfigError(
                f"parameter {name} belongs to {len(hits)} groups ({patterns}): make the patterns disjoint"
            )
        trained = bool(hits) and (groups[hits[0]].lora is None or is_adapter(name))
        parameter.requires_grad_(trained)
        if trained:
            members[hits[0]].append((name, parameter))
    for group, found in zip(groups, members, strict=True):
        if not found:
            raise ConfigError(f"group {group.pattern!r} names no parameter of the model: correct the pattern")
    return members


def build_optimizer(stage: Stage, members: list[list[tuple[str, nn.Parameter]]]) -> torch.optim.Optimizer:
    """Build AdamW with one learning rate per group; vectors (norms, biases) do not decay."""
    parts = []
    for group, found in zip(stage.groups, members, strict=True):
        for decays in (True, False):
            chosen = [parameter for _, parameter in found if (parameter.ndim > 1) == decays]
            decay = stage.weight_decay if decays else 0.0
            if chosen:
                parts.append({"params": chosen, "lr": group.lr, "weight_decay": decay})
    return torch.optim.AdamW(parts, betas=stage.betas)


class StageTrainer(ShardingTrainer):
    """Trainer of one stage: AdamW over the stage's groups."""

    def __init__(self, model: nn.Module, stage: Stage, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.stage = stage
        self.members = assign_groups(self.learner, stage.groups)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of the stage's groups."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.stage, self.members)
        return self.optimizer
