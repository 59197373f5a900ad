"""A bill of a recipe before anything runs: what every stage holds in memory, and what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.bench.exercises import Exercise, own_batch
from saccade.bench.feeds import LEAST_TEXT
from saccade.bench.plan import configuration
from saccade.bench.traced import StepCost, loss_at_end, trace_step
from saccade.config import ImageConfig, SaccadeConfig
from saccade.data.mixtures import listing
from saccade.data.sources import Source, open_rows
from saccade.errors import ConfigError, DataError
from saccade.image import num_views
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.train.lora import add_adapters
from saccade.train.patches import PatchPretraining
from saccade.train.processes import check_sharding, split
from saccade.train.stages import Recipe, Stage
from saccade.train.tasks import Listed, Patches, Preferences, Problems, Questions, RowTask, Tuning
from saccade.train.trainer import assign_groups

FLOAT32 = 4
STATES = 2  # that AdamW keeps of a parameter
HOUR = 3600


@dataclass(frozen=True)
class Run:
    """How a recipe would be run.

    Attributes:
        picture: Width and height of a picture.
        text_tokens: Tokens of a round that are neither visual nor query tokens.
        processes: That share the work.
        sharded: Whether they share the weights, gradients and states too.
        dtype: Of matrix products; weights are float32.
        rate: FLOPs that a process computes in a second; None where it is not known.
    """

    picture: tuple[int, int]
    text_tokens: int
    processes: int = 1
    sharded: bool = False
    dtype: torch.dtype = torch.bfloat16
    rate: float | None = None


def plan_recipe(recipe: Recipe, run: Run, on_stage: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Plan a recipe.

    Args:
        recipe: What is trained.
        run: How.
        on_stage: Called after each stage; one of a large model takes seconds.

    Returns:
        Plain JSON types: the fields of the run, and `stages`, each with parameters, bytes of a process by kind, with
        and without activations computed again, tokens and FLOPs of a step, steps (None where nobody knows how many rows
        there are), and the FLOPs and hours of all of them.

    Raises:
        ConfigError: when a step, or the weights, cannot be divided among the processes, the text is too short, or a
            group names nothing.
    """
    if run.text_tokens < LEAST_TEXT:
        raise ConfigError(f"{run.text_tokens} text tokens are too few for a prompt: take {LEAST_TEXT} or more")
    if run.sharded and run.processes == 1:
        raise ConfigError("--sharded divides the weights among processes, but there is one: say --processes too")
    config = configuration(recipe.base) if recipe.preset is None and recipe.base else preset(str(recipe.preset))
    stages = []
    known: dict[str, StepCost] = {}
    for stage in recipe.stages:
        config.image = ImageConfig(**config.image.model_dump() | stage.image)
        stages.append(_stage(stage, config, run, Path(recipe.data), known))
        on_stage()
    return {
        "recipe": recipe.name,
        "picture": list(run.picture),
        "text_tokens": run.text_tokens,
        "processes": run.processes,
        "sharded": run.sharded,
        "dtype": str(run.dtype).removeprefix("torch."),
        "rate": run.rate,
        "stages": stages,
    }


def _stage(stage: Stage, config: SaccadeConfig, run: Run, data: Path, known: dict[str, StepCost]) -> dict[str, Any]:
    part = split(stage, run.processes)
    if run.sharded:
        check_sharding(stage)
    views = num_views(*run.picture, config.image)
    exercise, pictures = exercise_of(stage, part.at_once, run.text_tokens, config, views)
    ways = {}
    for again in (False, True):
        key = (
            f"{exercise} {views} {pictures} {again} {[(group.pattern, group.lora) for group in stage.groups]} {config}"
        )
        if key not in known:  # stages often differ in their data alone
            known[key] = cost_of(stage, config, exercise, views, pictures, checkpointing=again, dtype=run.dtype)
        ways[again] = known[key]
    cost = ways[stage.checkpointing]
    share = run.processes if run.sharded else 1
    bytes_ = {
        "weights": cost.parameters * FLOAT32 // share,
        "gradients": cost.trained * FLOAT32 // share,
        "optimizer": cost.trained * STATES * FLOAT32 // share,
    }
    if isinstance(stage.task, Preferences | Problems):  # what is not trained is shared with the model
        bytes_["reference"] = cost.trained * FLOAT32
    # The optimizer's step holds one more number of every trained parameter for a moment, when activations are gone.
    least = cost.trained * FLOAT32 // share
    totals = {again: sum(bytes_.values()) + max(way.activation_bytes, least) for again, way in ways.items()}
    steps = steps_of(stage, data)
    flops = cost.flops * part.accumulated * run.processes
    row = exercise.rounds * exercise.text_tokens + _visual(config, exercise, views)
    patches = isinstance(stage.task, Patches)
    total = None if steps is None else flops * steps
    hours = None if total is None or run.rate is None else total / (run.rate * run.processes) / HOUR
    return {
        "name": stage.name,
        "task": stage.task.kind,
        "parameters": cost.parameters,
        "trained": cost.trained,
        "at_once": part.at_once,
        "accumulated": part.accumulated,
        "checkpointing": stage.checkpointing,
        "bytes": bytes_,
        "activation_bytes": {"kept": ways[False].activation_bytes, "computed again": ways[True].activation_bytes},
        "bytes_at_most": {"kept": totals[False], "computed again": totals[True]},
        "tokens_per_step": 0 if patches else exercise.rows * row * part.accumulated * run.processes,
        "flops_per_step": flops,
        "steps": steps,
        "flops": total,
        "hours": hours,
    }


def exercise_of(
    stage: Stage, at_once: int, text_tokens: int, config: SaccadeConfig, views: int
) -> tuple[Exercise, int]:
    """Return the rows that a process takes at once for so many items of a stage, and how many pictures they show."""
    task = stage.task
    if isinstance(task, Questions):
        return Exercise(task.kind, at_once * math.ceil(task.questions / task.turns), task.turns, text_tokens), at_once
    if isinstance(task, Preferences):  # the better answer and the worse one
        return Exercise(task.kind, 2 * at_once, 1, text_tokens), 2 * at_once
    if isinstance(task, Problems):  # all answers to a problem, which share its picture
        return Exercise(task.kind, task.generations * at_once, 1, text_tokens), at_once
    if isinstance(task, Tuning) and task.order == "packed":
        row = Exercise(task.kind, 1, 1, 0)
        return Exercise(task.kind, at_once, 1, task.max_length - _visual(config, row, views)), at_once
    return Exercise(task.kind, at_once, 1, text_tokens), at_once


def cost_of(
    stage: Stage,
    config: SaccadeConfig,
    exercise: Exercise,
    views: int,
    pictures: int,
    *,
    checkpointing: bool,
    dtype: torch.dtype,
) -> StepCost:
    """Trace what a process takes at once of a stage; see `trace_step`."""
    patches = isinstance(stage.task, Patches)
    batch = own_batch(config, exercise, views, pictures)
    loss = partial(_patch_loss if patches else _row_loss, batch=batch, tokens=exercise.trained_tokens)
    prepare = partial(_prepare, stage=stage, patches=patches)
    return trace_step(config, prepare, loss, checkpointing=checkpointing, dtype=dtype)


def steps_of(stage: Stage, data: Path) -> int | None:
    """Return a stage's optimizer steps; None where they depend on rows that nobody has counted."""
    if stage.steps is not None:
        return stage.steps
    assert isinstance(stage.task, RowTask)
    assert stage.epochs is not None
    if isinstance(stage.task, Tuning) and stage.task.order == "packed":
        return None
    counts = [_rows(one, data) for one in stage.task.data]
    known = [count for count in counts if count is not None]
    return stage.steps_for(stage.rows_shown(sum(known))) if len(known) == len(counts) else None


def _rows(one: Any, data: Path) -> int | None:
    if isinstance(one, Source):
        try:
            return len(open_rows(one))
        except DataError:
            return None
    if isinstance(one, Listed):
        counts = [entry.rows for entry in listing(one.mixture).choose(one.only)]
        return None if None in counts else sum(count for count in counts if count is not None)
    return int(one.rows)


def _visual(config: SaccadeConfig, exercise: Exercise, views: int) -> int:
    queries = 0 if config.query is None else config.query.num_queries
    return views * config.tokens_per_view + exercise.rounds * queries


def _prepare(model: SaccadeForConditionalGeneration, *, stage: Stage, patches: bool) -> nn.Module:
    add_adapters(model, stage.groups)
    module: nn.Module = PatchPretraining(model.model) if patches else model
    assign_groups(module, stage.groups)
    return module


def _row_loss(model: Any, without_content: Any, *, batch: dict[str, Any], tokens: int) -> Tensor:
    return loss_at_end(model, without_content(batch), tokens)


def _patch_loss(module: Any, without_content: Any, *, batch: dict[str, Any], tokens: int) -> Tensor:
    patches = module.encode(without_content(batch["pixel_values"]))
    return torch.stack([head(patches).float().logsumexp(-1).mean() for head in module.heads.values()]).sum()
