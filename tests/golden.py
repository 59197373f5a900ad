"""Tensors of the reference model, and the translation of its prompts into ours.

The reference marks a picture by one id and a query set by another, and expands both inside its forward pass; it finds
what a query set reads by searching ids. Here both placeholders are expanded and the roles written down first, from the
structure of the prompts alone; the ranges that the reference found are used to check the result, never to make it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from conftest import GOLDEN
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.config import SaccadeConfig
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

FOLDER = GOLDEN / "flashsloth"

# Ids of the reference's prompts.
THEIR_IMAGE, THEIR_QUERY, END, PAD, IGNORED = -200, 790, 798, 799, -100
# A row of the vocabulary that no prompt uses stands for our visual tokens.
IMAGE_ID, QUERY_ID = 792, THEIR_QUERY
TEXT_PREFIX = 31  # ids before the question of a prompt without a picture
TURN_START = 3  # the end of an answer and the two ids of the next user's header
NUM_QUERIES, PATCHES_PER_VIEW, TOKENS_PER_VIEW = 9, 36, 4

STAGE, WHOLE = {"atol": 1e-5, "rtol": 1e-5}, {"atol": 1e-4, "rtol": 1e-5}


def case(name: str) -> dict[str, Tensor]:
    """Inputs and expected outputs of a case.

    The reference gives the views of a picture an axis of their own, or joins their patches; here every view is apart.
    """
    tensors = load_file(FOLDER / "cases" / f"{name}.safetensors")
    if "pixel_values" in tensors:
        tensors["pixel_values"] = tensors["pixel_values"].flatten(0, -4)
    if "embq_image_features" in tensors:
        joined = tensors["embq_image_features"]
        tensors["embq_image_features"] = joined.unflatten(1, (-1, PATCHES_PER_VIEW)).flatten(0, 1)
    return tensors


def state_dict() -> dict[str, Tensor]:
    """The reference's weights under its own names."""
    return load_file(FOLDER / "state_dict.safetensors")


def config(**changes: Any) -> SaccadeConfig:
    """The small reference model as a configuration of ours."""
    facts = json.loads((FOLDER / "config.json").read_text())
    vision, text, query = facts["vision"], facts["llm"], facts["embq"]
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")
    vision_names = (*shared, "image_size", "patch_size")
    text_names = (
        *shared, "vocab_size", "max_position_embeddings", "resid_pdrop", "embd_pdrop", "attention_dropout",
        "hidden_act", "num_key_value_heads", "qk_layernorm", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    rope = {"rope_type": "default", **{name: text[name] for name in ("rope_theta", "partial_rotary_factor")}}
    fields: dict[str, Any] = {
        "vision_config": {
            "model_type": "siglip_vision_model",
            **{name: vision[name] for name in vision_names},
            "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
        "text_config": {"model_type": "phi", **{name: text[name] for name in text_names}, "rope_parameters": rope},
        "vision": {"layer": -2, "post_norm": False},
        "compressor": {"kind": "sap", "window": facts["sap"]["pool"], "dropout": facts["sap"]["dropout_train_only"]},
        "projector": {"hidden_sizes": (facts["projector"]["hidden"],)},
        "query": {
            "num_queries": query["num_queries"],
            "hidden_size": query["dim"],
            "num_heads": query["num_heads"],
            "num_layers": query["num_layers"],
            "before_layers": (query["runs_before_layer_0based"],),
            "init_token_id": facts["tokens"]["dot_token"],
        },
        "image": {"side": vision["image_size"]},
        "prompt": {"query_token": "<learnable>", "num_queries": query["num_queries"]},
        "image_token_id": IMAGE_ID,
        "query_token_id": QUERY_ID,
        "lm_head_bias": True,
    }
    return SaccadeConfig(**{**fields, **changes})


@cache
def model() -> SaccadeForConditionalGeneration:
    """The small reference model, in evaluation mode; shared by tests that do not change it."""
    return fresh_model()


def fresh_model() -> SaccadeForConditionalGeneration:
    """A copy of the small reference model that a test may change."""
    built = SaccadeForConditionalGeneration(config())
    built.load_state_dict(FLASHSLOTH.table.to_ours(state_dict()), strict=True)
    return built.eval()


@dataclass
class Row:
    """One expanded prompt.

    Attributes:
        ids: Token ids, one placeholder per visual and per query token.
        roles: See `saccade.roles`.
        labels: Targets, IGNORED where not trained.
        spans: For each query set, the half-open range it reads.
        starts: For each query set, its first position.
    """

    ids: list[int]
    roles: list[int]
    labels: list[int]
    spans: list[tuple[int, int]]
    starts: list[int]


def expand(
    ids: list[int],
    labels: list[int] | None = None,
    *,
    plain: bool = False,
    history: str = "own",
    bare_query: bool = False,
    views: int = 1,
) -> Row:
    """Expand one of the reference's prompts, without padding.

    Args:
        ids: The prompt.
        labels: Its targets.
        plain: The pretraining form: picture, caption, queries, newline; the first caption token is not read.
        history: "own" or "first", as `PromptConfig.history_instruction`.
        bare_query: The query placeholder is an ordinary token.
        views: Views of a picture.
    """
    row, turn = Row([], [], [], [], []), 0
    labels = labels or [IGNORED] * len(ids)
    # After the picture comes a newline in the chat form, and the caption token that is skipped in the plain form.
    start = ids.index(THEIR_IMAGE) + 2 if THEIR_IMAGE in ids else TEXT_PREFIX
    for index, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if token == THEIR_IMAGE:
            _extend(row, [IMAGE_ID] * (views * TOKENS_PER_VIEW), IMAGE)
        elif token == THEIR_QUERY and not bare_query:
            reads = 0 if history == "first" else turn
            row.starts.append(len(row.ids))
            _extend(row, [QUERY_ID] * NUM_QUERIES, query_role(reads))
            first = row.roles.index(instruction_role(reads))
            row.spans.append((first, first + row.roles.count(instruction_role(reads))))
            turn, start = turn + 1, len(ids)
        else:
            if token == END:
                start = index + TURN_START
            read = index >= start and not bare_query and THEIR_QUERY in ids[index:]
            _extend(row, [token], instruction_role(turn) if read else TEXT, label)
    return row


def _extend(row: Row, ids: list[int], role: int, label: int = IGNORED) -> None:
    row.ids += ids
    row.roles += [role] * len(ids)
    row.labels += [label] * len(ids)


def rows_of(tensors: dict[str, Tensor], **options: Any) -> list[Row]:
    """Expand every row of a case."""
    views = len(tensors["pixel_values"]) // len(tensors["input_ids"]) if "pixel_values" in tensors else 1
    rows = []
    for index, ids in enumerate(tensors["input_ids"]):
        keep = tensors["attention_mask"][index].bool()
        labels = tensors["labels"][index][keep].tolist() if "labels" in tensors else None
        rows.append(expand(ids[keep].tolist(), labels, views=views, **options))
    return rows


def batch(rows: list[Row], *, side: str = "right", labels: bool = False) -> dict[str, Tensor]:
    """Pad rows into the model's arguments."""
    width = max(len(row.ids) for row in rows)

    def padded(values: list[list[int]], fill: int) -> Tensor:
        gaps = [[fill] * (width - len(value)) for value in values]
        joined = [value + gap if side == "right" else gap + value for value, gap in zip(values, gaps, strict=True)]
        return torch.tensor(joined)

    mask = padded([[1] * len(row.ids) for row in rows], 0)
    inputs = {
        "input_ids": padded([row.ids for row in rows], PAD),
        "mm_token_type_ids": padded([row.roles for row in rows], TEXT),
        "attention_mask": mask,
    }
    if labels:
        inputs["labels"] = padded([row.labels for row in rows], IGNORED)
    return inputs


def shown(tensors: dict[str, Tensor], name: str) -> Tensor:
    """What a tensor `[views, ...]` holds for rows with a picture; the reference gives the others a black one."""
    rows = tensors["modal"] == 2
    return tensors[name][rows.repeat_interleave(len(tensors[name]) // len(rows))]


def whole_inputs(name: str, **options: Any) -> tuple[dict[str, Tensor], list[Row], dict[str, Tensor]]:
    """Return a case, its rows, and the model's arguments for it, right padded as in the reference."""
    tensors = case(name)
    rows = rows_of(tensors, **options)
    inputs = batch(rows, labels="labels" in tensors)
    if "pixel_values" in tensors:
        inputs["pixel_values"] = shown(tensors, "pixel_values")
    return tensors, rows, inputs


def close(actual: Tensor, expected: Tensor, tolerance: dict[str, float]) -> None:
    """Assert that two tensors agree."""
    torch.testing.assert_close(actual.detach(), expected, **tolerance)
