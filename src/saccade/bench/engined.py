"""A model of this package through the engine, to be timed beside plain `generate` on the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from saccade.bench.counted import counter
from saccade.bench.feeds import lay_out
from saccade.bench.subjects import Generating, Pixels, Prepared, Timeline, stages_of
from saccade.bench.tasks import Ask
from saccade.config import SaccadeConfig
from saccade.engine.kept import Kept
from saccade.engine.paths import PathChoice
from saccade.engine.pictures import PictureStore
from saccade.engine.prompts import Prompt, Seen
from saccade.engine.runner import Entry, Runner
from saccade.image import num_views
from saccade.vlm.answers import Stopwatch
from saccade.vlm.generation import Sampling

KEPT_BYTES = 2 << 30  # of pictures, and of beginnings of prompts, where a second question is to find them


@dataclass(frozen=True)
class Room:
    """The slots of an engine: how many conversations side by side, tokens of each, and how its steps run."""

    slots: int
    length: int
    path: PathChoice = "auto"


def room_for(
    config: SaccadeConfig, asks: Sequence[Ask], new_tokens: int, rows: int = 1, path: PathChoice = "auto"
) -> Room:
    """Return the room that questions to a model and their answers take, `rows` at once."""
    layouts = (lay_out(config, num_views(ask.width, ask.height, config.image), ask.text_tokens) for ask in asks)
    return Room(rows, max(len(layout.ids) for layout in layouts) + new_tokens, path)


def engine_name(name: str) -> str:
    """Return what a model is called in tables when it goes through the engine."""
    return f"{name}, engine"


class Engined:
    """A model of this package through the engine's runner and picture store, greedy, never stopping early.

    It is cold: nothing of a picture or a prompt is kept, so that every answer begins with pixels. Pictures are hashed
    and resized as the engine does when it serves, with fast pixels; that happens in `generate`. The rows of a batch
    must show different pictures, or the tower sees them once.

    Args:
        plain: The same model through plain `generate`; its weights are shared.
        room: Slots, made at once.

    Raises:
        ConfigError: for a model that the engine cannot run.
    """

    def __init__(self, plain: Generating, room: Room) -> None:
        self.name = engine_name(plain.name)
        self.device, self.weights = plain.device, plain.weights
        self._model = plain.model
        self._runner = Runner(
            plain.model, slots=room.slots, length=room.length, opening=[], prefix_bytes=0, path=room.path
        )
        self._cold = self._store(0)
        self.held = self._runner.slots.num_bytes
        path = self._runner.path
        self.way = f"engine, path {path.name}: {path.reason}; fast pixels; {self._runner.linear.reason}"

    def prepare(self, pictures: Sequence[Pixels], text_tokens: int) -> Prepared:
        """See `Subject.prepare`."""
        return self._prepared(pictures, text_tokens)

    def generate(self, prepared: Prepared, new_tokens: int, *, watched: bool = False) -> Timeline:
        """See `Subject.generate`.

        Raises:
            PromptError: when prompt and answer do not fit the slots.
        """
        return self._answer(prepared, new_tokens, self._cold, watched=watched)

    def count(self, prepared: Prepared) -> int:
        """See `Subject.count`."""
        with counter() as counted:
            self.generate(prepared, 1)
        return int(counted.get_total_flops())

    def second_question(self, shown: Pixels, text_tokens: int) -> float:
        """Ask twice about a picture, in different words, with stores that begin empty.

        Returns:
            Seconds from the second question, the picture decoded in memory, to the first token of its answer.
        """
        with self._asked_once(shown, text_tokens) as store:
            start = perf_counter()
            prepared = self._prepared([shown], text_tokens, reworded=True)
            ready = perf_counter()
            return ready - start + self._answer(prepared, 1, store).tokens[0]

    def count_second_question(self, shown: Pixels, text_tokens: int) -> int:
        """Count the FLOPs of the second question alone, by running it."""
        with self._asked_once(shown, text_tokens) as store, counter() as counted:
            self._answer(self._prepared([shown], text_tokens, reworded=True), 1, store)
        return int(counted.get_total_flops())

    @contextmanager
    def _asked_once(self, shown: Pixels, text_tokens: int) -> Iterator[PictureStore]:
        """Stores that know a picture and a first question about it, inside the block."""
        store, self._runner.prefixes = self._store(KEPT_BYTES), Kept(KEPT_BYTES)
        try:
            self._answer(self._prepared([shown], text_tokens), 1, store)
            yield store
        finally:
            self._runner.prefixes = Kept(0)
            store.close()

    def _store(self, max_bytes: int) -> PictureStore:
        return PictureStore(self._model.config.image, self.device, fast=True, max_bytes=max_bytes)

    def _prepared(self, pictures: Sequence[Pixels], text_tokens: int, *, reworded: bool = False) -> Prepared:
        config: SaccadeConfig = self._model.config
        height, width = pictures[0].shape[:2]
        layout = lay_out(config, num_views(width, height, config.image), text_tokens, reworded=reworded)
        inputs: dict[str, Any] = {"pictures": list(pictures), "layout": layout}
        return Prepared(inputs, len(layout.ids), layout.visual_tokens, layout.query_tokens)

    def _answer(self, prepared: Prepared, new_tokens: int, store: PictureStore, *, watched: bool = False) -> Timeline:
        stopwatch = Stopwatch(self.device)
        stages = stopwatch.watch(stages_of(self._model)) if watched else nullcontext()
        with self._runner.at_work(), stages:
            start = stopwatch.now()
            seen = self._look(prepared.inputs["pictures"], store, stopwatch if watched else None)
            layout = prepared.inputs["layout"]
            prompts = [Prompt(layout.ids, layout.roles, (picture,)) for picture in seen]
            times, _ = speak(self._runner, prompts, new_tokens)
        return Timeline(tuple(time - start for time in times), dict(stopwatch.seconds))

    def _look(self, pictures: Sequence[Pixels], store: PictureStore, stopwatch: Stopwatch | None) -> list[Seen]:
        """Show pictures to the tower; what happens before that is preprocessing."""
        start = perf_counter()
        model = self._model.model

        def encode(views: torch.Tensor) -> torch.Tensor:
            if stopwatch is not None:
                stopwatch.add("preprocess", stopwatch.now() - start)
            patches: torch.Tensor = model.encode_views(views)
            return patches

        opened = [future.result() for future in [store.submit(picture) for picture in pictures]]
        return store.look(opened, encode, model.project_patches)


def speak(runner: Runner, prompts: Sequence[Prompt], new_tokens: int) -> tuple[list[float], list[int]]:
    """Answer prompts side by side, greedy, with exactly so many tokens; to be called while the runner is at work.

    Returns:
        When each token of all rows had reached the host, by `perf_counter`, and the ids as they came, step after step.

    Raises:
        PromptError: when a prompt and its answer do not fit the slots.
    """
    sampling = Sampling(max_new_tokens=new_tokens)
    for prompt in prompts:
        runner.check(len(prompt), sampling)
    entries = [Entry(prompt, sampling) for prompt in prompts]
    runner.enter(entries)
    ids, times = list[int](), list[float]()
    # A processor has made its token by now; an accelerator is to have its next step before that is waited for.
    ahead = runner.model.device.type != "cpu"
    while len(times) < new_tokens:
        if 0 < len(times) + ahead < new_tokens:
            runner.step()
        ids += [token for _, token in runner.collect(wait=True)]
        times += [perf_counter()] * (len(ids) // len(entries) - len(times))
    for entry in entries:
        runner.leave(entry)
    return times, ids
