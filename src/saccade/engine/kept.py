"""A store of recent things, bounded in bytes: what was not asked for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from saccade.errors import ConfigError

_Value = TypeVar("_Value")


@dataclass
class Counts:
    """What became of the questions to a store.

    Attributes:
        hits: Answered from the store.
        misses: Not there.
        evictions: Things that made room for others.
        num_bytes: Held now.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    num_bytes: int = 0


class Kept(Generic[_Value]):
    """Things by key, the most recently used ones that fit into `max_bytes` together; safe to share between threads.

    Attributes:
        max_bytes: Most bytes held; 0 keeps nothing.
        counts: What happened so far.

    Raises:
        ConfigError: for a negative bound.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ConfigError(f"a store of {max_bytes} bytes: give 0 to keep nothing, or more")
        self.max_bytes = max_bytes
        self.counts = Counts()
        self._held: OrderedDict[str, tuple[_Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> _Value | None:
        """Return the thing of a key, or None, and count which."""
        found = self.first([key])
        return None if found is None else found[1]

    def first(self, keys: Sequence[str]) -> tuple[int, _Value] | None:
        """Return the first of some keys that is there, by its place among them, with its thing: one hit or one miss."""
        with self._lock:
            for index, key in enumerate(keys):
                if key in self._held:
                    self.counts.hits += 1
                    self._held.move_to_end(key)
                    return index, self._held[key][0]
            self.counts.misses += bool(keys)
            return None

    def put(self, key: str, value: _Value, num_bytes: int) -> None:
        """Keep a thing that takes `num_bytes`; one that is larger than the whole store is not kept."""
        with self._lock:
            if num_bytes > self.max_bytes:
                return
            if key in self._held:
                self.counts.num_bytes -= self._held.pop(key)[1]
            self._held[key] = (value, num_bytes)
            self.counts.num_bytes += num_bytes
            while self.counts.num_bytes > self.max_bytes:
                _, (_, freed) = self._held.popitem(last=False)
                self.counts.num_bytes -= freed
                self.counts.evictions += 1

    def __contains__(self, key: str) -> bool:
        """Whether a key is there; neither counted nor taken as use."""
        with self._lock:
            return key in self._held

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)
