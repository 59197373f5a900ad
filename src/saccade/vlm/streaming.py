"""Tokens to text while they arrive: whole characters only, and one text whether it is streamed or not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from saccade.vlm.answers import Answer, Stopwatch

# What decoders put in the place of bytes that are not (yet) a character.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of an answer in the making; the texts of all events joined are the answer's text.

    Attributes:
        text: New text, possibly empty; never a part of a multi-byte character.
        answer: The whole answer, in the last event only.
    """

    text: str
    answer: Answer | None = None


class TextStream:
    """Turns the token ids of one answer into text piece by piece.

    Only the last few ids are decoded again for a new one. Special tokens are left out, whitespace around the answer is
    dropped, and a character whose bytes are spread over several tokens appears with its last token. Bytes that never
    become a character are dropped at the end of an answer and shown as U+FFFD within it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # ids from here on are decoded together, so that a decoder sees what precedes a new id
        self._told = 0  # ids before this one have been turned into text
        self._started = False
        self._blank = ""  # whitespace that belongs to the answer only if more text follows

    def push(self, token_id: int) -> str:
        """Return the text that is certain now that `token_id` has arrived."""
        self._ids.append(token_id)
        fresh = self._fresh()
        return "" if fresh.endswith(REPLACEMENT) else self._tell(fresh)

    def finish(self) -> str:
        """Return what was held back and is text after all."""
        return self._tell(self._fresh().rstrip(REPLACEMENT))

    def _fresh(self) -> str:
        known = self._decode(self._ids[self._context : self._told])
        return self._decode(self._ids[self._context :])[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _tell(self, fresh: str) -> str:
        if fresh:
            self._context, self._told = self._told, len(self._ids)
        text = self._blank + fresh
        if not self._started:
            text = text.lstrip()
        body = text.rstrip()
        self._blank = text[len(body) :]
        self._started = self._started or bool(body)
        return body


class Listener(BaseStreamer):
    """Hears the new tokens of a batch during generation: notes when they came and hands them on."""

    def __init__(self, stopwatch: Stopwatch, on_tokens: Callable[[list[int]], None] | None = None) -> None:
        self.times: list[float] = []
        self._stopwatch = stopwatch
        self._on_tokens = on_tokens
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt `[batch, seq]` first, then the new ids `[batch]` of every step."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.times.append(self._stopwatch.now())
        if self._on_tokens is not None:
            self._on_tokens(value.tolist())

    def end(self) -> None:
        """Take the end of generation."""


class StopWhen(StoppingCriteria):
    """Ends generation for all rows once the given event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return `[batch]` booleans."""
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device, dtype=torch.bool)


@dataclass
class Background(Generic[_Item]):
    """Runs `work(put, stop)` in a thread and iterates over what it puts.

    An exception of the work is raised in the iterating thread; leaving the iteration early sets `stop` and waits.
    """

    work: Callable[[Callable[[_Item], None], threading.Event], None]
    _queue: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)

    def __iter__(self) -> Iterator[_Item]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), daemon=True)
        thread.start()
        try:
            while True:
                kind, value = self._queue.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        try:
            self.work(lambda item: self._queue.put(("item", item)), stop)
        except BaseException as error:  # noqa: BLE001  (raised again where the caller is)
            self._queue.put(("error", error))
        else:
            self._queue.put(("end", None))
