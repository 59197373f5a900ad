"""Layouts: how a released checkpoint names its tensors and its settings, in both directions.

The table of a layout is applied to tensors here and not registered as transformers' `WeightRenaming` and
`WeightConverter`, for three reasons: a released folder must be recognized, and its configuration translated, before any
model class can be built; transformers applies a registered mapping to every folder of our `model_type`, so native
folders would be written under foreign names; and models of one `model_type` come in several released layouts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.checkpoint.questions import Question
from saccade.checkpoint.table import Table
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """One released layout.

    Attributes:
        name: What messages call it.
        model_type: The `model_type` its config.json declares.
        architecture: The entry of `architectures` its config.json declares.
        table: Names and cut of its tensors.
        stops: Tokens that end an answer beside the template's own.
    """

    name: str
    model_type: str
    architecture: str
    table: Table
    stops: tuple[str, ...] = ()

    def recognizes(self, config_json: Mapping[str, Any]) -> bool:
        """Whether a config.json declares this layout; folder names are never looked at."""
        return config_json.get("model_type") == self.model_type or self.architecture in (
            config_json.get("architectures") or ()
        )

    def misfit(self, shapes: Shapes) -> str | None:
        """Return why these tensors do not follow this layout, None where they do.

        Only where several layouts recognize one config.json does this decide between them; whether every tensor is in
        its place is for the strict load to find out.
        """
        return None

    def shapes(self, theirs: Mapping[str, Tensor]) -> Shapes:
        """Return the shape of every tensor under its official name."""
        return {self.table.official(name): tuple(tensor.shape) for name, tensor in theirs.items()}

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
        """Return the config.json of a model in this layout, the inverse of `to_config`.

        Raises:
            CheckpointError: when the layout has no words for the model.
        """

    def facts(
        self, folder: Path, stored: Mapping[str, Tensor], tokenizer: Any
    ) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield what is worth knowing about a release and can be read off its files: a name, and what finds it out.

        Args:
            folder: The released folder.
            stored: Its tensors under our names.
            tokenizer: Its tokenizer, placeholders included.
        """
        yield from ()

    def questions(self, config: SaccadeConfig) -> tuple[Question, ...]:
        """Return what the files of a release do not say, so that only its answers can tell."""
        return ()


def find_layout(
    config_json: Mapping[str, Any], theirs: Mapping[str, Tensor], layouts: Sequence[Layout], folder: Path
) -> Layout | None:
    """Return the layout of a released folder, None for a native one.

    Raises:
        CheckpointError: when no layout is declared, or the tensors follow none of those that are.
    """
    if config_json.get("model_type") == SaccadeConfig.model_type:
        return None
    declared = [layout for layout in layouts if layout.recognizes(config_json)]
    if not declared:
        known = ", ".join(dict.fromkeys([SaccadeConfig.model_type, *(layout.model_type for layout in layouts)]))
        raise CheckpointError(
            f"{folder} declares model_type {config_json.get('model_type')!r}, which is none of {known}: use a "
            "checkpoint in one of these layouts"
        )
    reasons = []
    for layout in declared:
        misfit = layout.misfit(layout.shapes(theirs))
        if misfit is None:
            return layout
        reasons.append(f"{layout.name}: {misfit}")
    raise CheckpointError(f"the tensors in {folder} fit no release ({'; '.join(reasons)}): download them again")
