"""The one training loop: transformers' Trainer, with a learning rate for each group of parameters."""

import re
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from saccade.errors import ConfigError
from saccade.train.stages import Group, Stage


def assign_groups(model: nn.Module, groups: tuple[Group, ...]) -> list[list[tuple[str, nn.Parameter]]]:
    """Freeze what no group names, and return each group's parameters by name.

    Raises:
        ConfigError: when a group names no parameter, or two groups name the same one.
    """
    members: list[list[tuple[str, nn.Parameter]]] = [[] for _ in groups]
    for name, parameter in model.named_parameters():
        hits = [index for index, group in enumerate(groups) if re.search(group.pattern, name)]
        if len(hits) > 1:
            patterns = ", ".join(repr(groups[index].pattern) for index in hits)
            raise ConfigError(
                f"parameter {name} belongs to {len(hits)} groups ({patterns}): make the patterns disjoint"
            )
        parameter.requires_grad_(bool(hits))
        if hits:
            members[hits[0]].append((name, parameter))
    for group, found in zip(groups, members, strict=True):
        if not found:
            raise ConfigError(f"group {group.pattern!r} names no parameter of the model: correct the pattern")
    return members


class StageTrainer(Trainer):
    """Trainer of one stage: AdamW over the stage's groups."""

    def __init__(self, model: nn.Module, stage: Stage, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.stage = stage
        self.members = assign_groups(model, stage.groups)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build AdamW with one learning rate per group; vectors (norms, biases) do not decay."""
        if self.optimizer is None:
            parts = []
            for group, members in zip(self.stage.groups, self.members, strict=True):
                for decays in (True, False):
                    chosen = [parameter for _, parameter in members if (parameter.ndim > 1) == decays]
                    decay = self.stage.weight_decay if decays else 0.0
                    if chosen:
                        parts.append({"params": chosen, "lr": group.lr, "weight_decay": decay})
            self.optimizer = torch.optim.AdamW(parts, betas=self.stage.betas)
        return self.optimizer
