"""What the engine does over and over: let questions in, move all of them on by a token, tell what has arrived."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from saccade.engine.pictures import PictureStore
from saccade.engine.runner import BROKEN, Entry, Runner
from saccade.engine.talks import Talk
from saccade.errors import EngineError
from saccade.prompt.encode import stop_token_ids

if TYPE_CHECKING:
    from saccade.vlm import VLM

# Prompts enter together when at least this share of their batch is not padding.
_LEAST_FILL = 0.75
# Waiting questions whose pictures are opened, for each slot: more would only fill the memory.
_OPEN_PER_SLOT = 2


class Loop:
    """The one place that runs the model; it belongs to one thread at a time.

    Args:
        vlm: The model.
        runner: Its slots.
        pictures: What opens and keeps pictures.
        batch_tokens: Most tokens, padding included, of prompts that enter together.
        batch_views: Most views that the tower sees at once; a single question may have more.
        wake: Called when a picture is open, from another thread.
    """

    def __init__(
        self,
        vlm: VLM,
        runner: Runner,
        pictures: PictureStore,
        *,
        batch_tokens: int,
        batch_views: int,
        wake: Callable[[], None],
    ) -> None:
        self._model, self._processor = vlm.model.model, vlm.processor
        self._runner = runner
        self._pictures = pictures
        self._batch_tokens, self._batch_views = batch_tokens, batch_views
        self._wake = wake
        declared = vlm.model.generation_config.eos_token_id
        self._stops = stop_token_ids(vlm.processor.tokenizer, vlm.processor.prompt, declared)
        self._waiting: deque[Talk] = deque()
        self._talks: dict[Entry, Talk] = {}

    @property
    def waits(self) -> bool:
        """Whether questions wait that could not enter yet."""
        return bool(self._waiting)

    def receive(self, talk: Talk) -> None:
        """Take a question."""
        self._waiting.append(talk)

    def step(self) -> bool:
        """Move everything on by one piece of work; False where nothing could be moved."""
        with self._runner.at_work():
            waiting = len(self._waiting)
            self._drop_cancelled()
            self._open()
            self._let_in()
            moved = len(self._waiting) < waiting
            if self._runner.busy:
                self._advance()
                moved = True
        return moved

    def abandon(self, error: BaseException) -> None:
        """Tell everybody that there will be no answer."""
        for talk in (*self._talks.values(), *self._waiting):
            if not talk.ticket.done:
                talk.ticket.fail(error)
        self._talks.clear()
        self._waiting.clear()

    def _drop_cancelled(self) -> None:
        for talk in [talk for talk in self._waiting if talk.ticket.cancelled]:
            self._waiting.remove(talk)
            talk.give_up()

    def _open(self) -> None:
        """Have the pictures of the next questions opened."""
        for talk in islice(self._waiting, _OPEN_PER_SLOT * self._runner.slots.count):
            talk.open(self._pictures, self._wake)

    def _let_in(self) -> None:
        """Take the questions that are ready into free slots, as many as make a batch of little padding."""
        entering: list[Talk] = []
        lengths: list[int] = []
        views = 0
        for talk in list(self._waiting):
            if len(entering) == self._runner.free:
                break
            if not talk.ready:
                continue
            try:
                tokens = self._read(talk)
            except Exception as error:  # noqa: BLE001  (told to whom it concerns; the others go on)
                self._waiting.remove(talk)
                talk.ticket.fail(error)
                continue
            lengths.append(tokens)
            views += talk.num_views
            if entering and not self._make_a_batch(lengths, views):
                break
            entering.append(talk)
        for talk in entering:
            self._waiting.remove(talk)
        if entering:
            self._enter(entering)

    def _make_a_batch(self, lengths: list[int], views: int) -> bool:
        """Whether prompts of these lengths with so many views may enter together."""
        padded = len(lengths) * max(lengths)
        return padded <= self._batch_tokens and views <= self._batch_views and sum(lengths) >= _LEAST_FILL * padded

    def _read(self, talk: Talk) -> int:
        """Tokenize a question and return the number of its tokens."""
        tokens = len(talk.read(self._processor).input_ids)
        self._runner.check(tokens, talk.ticket.sampling)
        return tokens

    def _enter(self, talks: list[Talk]) -> None:
        """Look at the pictures of some questions, and let them in; where that fails, one by one."""
        try:
            start = time.perf_counter()
            pictures = [picture for talk in talks for picture in talk.pictures]
            seen = iter(self._pictures.look(pictures, self._model.encode_views, self._model.project_patches))
            looked = time.perf_counter() - start if pictures else 0.0
            entries = [talk.enter([next(seen) for _ in talk.pictures], looked) for talk in talks]
            self._talks.update(zip(entries, talks, strict=True))
            self._runner.enter(entries)
        except Exception as error:  # noqa: BLE001  (as above)
            for talk in talks:
                self._leave(talk)
            if len(talks) == 1:
                talks[0].ticket.fail(error)
                return
            for talk in talks:
                self._enter([talk])

    def _advance(self) -> None:
        """Tell the tokens that are there, make one more of every conversation, and tell those that come."""
        try:
            self._hear(self._runner.collect(wait=False))
            self._runner.close_ranks()
            self._runner.step()
            arrived = self._runner.collect(wait=True)
        except Exception as error:  # noqa: BLE001  (as above)
            failed = list(self._talks.values())
            self._talks.clear()
            self._runner.reset()
            for talk in failed:
                talk.ticket.fail(error)
            return
        self._hear(arrived)

    def _hear(self, arrived: list[tuple[Entry, int]]) -> None:
        for entry, token_id in arrived:
            if entry in self._talks:
                self._tell(self._talks[entry], token_id)

    def _tell(self, talk: Talk, token_id: int) -> None:
        try:
            if token_id == BROKEN:
                raise EngineError(
                    "the model made numbers that are not finite: load it in float32, or look at the picture"
                )
            if talk.hear(token_id, self._stops):
                self._leave(talk)
                talk.finish()
        except Exception as error:  # noqa: BLE001  (as above)
            self._leave(talk, broken=True)
            talk.ticket.fail(error)

    def _leave(self, talk: Talk, *, broken: bool = False) -> None:
        if talk.entry is not None and self._talks.pop(talk.entry, None) is not None:
            self._runner.leave(talk.entry, broken=broken)
