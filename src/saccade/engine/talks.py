"""A question on its way through the engine: read, entered, told token by token, finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from saccade.engine.pictures import PictureStore, StoredPicture
from saccade.engine.prompts import Prompt, Seen
from saccade.engine.runner import Entry
from saccade.engine.tickets import Ticket
from saccade.prompt.encode import Encoded
from saccade.vlm.answers import Answer, Timings
from saccade.vlm.generation import Row
from saccade.vlm.inputs import encode_prompt
from saccade.vlm.streaming import TextStream

if TYPE_CHECKING:
    from saccade.image.processor import SaccadeProcessor


class Talk:
    """A question and how far it is.

    Attributes:
        ticket: Whose it is.
        encoded: Its tokens, once it is read.
        entry: Its place in the runner, once it has entered.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.encoded: Encoded | None = None
        self.entry: Entry | None = None
        self._opening: list[Future[StoredPicture]] | None = None
        self._row: Row | None = None
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()
        self._told = 0.0

    def open(self, store: PictureStore, wake: Callable[[], None]) -> None:
        """Have its pictures opened, once; `wake` is called as each of them is, from another thread."""
        if self._opening is None:
            self._opening = [store.submit(picture) for picture in self.ticket.conversation.images]
            for picture in self._opening:
                picture.add_done_callback(lambda _: wake())

    @property
    def ready(self) -> bool:
        """Whether its pictures are open, or known to be no pictures."""
        return self._opening is not None and all(picture.done() for picture in self._opening)

    @property
    def pictures(self) -> list[StoredPicture]:
        """Its pictures, once it is ready; raises ImageError for one that could not be opened."""
        return [picture.result() for picture in self._opening or ()]

    @property
    def num_views(self) -> int:
        """Views of its pictures, once it is ready."""
        return sum(picture.num_views for picture in self.pictures)

    def read(self, processor: SaccadeProcessor) -> Encoded:
        """Tokenize the question, once; it must be ready.

        Raises:
            ImageError: for a picture that could not be opened.
            PromptError: for a conversation that cannot be rendered.
        """
        if self.encoded is None:
            pictures = self.pictures
            start = time.perf_counter()
            self.encoded = encode_prompt(self.ticket.conversation, [picture.size for picture in pictures], processor)
            self._row = Row(TextStream(processor.tokenizer))
            self._seconds["prompt"] = time.perf_counter() - start
            for picture in pictures:
                if picture.seen is None:
                    for stage, seconds in picture.seconds.items():
                        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        return self.encoded

    def enter(self, pictures: Sequence[Seen], looked: float) -> Entry:
        """Return the entry for the runner: from now on the question is in work.

        Args:
            pictures: What the tower made of its pictures.
            looked: Seconds that took.
        """
        assert self.encoded is not None
        self.entry = Entry(Prompt.of(self.encoded, pictures), self.ticket.sampling)
        self._seconds["vision"] = looked
        self._wait_until_now()
        self._since = time.perf_counter()
        return self.entry

    def hear(self, token_id: int, stops: Container[int]) -> bool:
        """Take the next token and tell its text; True when the answer is complete, or was called off."""
        assert self._row is not None
        if not self._row.ids:
            self._told = time.perf_counter()
        self.ticket.tell(self._row.push(token_id, stops))
        self._row.cancelled = self.ticket.cancelled and not self._row.ended
        full = len(self._row.ids) == self.ticket.sampling.max_new_tokens
        return self._row.ended or self._row.cancelled or full

    def finish(self) -> None:
        """Tell the answer."""
        assert self._row is not None
        assert self.entry is not None
        self._seconds["prefill"] = self._told - self._since
        self._seconds["decode"] = time.perf_counter() - self._told
        last, prompt = self._row.finish(), self.entry.prompt
        answer = self._row.answer(
            prompt_tokens=len(prompt), image_tokens=prompt.image_tokens(), timings=Timings(**self._seconds)
        )
        self.ticket.finish(answer, last)

    def give_up(self) -> None:
        """Answer with nothing: the question was called off before its turn."""
        for picture in self._opening or ():
            picture.cancel()
        self._wait_until_now()
        self.ticket.finish(Answer("", "cancelled", 0, 0, 0, Timings(**self._seconds)), "")

    def _wait_until_now(self) -> None:
        self._seconds["waiting"] = max(0.0, time.perf_counter() - self._since - sum(self._seconds.values()))
