"""The processes that share a run: what each takes of a step, and whether they can."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState

from saccade.errors import ConfigError
from saccade.train.stages import Stage


@dataclass(frozen=True)
class Split:
    """How an optimizer step is divided.

    Attributes:
        at_once: Items that a process takes through the model together.
        accumulated: How often it does so before the optimizer's step.
    """

    at_once: int
    accumulated: int


def join_processes(stages: Sequence[Stage]) -> PartialState:
    """Return the processes that share the steps of some stages.

    Raises:
        ConfigError: when they cannot divide a step, or one process sees several GPUs.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    if processes.num_processes == 1 and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"one process sees {torch.cuda.device_count()} GPUs: start one process for each with torchrun, or name "
            "one GPU in CUDA_VISIBLE_DEVICES"
        )
    for stage in stages:
        split(stage, processes.num_processes)
    return processes


def split(stage: Stage, processes: int) -> Split:
    """Divide a stage's steps among processes.

    Raises:
        ConfigError: when they cannot be divided.
    """
    share, rest = divmod(stage.batch, processes)
    at_once = stage.micro_batch or share
    if rest or share % at_once:
        parts = "" if stage.micro_batch is None else f" in parts of {at_once}"
        raise ConfigError(
            f"stage {stage.name} has {stage.batch} pictures or rows in a step, which {processes} processes cannot "
            f"divide{parts}: start another number of processes"
        )
    return Split(at_once, share // at_once)
