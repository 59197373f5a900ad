"""What can be timed: anything that takes pictures and questions and says when each token came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GenerationConfig

from saccade.bench.counted import counter
from saccade.vlm.answers import Stopwatch
from saccade.vlm.streaming import Listener

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Questions ready for a model, all rows of one length.

    Attributes:
        inputs: What the subject answers from; for plain `generate` the keyword arguments of the model, on its device.
        prompt_tokens: Tokens of a row.
        visual_tokens: Visual tokens among them.
        query_tokens: Query tokens among them.
    """

    inputs: Mapping[str, Any]
    prompt_tokens: int
    visual_tokens: int
    query_tokens: int = 0


@dataclass(frozen=True)
class Timeline:
    """When things happened, in seconds since the call.

    Attributes:
        tokens: When each token of the answer came, of all rows at once.
        stages: Seconds inside "vision" and "compress", and of "preprocess" where it belongs to the answer, if they were
            watched.
    """

    tokens: tuple[float, ...]
    stages: Mapping[str, float]

    @property
    def per_token(self) -> float | None:
        """Mean seconds of a token after the first; None for a single token."""
        steps = len(self.tokens) - 1
        return (self.tokens[-1] - self.tokens[0]) / steps if steps else None


@dataclass(frozen=True)
class Weights:
    """Bytes of a model.

    Attributes:
        total: All weights.
        step: Those that one decode step reads: layers, final norm and output head.
    """

    total: int
    step: int


class Subject(Protocol):
    """A model behind one way of running it.

    Attributes:
        name: What it is called in tables.
        way: How it runs, in words.
        weights: Its bytes.
        held: Bytes it keeps on its device beside them, for as long as it lives.
        device: Where it runs.
    """

    name: str
    way: str
    weights: Weights
    held: int
    device: torch.device

    def prepare(self, pictures: Sequence[Pixels], text_tokens: int) -> Prepared:
        """Take decoded pictures of one size `[height, width, 3]`, one a row, and lay out the prompts.

        Their preprocessing is done here or in `generate`; whoever measures adds up both.
        """
        ...

    def generate(self, prepared: Prepared, new_tokens: int, *, watched: bool = False) -> Timeline:
        """Answer with exactly so many tokens; `watched` also times the stages, which makes an accelerator wait."""
        ...

    def count(self, prepared: Prepared) -> int:
        """Count the FLOPs up to the first token by running it."""
        ...


class Feed(Protocol):
    """How decoded pictures and a number of text tokens become a model's inputs."""

    def __call__(
        self, pictures: Sequence[Pixels], text_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> Prepared:
        """Return the inputs; pictures of one call have one size."""
        ...


class Generating:
    """A model of transformers through its own plain `generate`, greedy, never stopping early.

    Args:
        name: What it is called in tables.
        model: The model; its generation configuration is replaced, and its weights are frozen.
        feed: Makes its inputs.

    Attributes:
        model: The model.
    """

    way = "plain generate"
    held = 0

    def __init__(self, name: str, model: Any, feed: Feed) -> None:
        self.name = name
        self.device: torch.device = model.device
        self.weights = weights_of(model)
        self.model = model.requires_grad_(False)  # torch's counter stumbles over views of what has a gradient
        self._feed = feed
        model.generation_config = GenerationConfig()  # or generate would fill what is left open with stop tokens

    def prepare(self, pictures: Sequence[Pixels], text_tokens: int) -> Prepared:
        """See `Subject.prepare`."""
        prepared = self._feed(pictures, text_tokens, self.device, self.model.dtype)
        Stopwatch(self.device).now()  # copies to a device may still be under way
        return prepared

    def generate(self, prepared: Prepared, new_tokens: int, *, watched: bool = False) -> Timeline:
        """See `Subject.generate`."""
        stopwatch = Stopwatch(self.device)
        with stopwatch.watch(stages_of(self.model)) if watched else nullcontext():
            times = greedy(self.model, prepared.inputs, new_tokens, stopwatch)
        return Timeline(times, dict(stopwatch.seconds))

    def count(self, prepared: Prepared) -> int:
        """See `Subject.count`."""
        with counter() as counted:
            self.generate(prepared, 1)
        return int(counted.get_total_flops())


def greedy(
    model: Any,
    inputs: Mapping[str, Any],
    new_tokens: int,
    stopwatch: Stopwatch,
    on_tokens: Callable[[list[int]], None] | None = None,
) -> tuple[float, ...]:
    """Answer through a model's own `generate`, greedy, with exactly so many tokens.

    Args:
        model: The model; its own generation configuration must be empty.
        inputs: Its keyword arguments.
        new_tokens: Tokens of the answer.
        stopwatch: Of the model's device.
        on_tokens: Called with the new ids `[batch]` of every step.

    Returns:
        Seconds from the call to each token.
    """
    listener = Listener(stopwatch, on_tokens)
    settings = GenerationConfig(max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
    with torch.inference_mode():
        start = stopwatch.now()
        model.generate(**inputs, generation_config=settings, streamer=listener)
    return tuple(time - start for time in listener.times)


def stages_of(model: Any) -> dict[str, tuple[nn.Module, ...]]:
    """Return the modules of a model by stage, found under the names that transformers' exporters know them by."""
    inner = model.model
    tower = getattr(inner, "vision_tower", None) or inner.visual
    names = ("compressor", "multi_modal_projector")
    return {"vision": (tower,), "compress": tuple(getattr(inner, name) for name in names if hasattr(inner, name))}


def weights_of(model: Any) -> Weights:
    """Return the bytes of a model with a decoder, its embeddings and a head."""
    decoder = model.model.language_model
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    return Weights(_bytes(model), _bytes(decoder) - _bytes(table) + _bytes(head))


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
