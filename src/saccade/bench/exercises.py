"""Batches to train on whose words do not matter: rows of one length, with a picture, in one round or in several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from saccade.bench.feeds import lay_out
from saccade.bench.subjects import Feed, Pixels
from saccade.config import SaccadeConfig
from saccade.roles import TEXT, instruction_role, query_role

HALF = 2  # of the text tokens of a round, one in so many is a question's, the others are trained


@dataclass(frozen=True)
class Exercise:
    """What a step is made of.

    Attributes:
        name: What it is called in tables.
        rows: Rows of a batch, each with a picture.
        rounds: Questions with their answers in a row.
        text_tokens: Tokens of a round that are neither visual nor query tokens.
    """

    name: str
    rows: int
    rounds: int
    text_tokens: int

    @property
    def trained_tokens(self) -> int:
        """Tokens of a row that are trained."""
        return self.rounds * self.text_tokens // HALF


def own_batch(config: SaccadeConfig, exercise: Exercise, views: int, pictures: int) -> dict[str, Any]:
    """Return the inputs of a model of this package, with pixels of zeros.

    Args:
        config: The model.
        exercise: What the rows are.
        views: Of every picture.
        pictures: How many there are; rows share them in turn.
    """
    layout = lay_out(config, views, exercise.text_tokens)
    rows, side = exercise.rows, config.image.side
    batch = {
        "input_ids": torch.tensor([layout.ids] * rows),
        "attention_mask": torch.ones(rows, len(layout.ids), dtype=torch.long),
        "mm_token_type_ids": torch.tensor([layout.roles] * rows),
        "pixel_values": torch.zeros(1, 3, side, side).expand(pictures * views, -1, -1, -1),
        "view_index": torch.arange(rows).remainder(pictures).unsqueeze(1) * views + torch.arange(views),
    }
    return with_rounds(batch, config, exercise)


def fed_batch(feed: Feed, config: Any, exercise: Exercise, shown: Pixels, device: torch.device) -> dict[str, Any]:
    """Return the inputs that a feed makes of a picture `[height, width, 3]` in every row, on a device."""
    prepared = feed([shown] * exercise.rows, exercise.text_tokens, device, torch.float32)
    return with_rounds(dict(prepared.inputs), config, exercise)


def with_rounds(batch: dict[str, Any], config: Any, exercise: Exercise) -> dict[str, Any]:
    """Append the rounds after the first to every row: a question, its queries where the model has any, an answer."""
    query = getattr(config, "query", None)
    asked = exercise.text_tokens // HALF
    queries = 0 if query is None else query.num_queries
    words = batch["input_ids"][0, :1].item()
    ids, roles = [], []
    for turn in range(1, exercise.rounds):
        ids += [words] * asked + [config.query_token_id] * queries if queries else [words] * asked
        roles += [instruction_role(turn)] * asked + [query_role(turn)] * queries if queries else [TEXT] * asked
        ids += [words] * (exercise.text_tokens - asked)
        roles += [TEXT] * (exercise.text_tokens - asked)
    added = {"input_ids": ids, "mm_token_type_ids": roles, "attention_mask": [1] * len(ids)}
    for name, values in added.items():
        if name in batch:
            before = batch[name]
            more = torch.tensor(values, dtype=before.dtype, device=before.device)
            batch[name] = torch.cat([before, more.expand(len(before), -1)], dim=1)
    return batch
