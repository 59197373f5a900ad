"""Conversations: turns with their pictures, and a chat that remembers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from saccade.vlm.answers import Answer, Stopwatch
from saccade.vlm.generation import Sampling, SamplingOptions
from saccade.vlm.streaming import Event

if TYPE_CHECKING:
    from saccade.vlm.inputs import Picture
    from saccade.vlm.vlm import VLM

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages in transformers' chat format, and the pictures they show in order.

    Attributes:
        messages: `{"role": ..., "content": [{"type": "image"}, {"type": "text", "text": ...}]}`.
        images: One picture for every image entry.
    """

    messages: tuple[Message, ...] = ()
    images: tuple[Picture, ...] = ()

    def ask(self, text: str, images: Sequence[Picture] = ()) -> Conversation:
        """Return the conversation with a user's turn more."""
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
        return Conversation((*self.messages, {"role": "user", "content": content}), (*self.images, *images))

    def reply(self, text: str) -> Conversation:
        """Return the conversation with the model's answer more."""
        content = [{"type": "text", "text": text}]
        return Conversation((*self.messages, {"role": "assistant", "content": content}), self.images)


class Chat:
    """A conversation with memory: turns that were answered are kept, and each picture goes through the tower once.

    A turn that raises, or whose stream is left before its last event, leaves no trace.

    Attributes:
        history: What has been said, pictures as `EncodedImage`.
    """

    def __init__(self, vlm: VLM) -> None:
        self.history = Conversation()
        self._vlm = vlm

    def say(self, text: str, images: Sequence[Picture] = (), **options: Unpack[SamplingOptions]) -> Answer:
        """Say something, with or without new pictures, and return the answer."""
        sampling, stopwatch = Sampling(**options), Stopwatch(self._vlm.model.device)
        talk = self.history.ask(text, self._vlm.encode_batch(images, stopwatch=stopwatch))
        answer = self._vlm.answer([talk], sampling, stopwatch=stopwatch)[0]
        self.history = talk.reply(answer.text)
        return answer

    def stream(self, text: str, images: Sequence[Picture] = (), **options: Unpack[SamplingOptions]) -> Iterator[Event]:
        """Say something and yield the answer piece by piece; the last event carries the `Answer`."""
        sampling, stopwatch = Sampling(**options), Stopwatch(self._vlm.model.device)
        talk = self.history.ask(text, self._vlm.encode_batch(images, stopwatch=stopwatch))
        for event in self._vlm.stream_answer(talk, sampling, stopwatch=stopwatch):
            if event.answer is not None:
                self.history = talk.reply(event.answer.text)
            yield event
