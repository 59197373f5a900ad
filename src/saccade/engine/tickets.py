"""What someone who asked holds in hand: the answer's pieces as they come, the answer, and the way to call it off."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from saccade.vlm.answers import Answer
from saccade.vlm.chat import Conversation
from saccade.vlm.generation import Sampling
from saccade.vlm.streaming import Event


class Ticket:
    """A question that an engine has taken.

    Iterating yields `Event`s, the last of which carries the `Answer`, or raises what went wrong; one thread may
    iterate. `result` waits for the answer alone.

    Attributes:
        conversation: What was asked.
        sampling: How tokens are chosen.
    """

    def __init__(self, conversation: Conversation, sampling: Sampling) -> None:
        self.conversation = conversation
        self.sampling = sampling
        self._events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._answer: Future[Answer] = Future()
        self._off = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self._events.get()
            if isinstance(event, BaseException):
                self._events.put(event)  # for whoever iterates again
                raise event
            yield event
            if event.answer is not None:
                self._events.put(Event("", event.answer))
                return

    def result(self, timeout: float | None = None) -> Answer:
        """Wait for the answer.

        Raises:
            SaccadeError: What went wrong with this question.
            TimeoutError: after `timeout` seconds.
        """
        return self._answer.result(timeout)

    def cancel(self) -> None:
        """Call it off: what has been said so far becomes the answer, with the reason "cancelled"."""
        self._off.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was called off."""
        return self._off.is_set()

    @property
    def done(self) -> bool:
        """Whether the answer, or what went wrong, is known."""
        return self._answer.done()

    def tell(self, text: str) -> None:
        """Hand on a piece of the answer; for the engine."""
        if text:
            self._events.put(Event(text))

    def finish(self, answer: Answer, last: str) -> None:
        """Hand on the whole answer and the text of it not yet told; for the engine."""
        self._events.put(Event(last, answer))
        self._answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Hand on what went wrong; for the engine."""
        self._events.put(error)
        self._answer.set_exception(error)
