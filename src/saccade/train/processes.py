"""The processes that share a run: what each takes of a step, and whether they can."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState

from saccade.errors import ConfigError
from saccade.train.stages import Stage
from saccade.train.tasks import Patches, Preferences, Problems

# The first process checks rows while the others wait for it: with millions of them longer than torch's ten minutes.
WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class Split:
    """How an optimizer step is divided.

    Attributes:
        at_once: Items that a process takes through the model together.
        accumulated: How often it does so before the optimizer's step.
    """

    at_once: int
    accumulated: int


def join_processes(stages: Sequence[Stage], *, sharded: bool = False, compiled: bool = False) -> PartialState:
    """Return the processes that share the steps of some stages, and with `sharded` the weights too.

    Raises:
        ConfigError: when they cannot divide a step or the weights, one process sees several GPUs, or a launcher was
            told to divide the weights its own way.
    """
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=WAIT)
    if processes.num_processes == 1 and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"one process sees {torch.cuda.device_count()} GPUs: start one process for each with torchrun, or name "
            "one GPU in CUDA_VISIBLE_DEVICES"
        )
    if any(os.environ.get(f"ACCELERATE_USE_{way}") == "true" for way in ("FSDP", "DEEPSPEED")):
        raise ConfigError("accelerate was told to use FSDP or DeepSpeed: launch without, and say --sharded instead")
    if sharded and compiled:
        raise ConfigError("a sharded model is not compiled: leave --sharded or --compile out")
    for stage in stages:
        split(stage, processes.num_processes)
        if sharded:
            if not torch.distributed.is_initialized():
                raise ConfigError(
                    "--sharded divides the weights among processes, but there is one: start several with torchrun"
                )
            check_sharding(stage)
    return processes


def leave_processes() -> None:
    """End what `join_processes` began, once a program needs the other processes no more.

    A program that exits without may be aborted as it does: threads of gloo still hold tensors then, which Python frees.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_sharding(stage: Stage) -> None:
    """Raise ConfigError for a stage whose weights cannot be divided."""
    if isinstance(stage.task, Preferences | Problems):
        raise ConfigError(
            f"stage {stage.name} ({stage.task.kind}) also asks the model as it was before, which is not sharded: leave "
            "--sharded out; adapters (LoRA) keep what the optimizer needs small"
        )


def split(stage: Stage, processes: int) -> Split:
    """Divide a stage's steps among processes.

    Raises:
        ConfigError: when they cannot be divided, or a process would take its share of pictures with labelled patches
            in parts: their loss is a mean over all objects of a step, which a part does not know.
    """
    share, rest = divmod(stage.batch, processes)
    at_once = stage.micro_batch or share
    if rest or share % at_once:
        parts = "" if stage.micro_batch is None else f" in parts of {at_once}"
        raise ConfigError(
            f"stage {stage.name} has {stage.batch} pictures or rows in a step, which {processes} processes cannot "
            f"divide{parts}: start another number of processes"
        )
    if isinstance(stage.task, Patches) and share > at_once:
        raise ConfigError(f"stage {stage.name} ({stage.task.kind}) takes its step at once: leave its micro_batch out")
    return Split(at_once, share // at_once)
