"""Ways to run a decoding step, fastest first; the plain one is the truth that the others are tested against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from transformers import PreTrainedConfig

from saccade.engine.decode import State, decode
from saccade.engine.grouped import grouped_keys
from saccade.engine.slots import Slots
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration

PathName = Literal["plain", "compiled", "graphs"]
PathChoice = PathName | Literal["auto"]
Step = Callable[[int, int, bool], torch.Tensor]

# Of all engines of a process together, for torch keeps account by lines of code. One engine needs half a dozen: one row
# or several, one length or any, with and without drawing. Beyond it a step fails.
MOST_COMPILED = 256


@dataclass(frozen=True, slots=True)
class Path:
    """How decoding steps run.

    Attributes:
        name: Its name.
        reason: Why it was chosen, one sentence.
        step: Takes the number of slots, the positions that are read and whether any row draws; returns the new ids.
        sizes: Slots that a step may take, ascending, or None for any number.
        stride: Positions that are read come in multiples of this.
    """

    name: PathName
    reason: str
    step: Step
    sizes: tuple[int, ...] | None = None
    stride: int = 1

    def batch(self, used: int) -> int:
        """The number of slots a step takes when the first `used` are in work."""
        return used if self.sizes is None else next(size for size in self.sizes if size >= used)

    def length(self, needed: int, most: int) -> int:
        """The number of positions a step reads when `needed` are, and slots have `most`."""
        return min(-(-needed // self.stride) * self.stride, most)


def check_path(name: str, device: torch.device) -> PathChoice:
    """Return the name of a path.

    Raises:
        ConfigError: for an unknown one, or one that the device does not have.
    """
    if name not in (known := ("auto", *get_args(PathName))):
        raise ConfigError(f"there is no path {name!r}: choose {', '.join(known[:-1])} or {known[-1]}")
    if name == "graphs" and device.type != "cuda":
        raise ConfigError(f"the path graphs needs a CUDA device, and the model is on {device}: choose auto")
    return cast(PathChoice, name)


def choose_path(
    name: PathChoice, model: SaccadeForConditionalGeneration, slots: Slots, state: State, stride: int
) -> Path:
    """Choose how decoding steps run on a device.

    Args:
        name: A path, or "auto" for the fastest one that the device has.
        model: The model.
        slots: Its slots.
        state: What the steps know.
        stride: For paths that fix their shapes: a step reads a multiple of so many positions.

    Raises:
        ConfigError: for an unknown path, or one that the device does not have.
    """
    device = state.tokens.device

    def plain(batch: int, length: int, draw: bool) -> torch.Tensor:
        return decode(model, slots, state, batch, length, draw)

    check_path(name, device)
    sizes = _powers(slots.count)
    if name == "graphs" or (name == "auto" and device.type == "cuda"):
        reason = "CUDA graphs: a step is launched as one, without work on the host"
        return Path("graphs", reason, _Graphs(plain, state), sizes, stride)
    if name == "compiled":
        reason = "compiled whole, as asked; the first steps compile, for a minute or two where a model is large"
        return Path("compiled", reason, _Compiled(plain, model.config.text_config), sizes, stride)
    reason = "as asked" if name == "plain" else f"library kernels, exact sizes: the {device.type} needs no graphs"
    return Path("plain", reason, plain)


class _Compiled:
    """Steps compiled at their first use."""

    def __init__(self, step: Step, decoder: PreTrainedConfig) -> None:
        self._step, self._decoder = torch.compile(step, fullgraph=True), decoder

    def __call__(self, batch: int, length: int, draw: bool) -> torch.Tensor:
        with grouped_keys(self._decoder), torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
            return self._step(batch, length, draw)


class _Graphs:
    """Steps as CUDA graphs, recorded at their first use."""

    def __init__(self, step: Step, state: State) -> None:
        self._step, self._state = step, state
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def __call__(self, batch: int, length: int, draw: bool) -> torch.Tensor:
        key = (batch, length, draw)
        if key not in self._recorded:
            self._recorded[key] = self._record(*key)
        graph, ids = self._recorded[key]
        graph.replay()
        return ids

    def _record(self, batch: int, length: int, draw: bool) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Record a step; the rehearsals before it leave the state as it was, and in the slots what the step will."""
        moved = (self._state.tokens, self._state.positions)
        before = [tensor.clone() for tensor in moved]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(batch, length, draw)
                for tensor, value in zip(moved, before, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            ids = self._step(batch, length, draw)
        return graph, ids


def _powers(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`, and `most` itself."""
    return (*(2**k for k in range(most.bit_length()) if 2**k < most), most)
