"""One batch of conversations to one batch of answers: the only code path behind every way of asking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from saccade.errors import ConfigError, PromptError
from saccade.prompt.encode import stop_token_ids
from saccade.vlm.answers import Answer, FinishReason, Stopwatch, Timings
from saccade.vlm.streaming import Listener, StopWhen, TextStream

if TYPE_CHECKING:
    from saccade.image.processor import SaccadeProcessor
    from saccade.model import SaccadeForConditionalGeneration


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None


# Beyond these, logits divided and probabilities compared leave what float32 can hold.
_TEMPERATURES = (0.001, 1000.0)
_LEAST_TOP_P = 0.000001


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        top_p: Draw only from the likeliest tokens that hold this much probability together.
        seed: Makes the draw repeatable for the same batch; the caller's random state is left as it was.

    Raises:
        ConfigError: for a value out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}: ask for at least 1")
        least, most = _TEMPERATURES
        if self.temperature != 0 and not least <= self.temperature <= most:
            raise ConfigError(f"temperature is {self.temperature}: 0 is greedy, {least} to {most:g} draws")
        if not _LEAST_TOP_P <= self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: it must be at least {_LEAST_TOP_P} and at most 1")


def generation_config(never: Sequence[int], sampling: Sampling, stops: Sequence[int]) -> GenerationConfig:
    """Return transformers' form of `sampling`; answers end at `stops`, and hold no id of `never`."""
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if sampling.temperature else {}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=bool(drawn),
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        suppress_tokens=list(never),
        **drawn,
    )


def check_length(model: SaccadeForConditionalGeneration, prompt_tokens: Sequence[int], sampling: Sampling) -> None:
    """Refuse a batch in which a prompt and its answer do not fit the decoder's positions.

    Raises:
        PromptError: with the row and the numbers.
    """
    limit = getattr(model.config.text_config, "max_position_embeddings", None)
    for row, count in enumerate(prompt_tokens):
        if limit is not None and count + sampling.max_new_tokens > limit:
            raise PromptError(
                f"prompt {row} has {count} tokens and its answer may take {sampling.max_new_tokens} (max_new_tokens), "
                f"but the model holds {limit} in all: shorten the conversation or lower max_new_tokens"
            )


@dataclass
class Row:
    """One answer while it is made."""

    text: TextStream
    parts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    cancelled: bool = False

    def push(self, token_id: int, stops: Container[int]) -> str:
        """Take the next id of this row and return new text; one of `stops` ends it, and ids after that are padding."""
        if self.ended:
            return ""
        self.ids.append(token_id)
        if token_id in stops:
            self.ended = True
            return ""
        self.parts.append(self.text.push(token_id))
        return self.parts[-1]

    def finish(self) -> str:
        """Return the last text of this row."""
        self.parts.append(self.text.finish())
        return self.parts[-1]

    def answer(self, *, prompt_tokens: int, image_tokens: int, timings: Timings) -> Answer:
        """Return the answer of a finished row."""
        reason: FinishReason = "stop" if self.ended else "cancelled" if self.cancelled else "length"
        text, ids = "".join(self.parts), tuple(self.ids)
        return Answer(text, reason, prompt_tokens, image_tokens, len(ids), timings, ids)


def generate(
    model: SaccadeForConditionalGeneration,
    processor: SaccadeProcessor,
    inputs: dict[str, torch.Tensor],
    sampling: Sampling,
    *,
    stopwatch: Stopwatch,
    on_text: Callable[[list[str]], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Answer]:
    """Answer a left-padded batch.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        inputs: Keyword arguments of the model: `input_ids` and `attention_mask` `[batch, seq]`, roles, features.
        sampling: How tokens are chosen.
        stopwatch: Holds the stages before this one; its sums become the answers' timings.
        on_text: Called after every step with each row's new text.
        stop: Ends generation early when set.

    Returns:
        One answer per row.

    Raises:
        PromptError: when a prompt leaves no room for its answer.
    """
    lengths = [int(n) for n in inputs["attention_mask"].sum(1)]
    check_length(model, lengths, sampling)
    stops = stop_token_ids(processor.tokenizer, processor.prompt, model.generation_config.eos_token_id)
    rows = [Row(TextStream(processor.tokenizer)) for _ in lengths]

    def take(ids: list[int]) -> None:
        fresh = [row.push(token_id, stops) for row, token_id in zip(rows, ids, strict=True)]
        if on_text is not None:
            on_text(fresh)

    listener = Listener(stopwatch, take)
    settings: dict[str, Any] = {
        "generation_config": generation_config(model.config.placeholder_ids, sampling, stops),
        "streamer": listener,
    }
    if stop is not None:
        settings["stopping_criteria"] = StoppingCriteriaList([StopWhen(stop)])
    bridge = {"compress": (model.model.compressor, model.model.multi_modal_projector)}
    with torch.inference_mode(), _seeded(sampling.seed), stopwatch.watch(bridge):
        start = stopwatch.now()
        cast(Any, model).generate(**inputs, **settings)  # its annotations do not admit a model's own inputs
    last = [row.finish() for row in rows]
    if on_text is not None:
        on_text(last)
    stopwatch.add("prefill", listener.times[0] - start - stopwatch.seconds.get("compress", 0.0))
    stopwatch.add("decode", listener.times[-1] - listener.times[0])
    timings = Timings(**stopwatch.seconds)
    visual = (inputs["input_ids"] == processor.image_token_id).sum(1).tolist()
    return [
        row.answer(prompt_tokens=length, image_tokens=images, timings=timings)
        for row, length, images in zip(rows, lengths, visual, strict=True)
    ]


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Let torch draw from `seed` inside the block; None changes nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
