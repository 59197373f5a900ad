"""The device side: prompts go in, and tokens come out while the next ones are made already."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from saccade.engine.cpu import choose_linear
from saccade.engine.decode import State
from saccade.engine.kept import Kept
from saccade.engine.paths import Path, PathChoice, choose_path
from saccade.engine.prefill import Arrival, prefill, prepare
from saccade.engine.prompts import Prompt
from saccade.engine.slots import Slots, to_device
from saccade.errors import ConfigError, PromptError
from saccade.model import SaccadeForConditionalGeneration
from saccade.vlm.generation import Sampling

ATTENTION = "sdpa"
# Stands for the token of a conversation whose numbers are not finite any more.
BROKEN = -1


@dataclass(eq=False)
class Entry:
    """A prompt in work.

    Attributes:
        prompt: The prompt.
        sampling: How its tokens are chosen.
        slot: Where it is; -1 before and after.
        asked: Tokens of the answer that have been asked of the device.
        beginnings: Lengths and keys of what of the prompt may be kept, longest first.
    """

    prompt: Prompt
    sampling: Sampling
    slot: int = -1
    asked: int = 0
    beginnings: list[tuple[int, str]] = field(default_factory=list)

    @property
    def wants(self) -> bool:
        """Whether the device has more tokens to make."""
        return self.slot >= 0 and self.asked < self.sampling.max_new_tokens

    @property
    def position(self) -> int:
        """Where the last token asked for goes in its slot."""
        return len(self.prompt) + self.asked - 1


@dataclass(frozen=True, slots=True)
class _Flight:
    """Tokens on their way to the host: whose they are, whether their first ones, and what tells that they are there."""

    ids: torch.Tensor
    entries: list[tuple[int, Entry]]
    first: bool
    landed: torch.cuda.Event | None

    @property
    def has_landed(self) -> bool:
        """Whether the host can read them without waiting."""
        return self.landed is None or self.landed.query()


class Runner:
    """A model with slots.

    Attributes:
        slots: Keys and values of everything in work.
        path: How decoding steps run.
        linear: How linear layers run.
        prefixes: Beginnings of prompts that are kept for the next one, by `Prompt.key`.

    Raises:
        ConfigError: for a bound below 1, a decoder whose attention the engine cannot mask, or a path that the device
            does not have.
    """

    def __init__(
        self,
        model: SaccadeForConditionalGeneration,
        *,
        slots: int,
        length: int,
        opening: list[int],
        prefix_bytes: int,
        path: PathChoice,
        stride: int = 256,
    ) -> None:
        if slots < 1 or length < 1:
            raise ConfigError(f"an engine needs at least 1 slot of 1 position, not {slots} of {length}")
        text = model.config.text_config
        if text._attn_implementation != ATTENTION:
            raise ConfigError(
                f"the decoder attends by {text._attn_implementation!r}, which takes no mask for slots: load the model "
                f"with attn_implementation={ATTENTION!r}"
            )
        device = model.device
        self.model = model
        self.linear = choose_linear(model.dtype, device)
        with torch.inference_mode():
            self.slots = Slots(text, slots, length, dtype=self.linear.activations, device=device)
            self._state = State.empty(slots, length, text.vocab_size, model.config.placeholder_ids, device)
        self.path: Path = choose_path(path, model, self.slots, self._state, stride)
        self.prefixes: Kept[torch.Tensor] = Kept(prefix_bytes)
        self._opening = opening
        self._in_work: list[Entry | None] = [None] * slots
        self._flights: deque[_Flight] = deque()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be in the state in which the model, its tower too, is to be called; `enter` and `step` belong inside."""
        device = self.model.device
        current = (
            torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        )  # a thread begins with the first
        with torch.inference_mode(), current, self.linear.mode():
            yield

    @property
    def free(self) -> int:
        """Slots without a conversation."""
        return self._in_work.count(None)

    @property
    def busy(self) -> bool:
        """Whether anything is in work or on its way."""
        return bool(self._flights) or any(entry is not None for entry in self._in_work)

    def check(self, prompt_tokens: int, sampling: Sampling) -> None:
        """Raise PromptError where a prompt and its answer do not fit a slot."""
        if prompt_tokens + sampling.max_new_tokens > self.slots.length:
            raise PromptError(
                f"the prompt has {prompt_tokens} tokens and its answer may take {sampling.max_new_tokens} "
                f"(max_new_tokens), but a slot holds {self.slots.length} in all: shorten the conversation, lower "
                "max_new_tokens or give the engine a larger length"
            )

    def enter(self, entries: Sequence[Entry]) -> None:
        """Take prompts into free slots and ask for the first token of each."""
        for entry in entries:
            entry.slot = self._in_work.index(None)
            self._in_work[entry.slot] = entry
        arrivals = [Arrival(entry.prompt, entry.slot, self._recall(entry)) for entry in entries]
        device = self._state.tokens.device
        logits = prefill(self.model, self.slots, prepare(arrivals, self.slots.spare, device))
        slots = to_device([entry.slot for entry in entries], device)
        self._set_up(entries, slots)
        last = self._state.positions[slots] - 1
        ids = self._state.choose(logits, slots, last, any(entry.sampling.temperature > 0 for entry in entries))
        self._state.tokens[slots] = ids.clamp(min=0)
        for entry in entries:
            entry.asked = 1
        self._send(ids, list(enumerate(entries)), first=True)

    def step(self) -> None:
        """Ask for one more token of every conversation that wants one."""
        working = [entry for entry in self._in_work if entry is not None and entry.wants]
        if not working:
            return
        batch = self.path.batch(max(entry.slot for entry in working) + 1)
        length = self.path.length(max(entry.position for entry in working) + 1, self.slots.length)
        ids = self.path.step(batch, length, any(entry.sampling.temperature > 0 for entry in working))
        for entry in working:
            entry.asked += 1
        self._send(ids, [(entry.slot, entry) for entry in working])

    def collect(self, *, wait: bool) -> list[tuple[Entry, int]]:
        """Return the tokens that have arrived, in order; with `wait`, those of the oldest step are waited for.

        Returns:
            Entries with their tokens; `BROKEN` where the model's numbers are not finite.
        """
        arrived: list[tuple[Entry, int]] = []
        while self._flights and (self._flights[0].has_landed or (wait and not arrived)):
            flight = self._flights.popleft()
            if flight.landed is not None:
                flight.landed.synchronize()
            ids = flight.ids.tolist()
            for row, entry in flight.entries:
                if flight.first and ids[row] != BROKEN and entry.slot >= 0:
                    self._remember(entry)
                arrived.append((entry, ids[row]))
        return arrived

    def leave(self, entry: Entry, *, broken: bool = False) -> None:
        """Free an entry's slot; tokens of it that are still on their way belong to nobody.

        Args:
            entry: One that has entered; nothing happens where it has left already.
            broken: Whether its numbers may not be finite: they would reach whoever is read beside them.
        """
        if entry.slot < 0:
            return
        self._state.working[entry.slot] = 0
        self._in_work[entry.slot] = None
        if broken:
            self.slots.clear(entry.slot)
        entry.slot = -1

    def reset(self) -> None:
        """Free all slots and forget what is on its way, after a step that failed."""
        self._flights.clear()
        for entry in list(self._in_work):
            if entry is not None:
                self.leave(entry, broken=True)

    def close_ranks(self) -> None:
        """Move conversations from the last slots into free ones before them, where steps then take fewer slots."""
        used = [slot for slot, entry in enumerate(self._in_work) if entry is not None]
        if not used or self.path.batch(used[-1] + 1) == self.path.batch(len(used)):
            return
        for target in range(len(used)):
            if self._in_work[target] is None:
                self._move(used.pop(), target)

    def _move(self, source: int, target: int) -> None:
        entry = self._in_work[source]
        assert entry is not None
        self.slots.move(source, target, entry.position + 1)
        state = self._state
        for tensor in (state.tokens, state.positions, state.working, state.temperature, state.top_p, state.draws):
            tensor[target] = tensor[source]
        state.working[source] = 0
        self._in_work[target], self._in_work[source] = entry, None
        entry.slot = target

    def _set_up(self, entries: Sequence[Entry], slots: torch.Tensor) -> None:
        """Tell the device what it must know of new conversations."""
        state, device = self._state, slots.device
        state.positions[slots] = to_device([len(entry.prompt) for entry in entries], device)
        state.working[slots] = 1
        state.temperature[slots] = to_device([entry.sampling.temperature for entry in entries], device)
        state.top_p[slots] = to_device([entry.sampling.top_p for entry in entries], device)
        for entry in entries:
            if entry.sampling.temperature > 0:
                start = len(entry.prompt) - 1
                numbers = _random(entry.sampling)
                state.draws[entry.slot, start : start + len(numbers)] = to_device(numbers, device)

    def _recall(self, entry: Entry) -> int:
        """Put the longest beginning of the prompt that is kept into the slot, and return its length."""
        entry.beginnings = self._beginnings(entry.prompt)
        found = self.prefixes.first([key for _, key in entry.beginnings])
        if found is None:
            return 0
        index, stored = found
        self.slots.copy_in(entry.slot, stored)
        return entry.beginnings[index][0]

    def _remember(self, entry: Entry) -> None:
        """Keep the beginnings of a prompt that stands in its slot."""
        for length, key in entry.beginnings:
            num_bytes = length * self.slots.position_bytes
            if key not in self.prefixes and num_bytes <= self.prefixes.max_bytes:
                self.prefixes.put(key, self.slots.copy_out(entry.slot, length), num_bytes)

    def _beginnings(self, prompt: Prompt) -> list[tuple[int, str]]:
        """Lengths and keys of the beginnings of a prompt that may be kept, longest first."""
        lengths = prompt.reusable(self._opening) if self.prefixes.max_bytes else ()
        return [(length, prompt.key(length)) for length in lengths]

    def _send(self, ids: torch.Tensor, entries: list[tuple[int, Entry]], *, first: bool = False) -> None:
        """Start tokens on their way to the host."""
        if ids.device.type != "cuda":
            self._flights.append(_Flight(ids.cpu(), entries, first, None))
            return
        host = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
        host.copy_(ids, non_blocking=True)
        landed = torch.cuda.Event()
        landed.record()
        self._flights.append(_Flight(host, entries, first, landed))


def _random(sampling: Sampling) -> torch.Tensor:
    """Random numbers for every token of an answer, repeatable where there is a seed."""
    if sampling.seed is None:
        return torch.rand(sampling.max_new_tokens)
    return torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(sampling.seed))
