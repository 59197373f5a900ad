"""Conversations for the small models, as ids and roles by hand: what a processor would make, without one."""

import torch
from torch import Tensor

import small
from saccade.config import SaccadeConfig
from saccade.model import SaccadeForConditionalGeneration
from saccade.model.layout import query_positions_of, view_index_of
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

NEW = 6
Row = tuple[list[int], list[int]]
TEXT_ONLY: Row = ([3, 4, 11, 12, 13, 7, 8], [TEXT] * 7)
DEFAULT = small.config()


def build(config: SaccadeConfig) -> SaccadeForConditionalGeneration:
    """A model with seeded weights, all of them random."""
    model = SaccadeForConditionalGeneration(config).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def chat(question: int, *, turns: int = 1, views: int = 1, of: SaccadeConfig = DEFAULT) -> Row:
    """Ids and roles of a conversation whose pictures all stand in its first turn."""
    queries = of.prompt.num_queries
    ids, roles = [3, 4], [TEXT, TEXT]
    ids += [small.IMAGE_ID] * (views * of.tokens_per_view)
    roles += [IMAGE] * (views * of.tokens_per_view)
    for turn in range(turns):
        ids += [10 + turn + n for n in range(question)] + [small.QUERY_ID] * queries + [7, 8]
        roles += [instruction_role(turn)] * question + [query_role(turn)] * queries + [TEXT, TEXT]
    return ids, roles


def single_views(of: SaccadeConfig = DEFAULT) -> list[Row]:
    """Rows of different lengths, one of them without a picture and one with two."""
    return [chat(3, of=of), chat(7, turns=2, of=of), TEXT_ONLY, chat(4, views=2, of=of)]


def in_tiles(of: SaccadeConfig = DEFAULT) -> list[Row]:
    """Rows with pictures of five views each."""
    return [chat(3, views=5, of=of), TEXT_ONLY, chat(7, turns=2, views=10, of=of)]


def num_views(row: Row, of: SaccadeConfig = DEFAULT) -> int:
    """Views of a row."""
    return row[0].count(small.IMAGE_ID) // of.tokens_per_view


def batch(rows: list[Row], side: str = "left", of: SaccadeConfig = DEFAULT) -> dict[str, Tensor]:
    """The rows as the model's arguments; the same pixels come first whatever the rows."""
    longest = max(len(ids) for ids, _ in rows)

    def pad(row: list[int], value: int) -> list[int]:
        fill = [value] * (longest - len(row))
        return fill + row if side == "left" else row + fill

    inputs = {
        "input_ids": torch.tensor([pad(ids, small.PAD_ID) for ids, _ in rows]),
        "mm_token_type_ids": torch.tensor([pad(roles, TEXT) for _, roles in rows]),
        "attention_mask": torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows]),
    }
    if views := sum(num_views(row, of) for row in rows):
        generator = torch.Generator().manual_seed(2)
        inputs["pixel_values"] = torch.randn(views, 3, of.image.side, of.image.side, generator=generator)
    return inputs


def placed(inputs: dict[str, Tensor], of: SaccadeConfig = DEFAULT) -> dict[str, Tensor]:
    """The same inputs with their placements given, as the collator gives them."""
    mask = inputs["input_ids"] == small.IMAGE_ID
    return inputs | {
        "view_index": view_index_of(mask, of.tokens_per_view, inputs["pixel_values"].shape[0]),
        "query_positions": query_positions_of(inputs["mm_token_type_ids"]),
    }


def alone(rows: list[Row], row: int, of: SaccadeConfig = DEFAULT) -> dict[str, Tensor]:
    """One row of a batch by itself, with the pixels that it has in the batch."""
    inputs, first = batch([rows[row]], of=of), sum(num_views(other, of) for other in rows[:row])
    if "pixel_values" in inputs:
        inputs["pixel_values"] = batch(rows, of=of)["pixel_values"][first : first + num_views(rows[row], of)]
    return inputs


def generate(model: SaccadeForConditionalGeneration, inputs: dict[str, Tensor], **options: object) -> Tensor:
    """The new tokens `[batch, new]`, greedily."""
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, **options)
    return output[:, inputs["input_ids"].shape[1] :]


def gradients(model: SaccadeForConditionalGeneration, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by parameter, of the loss on all plain text."""
    model.zero_grad()
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] != TEXT, -100)
    model(**inputs, labels=labels, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
