"""A bill before anything runs: tokens, work, memory, and the least time they can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saccade.bench.ceilings import Ceilings, Shape
from saccade.bench.count import Analysis, Workload
from saccade.bench.rounds import significant
from saccade.checkpoint.files import CONFIG_FILE, first_line, read_json, read_tensors, resolve
from saccade.checkpoint.layouts import find_layout
from saccade.checkpoint.load import LAYOUTS
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, ConfigError, PromptError, SaccadeError
from saccade.image import num_views
from saccade.presets import preset

PRESET = "preset:"
Size = tuple[int, int]


@dataclass(frozen=True)
class Question:
    """What is planned for.

    Attributes:
        picture: Width and height in pixels.
        text_tokens: Tokens of the prompt that are neither visual nor query tokens.
        new_tokens: Tokens of the answer.
        batch: Rows.
    """

    picture: Size
    text_tokens: int
    new_tokens: int
    batch: int = 1


def configuration(model: str) -> SaccadeConfig:
    """Return the configuration of a model without its weights.

    Args:
        model: `preset:NAME`, a model inside the package, a folder, or a hub id.

    Raises:
        ConfigError: when there is no preset of that name.
        CheckpointError: when there is no such checkpoint, its layout is unknown, or its configuration is not usable.
    """
    if model.startswith(PRESET):
        return preset(model.removeprefix(PRESET))
    folder = resolve(model)
    try:
        return _read(folder)
    except SaccadeError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder} has no usable configuration ({first_line(error)}): save it again") from error


def _read(folder: Path) -> SaccadeConfig:
    """Return the configuration of a checkpoint; that of a released one is completed by its tensors' shapes."""
    found = read_json(folder / CONFIG_FILE)
    if found.get("model_type") == SaccadeConfig.model_type:
        config: SaccadeConfig = SaccadeConfig.from_pretrained(folder)
        return config
    tensors = read_tensors(folder)
    layout = find_layout(found, tensors, LAYOUTS, folder)
    if layout is None:
        raise CheckpointError(f"{folder} is no checkpoint of a layout this package knows: convert it first")
    return layout.to_config(found, layout.shapes(tensors))


def make_plan(
    config: SaccadeConfig, questions: Sequence[Question], dtype: torch.dtype, ceilings: Ceilings | None = None
) -> dict[str, Any]:
    """Plan the questions.

    Args:
        config: The model.
        questions: What is asked.
        dtype: Type of weights, cache and activations.
        ceilings: The machine; without it there are no times.

    Returns:
        Plain JSON types: `weights` in bytes by part, `kv_bytes_per_token`, and `questions`, each with its tokens,
        bytes, and `stages` with FLOPs, MACs, bytes read and least seconds.

    Raises:
        ConfigError: for a model whose work is not known in closed form, or ceilings in another dtype.
        ImageError: for a picture without pixels.
        PromptError: when prompt and answer do not fit the decoder's positions.
    """
    name = str(dtype).removeprefix("torch.")
    if ceilings is not None and ceilings.dtype != name:
        raise ConfigError(f"the ceilings were measured in {ceilings.dtype}, the plan is in {name}: make both equal")
    analysis = Analysis(config)
    size = dtype.itemsize
    weights = {part: count * size for part, count in analysis.parameters.items()}
    return {
        "dtype": name,
        "parameters": sum(analysis.parameters.values()),
        "weights": {**weights, "total": sum(weights.values())},
        "kv_bytes_per_token": analysis.kv_elements * size,
        "ceilings": None if ceilings is None else ceilings.to_dict(),
        "questions": [_planned(analysis, question, size, ceilings) for question in questions],
    }


def _planned(analysis: Analysis, question: Question, size: int, ceilings: Ceilings | None) -> dict[str, Any]:
    work = Workload(num_views(*question.picture, analysis.config.image), question.text_tokens, question.batch)
    prompt = analysis.prompt_tokens(work)
    total = prompt + question.new_tokens
    limit = getattr(analysis.config.text_config, "max_position_embeddings", None)
    if limit is not None and total > limit:
        raise PromptError(
            f"a picture of {question.picture[0]} x {question.picture[1]} makes a prompt of {prompt} tokens and its "
            f"answer may take {question.new_tokens}, but the model holds {limit} in all: plan for fewer"
        )
    kv = analysis.kv_elements * size * total * question.batch
    activations = analysis.activations(work) * size
    weights = sum(analysis.parameters.values()) * size
    return {
        "picture": list(question.picture),
        "batch": question.batch,
        "views": work.views,
        "visual_tokens": analysis.visual_tokens(work),
        "query_tokens": analysis.query_tokens,
        "prompt_tokens": prompt,
        "new_tokens": question.new_tokens,
        "kv_bytes": kv,
        "activation_bytes_at_most": activations,
        "bytes_at_most": weights + kv + activations,
        "stages": stages(analysis, work, question.new_tokens, size, ceilings),
    }


def stages(
    analysis: Analysis, work: Workload, new_tokens: int, size: int, ceilings: Ceilings | None
) -> list[dict[str, Any]]:
    """Return the stages of an answer: "first token" is the sum of those before it, "per token" one later step.

    Bytes read are weights, each once, and the cache of a step with half of its answer given; activations stay in
    caches at best.
    """
    held = analysis.parameters
    step = analysis.step_elements
    read = {
        "vision": held["vision tower"],
        "compress": held["compressor"] + held["projector"],
        "embedded query": held["embedded query"],
        "prefill": held["decoder"],
        "head": step - held["decoder"],
    }
    macs = analysis.first_token(work)
    rows = [_stage(name, macs[name], read[name] * size, ceilings) for name in macs if macs[name]]
    least = sum(row["least_seconds"] for row in rows) if ceilings is not None else None
    first = _stage("first token", sum(macs.values()), sum(read.values()) * size, None)
    past = analysis.prompt_tokens(work) + new_tokens // 2
    each = (step + analysis.kv_elements * past * work.batch) * size
    return [*rows, first | {"least_seconds": least}, _stage("per token", analysis.step(work, past), each, ceilings)]


def _stage(name: str, macs: int, read: int, ceilings: Ceilings | None) -> dict[str, Any]:
    least = None if ceilings is None else significant(ceilings.least_seconds(2 * macs, read))
    return {"name": name, "macs": macs, "flops": 2 * macs, "bytes_read": read, "least_seconds": least}


def shapes_of(config: SaccadeConfig, work: Workload) -> dict[str, Shape]:
    """Return the products that decide a model's speed: the inner layer of tower and decoder, and that of one step."""
    analysis_tokens = work.text_tokens + work.views * config.tokens_per_view
    tower, text = config.vision_config, config.text_config
    patches = work.views * work.batch * config.patches_per_view
    return {
        "vision": (patches, int(tower.hidden_size), int(tower.intermediate_size)),
        "prefill": (work.batch * analysis_tokens, int(text.hidden_size), int(text.intermediate_size)),
        "per token": (work.batch, int(text.hidden_size), int(text.intermediate_size)),
    }
