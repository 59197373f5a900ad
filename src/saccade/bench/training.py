"""What a training step takes: memory and samples per second of pretraining and tuning, ours and the peers'.

After FlashSloth's Figure 3: 32 rows of a caption in a step of pretraining, 8 conversations in one of tuning, on one
device. Weights and optimizer are float32, products bfloat16 on an accelerator, activations are computed again, and all
models get the same loss, which needs no logits but those of trained tokens.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from saccade.bench.exercises import Exercise, fed_batch
from saccade.bench.feeds import OwnFeed
from saccade.bench.memory import free_bytes, peak_memory
from saccade.bench.peers import peer
from saccade.bench.plan import PRESET, configuration
from saccade.bench.rounds import spread
from saccade.bench.skeleton import random_model
from saccade.bench.subjects import Feed
from saccade.bench.tasks import picture
from saccade.bench.traced import StepCost, Watch, compute_again, loss_at_end, trace_step
from saccade.train.stages import Group
from saccade.train.trainer import assign_groups
from saccade.vlm.answers import Stopwatch

ADAPTER = "compressor|multi_modal_projector"
ALL_BUT_TOWER = f"{ADAPTER}|language_model|lm_head|embedded_query"
# Words of a caption of LLaVA's pretraining split, and our reading of its conversations: five rounds of a sentence each.
PRETRAINING = Exercise("pretraining", rows=32, rounds=1, text_tokens=48)
TUNING = Exercise("tuning", rows=8, rounds=5, text_tokens=48)
# This family's pretraining trains the decoder along with the projector.
DECODER_ALWAYS = ("mobilevlm-v2-1.7b", "mobilevlm-v2-3b")
PHOTO = (640, 480)
WARM_UP = 2  # the optimizer's state is there from the second step on
FLOAT32 = 4
STATES = 3  # numbers beside every trained one: its gradient and what AdamW keeps


@dataclass(frozen=True)
class Steps:
    """How steps are measured.

    Attributes:
        rounds: Steps that count, after `WARM_UP` that do not.
        seed: Of pictures and random weights.
        quick: Whether a batch has a quarter of its rows.
    """

    rounds: int = 5
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class Learner:
    """What is measured.

    Attributes:
        name: What it is called in tables.
        config: Its configuration.
        feed: Makes its inputs.
        pretrained: Pattern of the parameters that pretraining trains.
    """

    name: str
    config: PreTrainedConfig
    feed: Feed
    pretrained: str

    def groups(self, exercise: Exercise) -> tuple[Group, ...]:
        """Return what an exercise trains."""
        return (Group(pattern=self.pretrained if exercise is PRETRAINING else ALL_BUT_TOWER, lr=1e-5),)


def learners(models: Sequence[str], peers: Sequence[str], *, small: bool = False) -> list[Learner]:
    """Return models as `configuration` names them, and peers; `small` means the peers' small copies.

    Raises:
        ConfigError: for an unknown name.
    """
    found = []
    for name in models:
        config = configuration(name)
        found.append(Learner(name.removeprefix(PRESET), config, OwnFeed(config), ADAPTER))
    for name in peers:
        known = peer(name)
        theirs = known.configuration(small=small)
        pattern = ALL_BUT_TOWER if name in DECODER_ALWAYS else ADAPTER
        found.append(Learner(name, theirs, known.feed(theirs), pattern))
    return found


def measure_training(
    found: Sequence[Learner], device: torch.device, dtype: torch.dtype, steps: Steps, on_step: Callable[[], object]
) -> list[dict[str, Any]]:
    """Measure steps of every learner, one after the other.

    Args:
        found: The learners.
        device: Where they learn.
        dtype: What matrix products compute in.
        steps: How it is measured.
        on_step: Called after each of `steps_of(found, steps)` steps.

    Returns:
        A row for each learner and exercise, plain JSON types: `trained` parameters, `tokens` of a row, `planned_bytes`,
        `flops` of a step, and of what fits `memory_bytes` (None where the system does not tell) and the spreads of
        `seconds` and `samples_per_second`; of what does not fit, those are None.
    """
    rows = []
    for learner in found:
        for exercise in (PRETRAINING, TUNING):
            rows.append(_measured(learner, exercise, device, dtype, steps, on_step))
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return rows


def steps_of(found: Sequence[Learner], steps: Steps) -> int:
    """Count the calls of `on_step`, for a progress bar."""
    return 2 * len(found) * (steps.rounds + WARM_UP)


def _measured(
    learner: Learner,
    exercise: Exercise,
    device: torch.device,
    dtype: torch.dtype,
    steps: Steps,
    on_step: Callable[[], object],
) -> dict[str, Any]:
    groups = learner.groups(exercise)
    if steps.quick:
        exercise = Exercise(exercise.name, exercise.rows // 4, exercise.rounds, exercise.text_tokens)
    shown = picture(*PHOTO, steps.seed)
    batch = partial(fed_batch, learner.feed, learner.config, exercise, shown)
    inputs = batch(torch.device("cpu"))
    cost = _cost(learner, groups, inputs, exercise, dtype)
    planned = (cost.parameters + STATES * cost.trained) * FLOAT32 + max(cost.activation_bytes, cost.trained * FLOAT32)
    row: dict[str, Any] = {
        "subject": learner.name,
        "exercise": exercise.name,
        "rows": exercise.rows,
        "tokens": int(inputs["input_ids"].shape[1]),
        "parameters": cost.parameters,
        "trained": cost.trained,
        "flops": cost.flops,
        "planned_bytes": planned,
        "memory_bytes": None,
        "seconds": None,
        "samples_per_second": None,
    }
    if planned > free_bytes(device):
        for _ in range(steps.rounds + WARM_UP):
            on_step()
        return row
    model = random_model(learner.config, device, torch.float32, steps.seed).train()
    assign_groups(model, groups)
    compute_again(model)
    seconds, working = _timed(model, batch(device), exercise, dtype, steps.rounds, on_step)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return row | {
        "memory_bytes": None if working is None else weights + working,
        "seconds": spread(seconds).to_dict(),
        "samples_per_second": spread([exercise.rows / one for one in seconds]).to_dict(),
    }


def _cost(
    learner: Learner, groups: tuple[Group, ...], inputs: dict[str, Any], exercise: Exercise, dtype: torch.dtype
) -> StepCost:
    def prepare(model: nn.Module) -> nn.Module:
        assign_groups(model, groups)
        return model

    def loss(model: Any, without_content: Any) -> Tensor:
        return loss_at_end(model, without_content(inputs), exercise.trained_tokens)

    return trace_step(learner.config, prepare, loss, checkpointing=True, dtype=dtype)


def _timed(
    model: Any,
    inputs: dict[str, Any],
    exercise: Exercise,
    dtype: torch.dtype,
    rounds: int,
    on_step: Callable[[], object],
) -> tuple[list[float], int | None]:
    """Return the seconds of the steps that count, and the most memory taken beside the weights."""
    device, stopwatch = model.device, Stopwatch(model.device)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-5)

    def step() -> float:
        start = stopwatch.now()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_at_end(model, inputs, exercise.trained_tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = stopwatch.now() - start
        on_step()
        return seconds

    if device.type == "cuda":
        with peak_memory(device) as peak:
            seconds = [step() for _ in range(WARM_UP + rounds)]
        return seconds[WARM_UP:], peak.working
    with Watch() as watch:  # a processor's allocator hands out again what earlier models left, unseen
        for _ in range(WARM_UP):
            step()
    return [step() for _ in range(rounds)], watch.peak
