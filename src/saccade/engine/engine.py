"""The engine: questions come in from any thread, are answered side by side, and each is told as it is answered."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Unpack

from saccade.engine.loop import Loop
from saccade.engine.paths import PathChoice
from saccade.engine.pictures import PictureStore
from saccade.engine.runner import Runner
from saccade.engine.talks import Talk
from saccade.engine.tickets import Ticket
from saccade.errors import ConfigError, EngineError
from saccade.prompt.encode import encode
from saccade.prompt.render import Segment
from saccade.vlm.answers import Answer
from saccade.vlm.chat import Conversation
from saccade.vlm.generation import Sampling, SamplingOptions

if TYPE_CHECKING:
    from saccade.model import SaccadeForConditionalGeneration
    from saccade.vlm import VLM
    from saccade.vlm.vlm import Request

_MEGABYTE = 1_000_000
# Fields of a model's generation configuration by which plain generation would choose other tokens, whatever is asked.
_RULES = {
    "bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty",
    "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "guidance_scale", "min_length", "min_new_tokens", "min_p", "no_repeat_ngram_size", "num_beams", "penalty_alpha",
    "repetition_penalty", "sequence_bias", "stop_strings", "top_h", "typical_p", "watermarking_config",
}  # fmt: skip


class Engine:
    """Answers many questions at once with a model that is loaded, on the same weights.

    Questions wait until a slot is free, enter while others are being answered, and leave when they are done; in float32
    every answer is the one that `VLM.ask` gives. A picture that was seen before is not encoded again, and the beginning
    of a prompt up to its picture keeps its keys and values for the next question about it.

    Used as a context manager it works in a thread of its own, and questions may come from any thread. Otherwise
    `ask_batch`, `drain` and `step` do the work where they are called. A picture must not be changed before its question
    is answered.

    Args:
        vlm: The model.
        slots: Conversations that are answered side by side.
        length: Tokens of a conversation, its answer included; the decoder's own limit at most.
        path: How decoding steps run, see `saccade.engine.paths`; "auto" takes the fastest of the device.
        batch_tokens: Most tokens, padding included, of prompts that go through the decoder together.
        batch_views: Most views that the tower sees at once.
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
        path: PathChoice = "auto",
        batch_tokens: int = 8192,
        batch_views: int = 64,
        fast_pixels: bool = False,
        picture_megabytes: int = 512,
        prefix_megabytes: int = 512,
    ) -> None:
        self.vlm = vlm
        model, processor = vlm.model, vlm.processor
        _refuse_own_rules(model)
        opening = [Segment(processor.prompt.opening)] if processor.prompt.opening else []
        self._runner = Runner(
            model,
            slots=slots,
            length=min(length, getattr(model.config.text_config, "max_position_embeddings", None) or length),
            opening=encode(opening, processor.tokenizer, []).input_ids,
            prefix_bytes=prefix_megabytes * _MEGABYTE,
            path=path,
        )
        self._pictures = PictureStore(
            model.config.image,
            model.device,
            patch_shape=(model.config.patches_per_view, model.config.vision_config.hidden_size),
            fast=fast_pixels,
            max_bytes=picture_megabytes * _MEGABYTE,
        )
        self._arrivals: queue.SimpleQueue[Talk | None] = queue.SimpleQueue()
        self._loop = Loop(
            vlm,
            self._runner,
            self._pictures,
            batch_tokens=batch_tokens,
            batch_views=batch_views,
            wake=lambda: self._arrivals.put(None),
        )
        self._lock = threading.Lock()  # nothing arrives once the engine is closed
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, conversation: Conversation, sampling: Sampling | None = None) -> Ticket:
        """Take a question; the ticket tells its answer.

        Raises:
            EngineError: when the engine is closed.
        """
        talk = Talk(Ticket(conversation, sampling or Sampling()))
        with self._lock:
            if self._closed:
                raise EngineError("this engine is closed: make a new one")
            self._arrivals.put(talk)
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
        """Let questions in and make one token of each that is in work; False where none could be moved on.

        Raises:
            EngineError: when the engine's own thread does that.
        """
        if self._thread not in (None, threading.current_thread()):
            raise EngineError("this engine has a thread that does the work: wait for its tickets")
        while not self._arrivals.empty():
            self._receive(self._arrivals.get())
        return self._loop.step()

    def drain(self) -> None:
        """Answer everything that was submitted; raises like `step`."""
        while True:
            if self.step():
                continue
            if not self._loop.waits:
                return
            self._receive(self._arrivals.get())  # what waits now, waits for its pictures

    def report(self) -> dict[str, Any]:
        """Say how the engine runs, and what its stores were good for."""
        path = self._runner.path
        return {
            "path": path.name,
            "reason": path.reason,
            "linear": self._runner.linear.reason,
            "slots": self._runner.slots.count,
            "length": self._runner.slots.length,
            "slot_bytes": self._runner.slots.num_bytes,
            "pictures": asdict(self._pictures.counts),
            "prefixes": asdict(self._runner.prefixes.counts),
        }

    def __enter__(self) -> Engine:
        if self._thread is not None or self._closed:
            raise EngineError("this engine is running or closed: make a new one")
        self._thread = threading.Thread(target=self._work, name="saccade-engine", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer what was taken, then stop."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._arrivals.put(None)
            self._thread.join()
            self._thread = None
        else:
            self.drain()
        self._pictures.close()

    def _work(self) -> None:
        try:
            while not self._closed:
                if not self.step():
                    self._receive(self._arrivals.get())
            self.drain()
        except BaseException as error:  # noqa: BLE001  (nobody may wait for a thread that is gone)
            with self._lock:
                self._closed = True
            while not self._arrivals.empty():
                self._receive(self._arrivals.get())
            self._loop.abandon(error)

    def _receive(self, talk: Talk | None) -> None:
        if talk is not None:
            self._loop.receive(talk)


def _refuse_own_rules(model: SaccadeForConditionalGeneration) -> None:
    """Raise ConfigError where plain generation would choose tokens by rules that the engine does not have."""
    rules = model.generation_config.to_diff_dict().keys() & _RULES
    if rules:
        raise ConfigError(
            f"the model's generation_config sets {', '.join(sorted(rules))}, which the engine does not follow: remove "
            "it, or ask the model without an engine"
        )
