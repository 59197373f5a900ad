"""Decoded pictures to a model's inputs: our own preprocessing, and that of the peers from transformers.

Words do not matter to speed, so a question is a number of tokens: half of them before the picture, half behind it,
their ids drawn once. Pictures of one call have one size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.bench.subjects import Pixels, Prepared
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError
from saccade.image import normalize, to_views
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

TEXT_SEED = 20251121
LOWEST_ID = 8  # below stand the special tokens of small vocabularies, and in the upper half those of large ones
HEADER = 4  # tokens between an instruction, or its queries, and the answer
LEAST_TEXT = 2 * HEADER + 2


@dataclass(frozen=True)
class Layout:
    """The prompt of a model of this package.

    Attributes:
        ids: Token ids.
        roles: What each is, see `saccade.roles`, as the model's template would give them.
        visual_tokens: Visual tokens among them.
        query_tokens: Query tokens among them.
    """

    ids: list[int]
    roles: list[int]
    visual_tokens: int
    query_tokens: int


def lay_out(config: SaccadeConfig, views: int, text_tokens: int, *, reworded: bool = False) -> Layout:
    """Lay out a prompt: text, a picture of so many views, an instruction, its queries, and the answer's header.

    Args:
        config: The model.
        views: Views of the picture.
        text_tokens: Tokens that are neither visual nor query tokens.
        reworded: Whether the instruction is another one of the same length.

    Raises:
        ConfigError: for too few text tokens.
    """
    visual = views * config.tokens_per_view
    queries = 0 if config.query is None else config.query.num_queries
    before, after = _text(text_tokens, config.text_config.vocab_size)
    instruction, header = after[:-HEADER], after[-HEADER:]
    ids = [*before, *[config.image_token_id] * visual, *(instruction[::-1] if reworded else instruction)]
    roles = [TEXT] * len(before) + [IMAGE] * visual
    if queries:
        assert config.query_token_id is not None
        ids += [config.query_token_id] * queries
        roles += [instruction_role(0)] * len(instruction) + [query_role(0)] * queries
    else:
        roles += [TEXT] * len(instruction)
    return Layout([*ids, *header], roles + [TEXT] * HEADER, visual, queries)


@dataclass(frozen=True)
class OwnFeed:
    """Inputs of a model of this package: exact preprocessing."""

    config: SaccadeConfig

    def __call__(
        self, pictures: Sequence[Pixels], text_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> Prepared:
        """See `Feed`."""
        config = self.config
        cut = [to_views(Image.fromarray(picture), config.image) for picture in pictures]
        pixels = torch.from_numpy(normalize(np.concatenate(cut), config.image)).to(device, dtype)
        layout = lay_out(config, len(cut[0]), text_tokens)
        inputs = _rows(layout.ids, len(pictures), device)
        inputs["mm_token_type_ids"] = torch.tensor([layout.roles] * len(pictures), device=device)
        return Prepared(inputs | {"pixel_values": pixels}, len(layout.ids), layout.visual_tokens, layout.query_tokens)


@dataclass(frozen=True)
class PeerFeed(ABC):
    """Inputs of a peer, made by transformers' own picture processor.

    Attributes:
        config: The peer.
        images: Its picture processor.
    """

    config: Any
    images: Any
    not_for_the_model: ClassVar[tuple[str, ...]] = ()

    def __call__(
        self, pictures: Sequence[Pixels], text_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> Prepared:
        """See `Feed`."""
        found = self.images(list(pictures), return_tensors="pt")
        height, width = pictures[0].shape[:2]
        visual = self.visual_tokens(found, width, height)
        first, last = self.ends()
        before, after = _text(text_tokens - len(first) - len(last), self.config.text_config.vocab_size)
        ids = [*before, *first, *[self.config.image_token_id] * visual, *last, *after]
        moved = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in found.items()
            if isinstance(value, Tensor) and name not in self.not_for_the_model
        }
        return Prepared(_rows(ids, len(pictures), device) | moved, len(ids), visual)

    @abstractmethod
    def visual_tokens(self, found: Any, width: int, height: int) -> int:
        """Count the visual tokens of a picture from what the processor found, or from its size."""

    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that stand right before and behind the visual tokens, counted as text."""
        return (), ()


class SquareFeed(PeerFeed):
    """Every picture as one square view: LLaVA-1.5."""

    def visual_tokens(self, found: Any, width: int, height: int) -> int:
        """See `PeerFeed`."""
        tower = self.config.vision_config
        return int((tower.image_size // tower.patch_size) ** 2)


class PatchFeed(PeerFeed):
    """Pictures keep their size: Qwen2-VL."""

    def __call__(
        self, pictures: Sequence[Pixels], text_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> Prepared:
        """See `Feed`."""
        prepared = super().__call__(pictures, text_tokens, device, dtype)
        kinds = (prepared.inputs["input_ids"] == self.config.image_token_id).long()
        return replace(prepared, inputs={**prepared.inputs, "mm_token_type_ids": kinds})

    def visual_tokens(self, found: Any, width: int, height: int) -> int:
        """See `PeerFeed`."""
        return int(found["image_grid_thw"][0].prod()) // int(self.images.merge_size) ** 2

    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `PeerFeed`."""
        return (self.config.vision_start_token_id,), (self.config.vision_end_token_id,)


class TileFeed(PeerFeed):
    """Pictures cut into tiles of so many tokens and a thumbnail: InternVL2."""

    not_for_the_model = ("num_patches",)

    def visual_tokens(self, found: Any, width: int, height: int) -> int:
        """See `PeerFeed`."""
        return int(found["num_patches"][0]) * int(self.config.image_seq_length)


class AnyresFeed(PeerFeed):
    """Pictures cut into tiles, whose padding is dropped and whose rows get an end each: LLaVA-OneVision."""

    def visual_tokens(self, found: Any, width: int, height: int) -> int:
        """Count the visual tokens of a picture as the model packs them: a thumbnail, and rows with an end each."""
        from transformers.image_processing_utils import select_best_resolution

        tower = self.config.vision_config
        side = tower.image_size // tower.patch_size
        canvas = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        rows, columns = (side * (length // tower.image_size) for length in canvas)
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        most = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        shrink = math.sqrt(rows * columns / (most * side**2))
        if shrink > 1.1:  # as the model has it
            rows, columns = int(rows // shrink), int(columns // shrink)
        return int(side**2 + rows * (columns + 1))


def text_ids(count: int, vocab: int) -> list[int]:
    """Draw the ids of a prompt's text.

    Args:
        count: How many.
        vocab: Entries of the vocabulary.

    Raises:
        ConfigError: for too few.
    """
    if count < LEAST_TEXT:
        raise ConfigError(f"{count} text tokens are too few for a prompt: take {LEAST_TEXT} or more")
    generator = torch.Generator().manual_seed(TEXT_SEED)
    drawn: list[int] = torch.randint(LOWEST_ID, vocab // 2, (count,), generator=generator).tolist()
    return drawn


def _text(count: int, vocab: int) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt's text, before the picture and behind it."""
    ids = text_ids(count, vocab)
    return ids[: count // 2], ids[count // 2 :]


def _rows(ids: Sequence[int], batch: int, device: torch.device) -> dict[str, Tensor]:
    rows = torch.tensor([ids] * batch, device=device)
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
