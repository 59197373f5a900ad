"""Small models of odd sizes, a batch for one in which every rule of the layout occurs, and a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.config import SaccadeConfig
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

SEED = 20251121
VOCAB, IMAGE_ID, QUERY_ID, INIT_ID, PAD_ID = 300, 292, 290, 5, 0
WINDOW, GRID, HEADS, LAYERS, NUM_QUERIES = 2, 8, 3, 2, 5
TOKENS_PER_VIEW = (GRID // WINDOW) ** 2
# Of the whole batch: two pictures of one view, and one of a thumbnail and four tiles.
NUM_VIEWS, TILED = 7, 5


def config(**query: Any) -> SaccadeConfig:
    """The model's configuration, with fields of the query module changed; its sizes are pairwise different."""
    return SaccadeConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 12,
            "intermediate_size": 14,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "image_size": 24,
            "patch_size": 3,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "phi",
            "vocab_size": VOCAB,
            "hidden_size": 20,
            "intermediate_size": 22,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
        },
        vision={"layer": -2, "post_norm": False},
        compressor={"kind": "sap", "window": WINDOW},
        projector={"hidden_sizes": (16,)},
        query={
            "num_queries": NUM_QUERIES,
            "hidden_size": 9,
            "num_heads": HEADS,
            "num_layers": LAYERS,
            "before_layers": (1,),
            "init_token_id": INIT_ID,
            **query,
        },
        prompt={"query_token": "<query>", "num_queries": NUM_QUERIES},
        image_token_id=IMAGE_ID,
        query_token_id=QUERY_ID,
        lm_head_bias=True,
    )


def changed(base: SaccadeConfig, **fields: Any) -> SaccadeConfig:
    """A configuration with some fields replaced, checked anew."""
    return SaccadeConfig(**{name: value for name, value in base.to_dict().items() if name != "model_type"} | fields)


QWEN2 = {
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "hidden_size": 20,
    "intermediate_size": 22,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


def shuffled() -> SaccadeConfig:
    """The second family's shape: SigLIP with its norm, pixel shuffle, a deep projector behind a norm, no queries."""
    return SaccadeConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 12,
            "intermediate_size": 14,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 30,
            "patch_size": 5,
            "vision_use_head": False,
        },
        text_config=QWEN2,
        compressor={"kind": "pixel_shuffle", "window": 3},
        projector={"hidden_sizes": (18, 14), "input_norm": True},
        image={"side": 30, "resample": "bilinear"},
        image_token_id=IMAGE_ID,
    )


def cropped() -> SaccadeConfig:
    """The same with AIMv2 on overlapping tiles whose outer patches are dropped."""
    return changed(
        shuffled(),
        vision_config={
            "model_type": "aimv2_vision_model",
            "hidden_size": 12,
            "intermediate_size": 14,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 28,
            "patch_size": 4,
            "use_head": False,
        },
        vision={"norm_module": "rms_norm"},
        compressor={"kind": "crop", "margin": 2},
        image={"side": 28, "layout": "dynamic", "max_tiles": 4, "margin": 8, "pad_value": 0},
    )


def model(**query: Any) -> SaccadeForConditionalGeneration:
    """A model with seeded weights, all of them random: a bias or a norm that is dropped must show."""
    generator = torch.Generator().manual_seed(SEED)
    built = SaccadeForConditionalGeneration(config(**query)).eval()
    for parameter in built.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return built


@dataclass
class Row:
    """One row: ids, roles, and which views it shows."""

    ids: list[int]
    roles: list[int]
    views: list[int]


def rows() -> list[Row]:
    """A chat of two turns with a picture each, a row without one, one that shares one, and one with one in tiles."""
    view = ([IMAGE_ID] * TOKENS_PER_VIEW, [IMAGE] * TOKENS_PER_VIEW)

    def text(*ids: int, turn: int | None = None) -> tuple[list[int], list[int]]:
        return list(ids), [TEXT if turn is None else instruction_role(turn)] * len(ids)

    def query_set(turn: int) -> tuple[list[int], list[int]]:
        return [QUERY_ID] * NUM_QUERIES, [query_role(turn)] * NUM_QUERIES

    first = text(7, 8, 9, 10, turn=0), query_set(0)
    chat = [text(1, 2), view, *first, text(3, 11, 12, 4), view, text(13, 14, 15, turn=1), query_set(1), text(3)]
    blind = [text(1, 2), text(16, 17, turn=0), query_set(0), text(3)]
    sharing = [text(1), view, text(18, 7, 19, 20, 21, 22, turn=0), query_set(0), text(3)]
    tiled = [text(1), *[view] * TILED, text(23, 8, 24, turn=0), query_set(0), text(3)]
    return [
        Row([i for ids, _ in parts for i in ids], [r for _, roles in parts for r in roles], views)
        for parts, views in ((chat, [0, 1]), (blind, []), (sharing, [1]), (tiled, [2, 3, 4, 5, 6]))
    ]


def batch(side: str = "left") -> dict[str, Tensor]:
    """The rows as the model's arguments, without the patches."""
    made = rows()
    width = max(len(row.ids) for row in made)
    inputs: dict[str, list[list[int]]] = {
        "input_ids": [],
        "mm_token_type_ids": [],
        "attention_mask": [],
        "view_index": [],
    }
    for row in made:
        gap = width - len(row.ids)
        for name, values, fill in (
            ("input_ids", row.ids, PAD_ID),
            ("mm_token_type_ids", row.roles, TEXT),
            ("attention_mask", [1] * len(row.ids), 0),
        ):
            inputs[name].append([fill] * gap + values if side == "left" else values + [fill] * gap)
        inputs["view_index"].append(row.views + [-1] * (TILED - len(row.views)))
    return {name: torch.tensor(values) for name, values in inputs.items()}


def picture(width: int, height: int) -> Image.Image:
    """A picture that is smooth in red and green, busy in blue, and nowhere symmetric."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x * 37 + y * 91 + x * y) % 256], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))
