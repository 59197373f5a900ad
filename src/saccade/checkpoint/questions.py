"""What the files of a release do not say: each question has several readings, and the right one reads pictures best.

A reading is a change of the configuration. The loss of known answers about pictures with text is compared between the
readings, with the same weights; nothing else about a model can tell them apart. A picture that all readings show to the
same model in the same way says nothing, and is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saccade.checkpoint.files import listed
from saccade.checkpoint.quiet import quiet
from saccade.checkpoint.samples import Sample, asked, model_inputs
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError
from saccade.image.processor import SaccadeProcessor, build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt.encode import end_token_id
from saccade.roles import TEXT

Progress = Callable[[int, int], None]

UNDECIDED = "undecided: needs pictures with text (saccade doctor --pictures 16)"
_INPUTS = ("image", "prompt")  # parts of a configuration that decide what a model is given, not what it is
_CLEAR = 0.05  # nats per token that a reading has to be better by
_SURE = 3.0  # and standard errors of that difference


@dataclass(frozen=True)
class Question:
    """One thing that the files do not say.

    Attributes:
        name: What it is about.
        readings: By name, the fields of the configuration that each reading sets, in their parts.
    """

    name: str
    readings: Mapping[str, Mapping[str, Any]]


def answer(
    question: Question,
    model: SaccadeForConditionalGeneration,
    processor: SaccadeProcessor,
    samples: Sequence[Sample],
    progress: Progress | None = None,
) -> tuple[bool | None, str]:
    """Return whether the model's own reading is the best one, None where that stays open, and what was found.

    Args:
        question: What is asked.
        model: The model as it was loaded.
        processor: Its processor.
        samples: Pictures with text; with fewer than two nothing can be decided.
        progress: Told how many samples of how many are read.

    Raises:
        CheckpointError: when the model's configuration is none of the readings, or lacks a tensor that one needs.
    """
    configs = {name: _changed(model.config, change) for name, change in question.readings.items()}
    own = next((name for name, config in configs.items() if config.definition() == model.config.definition()), None)
    if own is None:
        raise CheckpointError(f"the model reads it in none of the known ways ({', '.join(configs)}): set one of them")
    if len(samples) < 2:
        return None, f"{own}; {UNDECIDED}"
    shown, samples = len(samples), _telling(configs, processor, samples)
    if len(samples) < 2:
        return (
            None,
            f"{own}; undecided: {'only one' if samples else 'no'} picture of {shown} tells these readings apart",
        )
    losses: dict[str, list[float]] = {name: [] for name in configs}
    for number, (name, config) in enumerate(configs.items()):
        reader = model if name == own else _with_weights_of(model, config)
        words = processor if name == own else build_processor(config, processor.tokenizer)
        for done, sample in enumerate(samples, 1):
            with torch.inference_mode():
                losses[name].append(float(loss(reader, words, sample)))
            if progress is not None:
                progress(number * len(samples) + done, len(configs) * len(samples))
    return _verdict(own, losses)


def loss(model: SaccadeForConditionalGeneration, processor: SaccadeProcessor, sample: Sample) -> Tensor:
    """Return the mean loss of the known answer and its end, in nats per token, a scalar."""
    tokenizer, prompt = processor.tokenizer, processor.prompt
    inputs = _inputs(processor, sample)
    words = tokenizer(prompt.answer_start + sample.answer, add_special_tokens=False, split_special_tokens=True)
    ids = torch.tensor([[*words["input_ids"], end_token_id(tokenizer, prompt)]])
    added = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.full_like(ids, TEXT)}
    inputs |= {name: torch.cat([inputs[name], tail], 1) for name, tail in added.items()}
    forward: Any = model
    logits: Tensor = forward(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()}, logits_to_keep=ids.shape[1] + 1
    ).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1].float().cpu(), ids[0])


def _telling(
    configs: Mapping[str, SaccadeConfig], processor: SaccadeProcessor, samples: Sequence[Sample]
) -> Sequence[Sample]:
    """Return the samples that the readings show differently; all of them where the models differ themselves."""
    first, *others = ({**config.definition(), **dict.fromkeys(_INPUTS)} for config in configs.values())
    if any(other != first for other in others):
        return samples
    processors = [build_processor(config, processor.tokenizer) for config in configs.values()]
    return [sample for sample in samples if _differ([_inputs(one, sample) for one in processors])]


def _differ(inputs: Sequence[Mapping[str, Tensor]]) -> bool:
    first, *others = inputs
    return not all(torch.equal(other[name], tensor) for other in others for name, tensor in first.items())


def _inputs(processor: SaccadeProcessor, sample: Sample) -> dict[str, Tensor]:
    return model_inputs(processor, [[asked(sample.question, sample.picture)]])


def _verdict(own: str, losses: Mapping[str, Sequence[float]]) -> tuple[bool | None, str]:
    """Compare the model's own reading with the best of the others, sample by sample."""
    means = {name: statistics.fmean(values) for name, values in losses.items()}
    said = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    said = f"{said} nats per token on {len(losses[own])} pictures"
    other = min((name for name in means if name != own), key=means.__getitem__)
    differences = [theirs - ours for ours, theirs in zip(losses[own], losses[other], strict=True)]
    gain = statistics.fmean(differences)
    limit = max(_CLEAR, _SURE * statistics.stdev(differences) / math.sqrt(len(differences)))
    if gain >= limit:
        return True, f"{own}: {said}"
    if gain <= -limit:
        return False, f"{other} reads better than {own}, which the configuration has ({said}): change it"
    return None, f"{own}; undecided: {said}, too close to tell"


def _changed(config: SaccadeConfig, change: Mapping[str, Any]) -> SaccadeConfig:
    """Return a configuration with some fields of some of its parts changed."""
    fields = config.to_dict()
    for part, values in change.items():
        fields[part] = {**fields[part], **values}
    return SaccadeConfig(**fields)


def _with_weights_of(model: SaccadeForConditionalGeneration, config: SaccadeConfig) -> SaccadeForConditionalGeneration:
    """Return a model of another configuration with the same weights; those it has no place for are left out."""
    with quiet():
        loaded: Any = SaccadeForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=model.state_dict(), dtype=model.dtype, output_loading_info=True
        )
    built, info = loaded
    if info["missing_keys"]:
        raise CheckpointError(f"a reading needs {listed(sorted(info['missing_keys']))}, which the model has not")
    moved: SaccadeForConditionalGeneration = built.to(model.device)
    return moved
