"""Layouts: how a released checkpoint names its tensors and its settings, as tables that read in both directions.

A table row is a pair of name patterns, theirs and ours. `{n}` stands for a number; a pattern that ends in a dot is a
prefix. The rows are applied to tensor names here and not registered as transformers' `WeightRenaming`, for three
reasons: a released folder must be recognized, and its configuration translated, before any model class can be built;
transformers applies a registered mapping to every folder of our `model_type`, so native folders would be written under
foreign names; and models of one `model_type` come in several released layouts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from saccade.config import SaccadeConfig

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout(ABC):
    """One released layout.

    Attributes:
        name: What messages call it.
        model_type: The `model_type` its config.json declares.
        architecture: The entry of `architectures` its config.json declares.
        table: Rows of (their pattern, our pattern).
    """

    name: str
    model_type: str
    architecture: str
    table: tuple[tuple[str, str], ...]

    def recognizes(self, config_json: Mapping[str, Any]) -> bool:
        """Whether a config.json declares this layout; folder names are never looked at."""
        return config_json.get("model_type") == self.model_type or self.architecture in (
            config_json.get("architectures") or ()
        )

    def rename_to_ours(self, name: str) -> str:
        """Return our name of their tensor.

        A name that no row claims is returned unchanged, our own names among them; a strict load reports the strangers.
        """
        return _rename(name, self._forward)

    def rename_to_theirs(self, name: str) -> str:
        """Return their name of our tensor, the inverse of `rename_to_ours`."""
        return _rename(name, self._backward)

    @abstractmethod
    def to_config(self, config_json: Mapping[str, Any], shapes: Shapes) -> SaccadeConfig:
        """Return our configuration of a released checkpoint.

        Args:
            config_json: Its config.json.
            shapes: Shape of every tensor under its official name, for what config.json does not say.

        Raises:
            CheckpointError: when a setting is missing, contradicts the tensors or is not supported.
        """

    @abstractmethod
    def to_config_json(self, config: SaccadeConfig) -> dict[str, Any]:
        """Return the config.json of a model in this layout, the inverse of `to_config`."""

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_compile(theirs), _replacement(ours)) for theirs, ours in self.table]

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_compile(ours), _replacement(theirs)) for theirs, ours in self.table]


def _rename(name: str, rows: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rows:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def _compile(pattern: str) -> re.Pattern[str]:
    """Return the pattern anchored at the start, and at the end too unless it is a prefix."""
    body = r"(\d+)".join(re.escape(part) for part in pattern.split("{n}"))
    return re.compile(f"^{body}" if pattern.endswith(".") else f"^{body}$")


def _replacement(pattern: str) -> str:
    first, *rest = pattern.split("{n}")
    return first + "".join(rf"\g<{index}>{part}" for index, part in enumerate(rest, start=1))
