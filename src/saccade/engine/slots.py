"""The keys and values of all conversations in work: one static buffer per decoder layer, one slot per conversation.

A conversation's tokens stand from the start of its slot, whatever stands in other slots, so that it can enter and leave
without moving them. The buffers never change their place, as CUDA graphs and compiled code want it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from saccade.errors import ConfigError

# One position more than conversations may have: padding writes there, and nothing ever reads it.
_SPARE = 1


@dataclass(frozen=True, slots=True)
class Window:
    """Where a step writes and what it reads.

    Attributes:
        rows: Slot of each row of the batch `[batch]`, or a slice of consecutive slots, which is read without a copy.
        positions: Where the new keys and values of each row go `[batch, new]`.
        length: Positions that can be read, counted from the start of a slot.
        start: The first of the positions where they follow one another and are the same for every row, else None.
    """

    rows: torch.Tensor | slice
    positions: torch.Tensor
    length: int
    start: int | None = None


class SlotLayer(CacheLayerMixin):
    """The slots of one decoder layer.

    Attributes:
        buffers: Keys and values, each `[slots, heads, length, head_dim]`.
        window: Where the next call works.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.buffers = (keys, values)
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self.window: Window | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states `[batch, heads, new, head_dim]`; return what the window reads, `[batch, heads, length, dim]`."""
        window = self.window
        assert window is not None
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            _write(buffer, states, window)
        keys, values = (buffer[window.rows, :, : window.length] for buffer in self.buffers)
        return keys, values

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the buffers are there from the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many positions are read, and from where."""
        return (self.window.length if self.window else query_length), 0

    def get_seq_length(self) -> int:
        """Return 0: slots have lengths of their own, and positions are always given."""
        return 0

    def get_max_length(self) -> int:
        """Return how many positions a conversation may take."""
        return self.buffers[0].shape[2] - _SPARE


def _write(buffer: torch.Tensor, states: torch.Tensor, window: Window) -> None:
    """Put `[batch, heads, new, head_dim]` into a buffer, the fastest way that the window allows."""
    if not isinstance(window.rows, slice):
        buffer[window.rows[:, None], :, window.positions] = states.transpose(1, 2)
    elif window.start is not None:
        buffer[window.rows, :, window.start : window.start + states.shape[2]] = states
    elif torch.compiler.is_compiling():
        # What is scattered into a part of a buffer, compiled code computes in a copy of it.
        rows = torch.arange(window.rows.start, window.rows.stop, device=buffer.device)
        buffer[rows[:, None], :, window.positions] = states.transpose(1, 2)
    else:
        index = window.positions[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        buffer[window.rows].scatter_(2, index, states)


class Slots(Cache):
    """The slots of all layers; a decoder takes it as `past_key_values` once `at` has said where it works.

    Attributes:
        count: Conversations it holds.
        length: Positions of each.
    """

    def __init__(
        self, config: PreTrainedConfig, count: int, length: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
            raise ConfigError("the decoder has layers that do not attend to everything before: use plain generate")
        self.count, self.length = count, length
        shape = (count, heads, length + _SPARE, dim)
        self._slots = [
            SlotLayer(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.num_hidden_layers)
        ]
        super().__init__(layers=list(self._slots))

    def at(self, window: Window) -> "Slots":
        """Work in a window from now on."""
        for layer in self._slots:
            layer.window = window
        return self

    @property
    def spare(self) -> int:
        """The position that padding writes to, behind all others."""
        return self.length

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for layer in self._slots for buffer in layer.buffers)

    @property
    def position_bytes(self) -> int:
        """Bytes that one position of one slot takes."""
        return self.num_bytes // (self.count * (self.length + _SPARE))

    def turned(self, positions: torch.Tensor) -> torch.Tensor:
        """Return positions as the decoder is told them: the spare one may be beyond what it knows, and is told as 0."""
        return positions.masked_fill(positions == self.spare, 0)

    def clear(self, slot: int) -> None:
        """Put zeros into a slot."""
        for layer in self._slots:
            for buffer in layer.buffers:
                buffer[slot] = 0

    def copy_out(self, slot: int, length: int) -> torch.Tensor:
        """Return a copy of the first positions of a slot, `[layers, 2, heads, length, head_dim]`."""
        first = self._slots[0].buffers[0]
        stored = first.new_empty(len(self._slots), 2, first.shape[1], length, first.shape[3])
        for layer, parts in zip(self._slots, stored, strict=True):
            for buffer, part in zip(layer.buffers, parts, strict=True):
                part.copy_(buffer[slot, :, :length])
        return stored

    def copy_in(self, slot: int, stored: torch.Tensor) -> None:
        """Put what `copy_out` returned at the start of a slot."""
        for layer, parts in zip(self._slots, stored, strict=True):
            for buffer, part in zip(layer.buffers, parts, strict=True):
                buffer[slot, :, : part.shape[1]] = part

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first positions of one slot to another."""
        for layer in self._slots:
            for buffer in layer.buffers:
                buffer[target, :, :length] = buffer[source, :, :length]


def to_device(values: Sequence[float] | Sequence[Sequence[int]] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Make a tensor on a device without waiting for what the device is doing."""
    tensor = torch.as_tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
