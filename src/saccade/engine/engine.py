"""The engine: questions come in from any thread, are answered side by side, and each is told as it is answered."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch

from saccade.engine.cpu import LinearPath, choose_linear
from saccade.engine.paths import PathName
from saccade.engine.pictures import PictureStore
from saccade.engine.runner import Entry, Runner
from saccade.engine.talks import Talk
from saccade.engine.tickets import Ticket
from saccade.errors import EngineError
from saccade.prompt.encode import stop_token_ids
from saccade.vlm.answers import Answer
from saccade.vlm.chat import Conversation
from saccade.vlm.generation import Sampling, SamplingOptions, placeholder_ids

if TYPE_CHECKING:
    from saccade.model import SaccadeForConditionalGeneration
    from saccade.vlm import VLM
    from saccade.vlm.vlm import Request

_MEGABYTE = 1_000_000
# Prompts enter together when at least this share of their batch is not padding.
_LEAST_FILL = 0.75


class Engine:
    """Answers many questions at once with a model that is loaded, on the same weights.

    Questions wait until a slot is free, enter while others are being answered, and leave when they are done; in float32
    every answer is the one that `VLM.ask` gives. A picture that was seen before is not encoded again, and the beginning
    of a prompt up to its picture keeps its keys and values for the next question about it.

    Use it as a context manager; a thread of its own does the work inside. Without one, `step` does it piece by piece.

    Args:
        vlm: The model.
        slots: Conversations that are answered side by side.
        length: Tokens of a conversation, its answer included; the decoder's own limit at most.
        path: How decoding steps run, see `saccade.engine.paths`; "auto" takes the fastest of the device.
        fast_pixels: Resize pictures on the device, nearly as exactly, see `saccade.image.fast`.
        picture_megabytes: Room for pictures that have been seen.
        prefix_megabytes: Room for beginnings of prompts.

    Raises:
        ConfigError: for a bad argument, or a model that the engine cannot run.
    """

    def __init__(
        self,
        vlm: VLM,
        *,
        slots: int = 8,
        length: int = 2048,
        path: PathName | Literal["auto"] = "auto",
        fast_pixels: bool = False,
        picture_megabytes: int = 512,
        prefix_megabytes: int = 512,
    ) -> None:
        self.vlm = vlm
        model, processor = vlm.model, vlm.processor
        limit = getattr(model.config.text_config, "max_position_embeddings", None) or length
        self._linear = _choose_linear(model)
        with torch.inference_mode():
            self._runner = Runner(
                model,
                placeholder_ids(processor),
                slots=slots,
                length=min(length, limit),
                dtype=self._linear.activations,
                prefix_bytes=prefix_megabytes * _MEGABYTE,
                path=path,
            )
        self._pictures = PictureStore(
            model.config.image, model.device, fast=fast_pixels, max_bytes=picture_megabytes * _MEGABYTE
        )
        self._stops = stop_token_ids(processor.tokenizer, processor.prompt, model.generation_config.eos_token_id)
        self._arrivals: queue.SimpleQueue[Talk | None] = queue.SimpleQueue()
        self._waiting: deque[Talk] = deque()
        self._talks: dict[Entry, Talk] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, conversation: Conversation, sampling: Sampling | None = None) -> Ticket:
        """Take a question; the ticket tells its answer.

        Raises:
            EngineError: when the engine is closed.
        """
        if self._closed:
            raise EngineError("this engine is closed: make a new one")
        talk = Talk(
            Ticket(conversation, sampling or Sampling()), [self._pictures.submit(p) for p in conversation.images]
        )
        self._arrivals.put(talk)
        for picture in talk.pictures:
            picture.add_done_callback(lambda _: self._arrivals.put(None))  # wakes who waits for it
        return talk.ticket

    def ask_batch(self, requests: Sequence[Request], **options: Unpack[SamplingOptions]) -> list[Answer]:
        """Answer (picture, question) pairs, as `VLM.ask_batch` does.

        Raises:
            SaccadeError: What went wrong with the first question that failed.
        """
        sampling = Sampling(**options)
        tickets = [
            self.submit(Conversation().ask(question, () if image is None else (image,)), sampling)
            for image, question in requests
        ]
        if self._thread is None:
            self.drain()
        return [ticket.result() for ticket in tickets]

    def step(self) -> bool:
        """Let questions in and make one token of each that is in work; False where none could be moved on."""
        while not self._arrivals.empty():
            self._receive(self._arrivals.get())
        with torch.inference_mode(), self._linear.mode():
            self._let_in()
            if not self._runner.busy:
                return False
            self._runner.close_ranks()
            self._advance()
        return True

    def drain(self) -> None:
        """Answer everything that was submitted; for an engine that has no thread."""
        while True:
            if self.step():
                continue
            if not self._waiting:
                return
            self._receive(self._arrivals.get())  # what waits now, waits for its pictures

    def report(self) -> dict[str, Any]:
        """Say how the engine runs, and what its stores were good for."""
        path = self._runner.path
        return {
            "path": path.name,
            "reason": path.reason,
            "linear": self._linear.reason,
            "slots": self._runner.slots.count,
            "length": self._runner.slots.length,
            "slot_bytes": self._runner.slots.num_bytes,
            "pictures": asdict(self._pictures.counts),
            "prefixes": asdict(self._runner.prefixes.counts),
        }

    def __enter__(self) -> Engine:
        self._thread = threading.Thread(target=self._work, name="saccade-engine", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer what was taken, then stop."""
        self._closed = True
        if self._thread is not None:
            self._arrivals.put(None)
            self._thread.join()
            self._thread = None
        self.drain()
        self._pictures.close()

    def _work(self) -> None:
        while not self._closed:
            if not self.step():
                self._receive(self._arrivals.get())
        self.drain()

    def _receive(self, talk: Talk | None) -> None:
        if talk is not None:
            self._waiting.append(talk)

    def _let_in(self) -> None:
        """Take the questions that are ready into free slots, as many as make a batch of little padding."""
        entering: list[Talk] = []
        lengths: list[int] = []
        for talk in list(self._waiting):
            if len(entering) == self._runner.free:
                break
            try:
                if talk.ticket.cancelled:
                    self._waiting.remove(talk)
                    talk.give_up()
                elif talk.open:
                    lengths.append(self._read(talk))
                    if sum(lengths) < _LEAST_FILL * len(lengths) * max(lengths):
                        break
                    entering.append(talk)
            except Exception as error:  # noqa: BLE001  (told to whom it concerns; the others go on)
                self._waiting.remove(talk)
                talk.ticket.fail(error)
        for talk in entering:
            self._waiting.remove(talk)
        if entering:
            self._enter(entering)

    def _read(self, talk: Talk) -> int:
        """Tokenize a question and return the number of its tokens."""
        tokens = len(talk.read(self.vlm.processor).input_ids)
        self._runner.check(tokens, talk.ticket.sampling)
        return tokens

    def _enter(self, talks: list[Talk]) -> None:
        """Look at the pictures of some questions, and let them in; what goes wrong is told to all of them."""
        model = self.vlm.model.model
        try:
            start = time.perf_counter()
            pictures = [picture.result() for talk in talks for picture in talk.pictures]
            seen = iter(self._pictures.look(pictures, model.encode_views, model.project_patches))
            looked = time.perf_counter() - start if pictures else 0.0
            entries = [talk.enter([next(seen) for _ in talk.pictures], looked) for talk in talks]
            self._talks.update(zip(entries, talks, strict=True))
            self._runner.enter(entries)
        except Exception as error:  # noqa: BLE001  (told to whom it concerns; the others go on)
            self._fail(talks, error)

    def _advance(self) -> None:
        """Make one token of every conversation, and tell those that have arrived."""
        try:
            self._runner.step()
            arrived = self._runner.collect(wait=True)
        except Exception as error:  # noqa: BLE001  (as above)
            self._fail(list(self._talks.values()), error)
            return
        for entry, token_id in arrived:
            talk = self._talks.get(entry)
            if talk is not None and talk.hear(token_id, self._stops):
                self._leave(talk)
                talk.finish()

    def _fail(self, talks: list[Talk], error: Exception) -> None:
        for talk in talks:
            self._leave(talk)
            talk.ticket.fail(error)

    def _leave(self, talk: Talk) -> None:
        if talk.entry is not None and self._talks.pop(talk.entry, None) is not None:
            self._runner.leave(talk.entry)


def _choose_linear(model: SaccadeForConditionalGeneration) -> LinearPath:
    if model.device.type == "cpu":
        return choose_linear(model.dtype)
    return LinearPath(model.dtype, f"library kernels of the {model.device.type}", routed=False)
