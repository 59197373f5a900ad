"""A decoder asked in words alone: ids of a prompt go in, ids of an answer come out, each with its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import torch

from saccade.bench.engined import engine_name, speak
from saccade.bench.subjects import Generating, Timeline, greedy
from saccade.engine.paths import PathChoice
from saccade.engine.prefill import Arrival, prefill, prepare
from saccade.engine.prompts import Prompt
from saccade.engine.runner import Runner
from saccade.roles import TEXT
from saccade.vlm.answers import Stopwatch


@dataclass(frozen=True)
class Spoken:
    """An answer.

    Attributes:
        timeline: When each token came, in seconds since the call.
        tokens: Their ids.
    """

    timeline: Timeline
    tokens: tuple[int, ...]


class Speaker(Protocol):
    """A decoder behind one way of running it, greedy, never stopping early.

    Attributes:
        name: What it is called in tables.
        way: How it runs, in words.
    """

    name: str
    way: str

    def answer(self, ids: Sequence[int], new_tokens: int) -> Spoken:
        """Answer a prompt with exactly so many tokens, nothing kept from the answer before."""
        ...

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits after the last token of a prompt, float32 `[vocab]`."""
        ...


class PlainSpeaker:
    """A model of this package through plain `generate`.

    Args:
        plain: The model.
    """

    way = Generating.way

    def __init__(self, plain: Generating) -> None:
        self.name, self._device = plain.name, plain.device
        self._model = plain.model

    def answer(self, ids: Sequence[int], new_tokens: int) -> Spoken:
        """See `Speaker.answer`."""
        tokens: list[int] = []
        times = greedy(self._model, self._inputs(ids), new_tokens, Stopwatch(self._device), tokens.extend)
        return Spoken(Timeline(times, {}), tuple(tokens))

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """See `Speaker.logits`."""
        with torch.inference_mode():
            found: torch.Tensor = self._model(**self._inputs(ids), logits_to_keep=1, use_cache=False).logits
        return found[0, -1].float()

    def _inputs(self, ids: Sequence[int]) -> dict[str, Any]:
        row = torch.tensor([list(ids)], device=self._device)
        return {"input_ids": row, "attention_mask": torch.ones_like(row)}


class EngineSpeaker:
    """A model of this package through the engine's runner, cold.

    Args:
        plain: The same model through plain `generate`; its weights are shared.
        length: Tokens of a prompt and its answer, at most.
        path: How its steps run.

    Raises:
        ConfigError: for a model that the engine cannot run.
    """

    def __init__(self, plain: Generating, length: int, path: PathChoice = "auto") -> None:
        self.name = engine_name(plain.name)
        self._model = plain.model
        self._runner = Runner(plain.model, slots=1, length=length, opening=[], prefix_bytes=0, path=path)
        chosen = self._runner.path
        self.way = f"engine, path {chosen.name}: {chosen.reason}; {self._runner.linear.reason}"

    def answer(self, ids: Sequence[int], new_tokens: int) -> Spoken:
        """See `Speaker.answer`."""
        with self._runner.at_work():
            start = perf_counter()
            times, tokens = speak(self._runner, [_prompt(ids)], new_tokens)
        return Spoken(Timeline(tuple(time - start for time in times), {}), tuple(tokens))

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """See `Speaker.logits`."""
        slots = self._runner.slots
        with self._runner.at_work():
            batch = prepare([Arrival(_prompt(ids), slot=0)], slots.spare, self._model.device)
            return prefill(self._model, slots, batch)[0]


def _prompt(ids: Sequence[int]) -> Prompt:
    return Prompt(list(ids), [TEXT] * len(ids), ())
