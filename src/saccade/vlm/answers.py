"""What comes back from a question: the answer, why it ended, and where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import nn

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per stage, in the order in which they happen; a batch has one set of timings, shared by its answers.

    Attributes:
        waiting: In the queue of an engine, for a slot.
        open: Pictures decoded and brought to RGB.
        preprocess: Views cut, resized and normalized.
        vision: The tower, from pixels to raw patches; 0 for pictures that were encoded before.
        prompt: Conversations rendered, tokenized and padded.
        compress: Compressor and projector, from patches to visual tokens.
        prefill: The decoder over the prompt, up to the first token of the answer.
        decode: All later tokens.
    """

    waiting: float = 0.0
    open: float = 0.0
    preprocess: float = 0.0
    vision: float = 0.0
    prompt: float = 0.0
    compress: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0

    @property
    def first_token(self) -> float:
        """Seconds from the call to the first token of the answer."""
        return self.total - self.decode

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.stages().values())

    def stages(self) -> dict[str, float]:
        """Return seconds by stage name, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question; `str(answer)` is its text.

    Attributes:
        text: The answer without surrounding whitespace.
        finish_reason: "stop" when the model ended it, "length" when `max_new_tokens` did, "cancelled" when it was
            called off.
        prompt_tokens: Tokens of the prompt, visual and query tokens included.
        image_tokens: Visual tokens among them.
        new_tokens: Tokens generated, the end token included.
        timings: Where the time went; shared by the answers of a batch.
        token_ids: The tokens generated.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    timings: Timings
    token_ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def seconds_per_token(self) -> float | None:
        """Mean seconds of a token after the first (of a step, in a batch); None for a single token."""
        return self.timings.decode / (self.new_tokens - 1) if self.new_tokens > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; seconds are rounded to the microsecond."""
        timings = {name: round(seconds, 6) for name, seconds in self.timings.stages().items()}
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "image_tokens": self.image_tokens,
            "new_tokens": self.new_tokens,
            "timings": {
                **timings,
                "first_token": round(self.timings.first_token, 6),
                "total": round(self.timings.total, 6),
            },
        }


class Stopwatch:
    """Adds up seconds by stage; on an accelerator it waits for the device at both ends of a stage."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    def now(self) -> float:
        """Return the time in seconds after everything queued on the device has run."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to stage `name`."""
        start = self.now()
        try:
            yield
        finally:
            self.add(name, self.now() - start)

    @contextmanager
    def watch(self, modules: Mapping[str, tuple[nn.Module, ...]]) -> Iterator[None]:
        """Add the time of every call of the given modules inside the block to the stage they stand under."""
        started: dict[nn.Module, float] = {}
        thread = threading.get_ident()  # another thread may be using the same modules

        def before(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread:
                started[module] = self.now()

        handles = [module.register_forward_pre_hook(before) for group in modules.values() for module in group]
        for name, group in modules.items():

            def after(module: nn.Module, _: Any, __: Any, name: str = name) -> None:
                if threading.get_ident() == thread:
                    self.add(name, self.now() - started.pop(module))

            handles += [module.register_forward_hook(after) for module in group]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to stage `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
