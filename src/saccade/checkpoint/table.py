"""Tables between two ways of naming and cutting tensors, theirs and ours, that read in both directions.

A row is a tuple of patterns, theirs first, then ours. One of ours is a renaming; none means that we have no use for the
tensor; several are equal parts of theirs along its first axis. `{n}` stands for a number, and a pattern that ends in a
dot is a prefix. Theirs may end in `[0]`: ours is then the only entry along its first axis. Where several rows claim a
tensor, the first one does, so alternative names of theirs stand below the one that is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saccade.errors import CheckpointError

_ONLY = "[0]"


@dataclass(frozen=True)
class _Place:
    """Where a tensor of ours lies in theirs: which of how many parts, and whether behind an axis of one."""

    name: str
    part: int = 0
    parts: int = 1
    only: bool = False


@dataclass(frozen=True)
class Table:
    """The rows of a layout.

    Attributes:
        rows: Tuples of patterns as described above.
        wrappers: Prefixes that training code leaves before all of their names; taken off, in any number and order.
    """

    rows: tuple[tuple[str, ...], ...]
    wrappers: tuple[str, ...] = ()

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their tensors under our names and in our cut, as views of theirs.

        A name that no row claims stays, our own names among them; a strict load reports the strangers.

        Raises:
            CheckpointError: when a tensor cannot be cut, or two of theirs are one of ours.
        """
        ours: dict[str, Tensor] = {}
        for name, tensor in theirs.items():
            places = self._places(name)
            for place, part in zip(places, _cut(name, tensor, places), strict=True):
                if place.name in ours:
                    raise CheckpointError(f"{self.name_of_theirs(place.name)} is there twice: keep one of the two")
                ours[place.name] = part
        return ours

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under their names and in their cut, the inverse of `to_ours`.

        Raises:
            CheckpointError: when a part of one of their tensors is missing.
        """
        parts: dict[str, dict[int, Tensor]] = {}
        wanted: dict[str, int] = {}
        for name, tensor in ours.items():
            place = self._place_in_theirs(name)
            parts.setdefault(place.name, {})[place.part] = tensor.unsqueeze(0) if place.only else tensor
            wanted[place.name] = place.parts
        torn = sorted(name for name, count in wanted.items() if len(parts[name]) != count)
        if torn:
            raise CheckpointError(f"this model has only parts of {torn[0]}")
        return {name: _joined([found[part] for part in sorted(found)]) for name, found in parts.items()}

    def names_of_ours(self, name: str) -> list[str]:
        """Return the names of our tensors that theirs becomes."""
        return [place.name for place in self._places(name)]

    def name_of_theirs(self, name: str) -> str:
        """Return the name of their tensor that ours is, or is a part of."""
        return self._place_in_theirs(name).name

    def shape_of_theirs(self, name: str, shape: Sequence[int]) -> list[int]:
        """Return the shape that their tensor has where ours, or every part that is ours, has this one."""
        place = self._place_in_theirs(name)
        axes = [place.parts * shape[0], *shape[1:]] if place.parts > 1 else list(shape)
        return [1, *axes] if place.only else axes

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return those of their names that we have no use for."""
        return [name for name in names if not self._places(name)]

    def official(self, name: str) -> str:
        """Return their name without wrappers."""
        wrapped = self._wrapped.match(name)
        bare = name[wrapped.end() :] if wrapped else name
        return bare if any(pattern.match(bare) for pattern, _ in self._forward) else name

    def _places(self, name: str) -> list[_Place]:
        """Return which tensors of ours theirs becomes; the name in each place is ours."""
        bare = self.official(name)
        for pattern, row in self._forward:
            if pattern.match(bare):
                theirs, *ours = row
                return [
                    _Place(pattern.sub(_replacement(one), bare), part, len(ours), theirs.endswith(_ONLY))
                    for part, one in enumerate(ours)
                ]
        return [_Place(name)]

    def _place_in_theirs(self, name: str) -> _Place:
        for pattern, theirs, part, parts in self._backward:
            if pattern.match(name):
                renamed = pattern.sub(_replacement(theirs.removesuffix(_ONLY)), name)
                return _Place(renamed, part, parts, theirs.endswith(_ONLY))
        return _Place(name)

    @cached_property
    def _wrapped(self) -> re.Pattern[str]:
        return re.compile(f"(?:{'|'.join(map(re.escape, self.wrappers))})*" if self.wrappers else "")

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(_compile(row[0].removesuffix(_ONLY)), row) for row in self.rows]

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str, int, int]]:
        return [
            (_compile(one), theirs, part, len(ours)) for theirs, *ours in self.rows for part, one in enumerate(ours)
        ]


def _cut(name: str, tensor: Tensor, places: Sequence[_Place]) -> Sequence[Tensor]:
    """Return the parts of a tensor of theirs, one for each place."""
    if not places:
        return ()
    if places[0].only:
        if tensor.shape[:1] != (1,):
            raise CheckpointError(f"{name} is {list(tensor.shape)}, but has to have one entry along its first axis")
        tensor = tensor[0]
    if len(places) == 1:
        return (tensor,)
    if tensor.ndim == 0 or tensor.shape[0] % len(places):
        raise CheckpointError(f"{name} is {list(tensor.shape)}, which cannot be cut into {len(places)} equal parts")
    return tensor.chunk(len(places))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _compile(pattern: str) -> re.Pattern[str]:
    """Return the pattern anchored at the start, and at the end too unless it is a prefix."""
    body = r"(\d+)".join(re.escape(part) for part in pattern.split("{n}"))
    return re.compile(f"^{body}" if pattern.endswith(".") else f"^{body}$")


def _replacement(pattern: str) -> str:
    first, *rest = pattern.split("{n}")
    return first + "".join(rf"\g<{index}>{part}" for index, part in enumerate(rest, start=1))
