"""Pictures and conversations that a checkpoint is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.image.processor import SaccadeProcessor


@dataclass(frozen=True)
class Sample:
    """A picture, a question about it, and its only right answer."""

    picture: Image.Image
    question: str
    answer: str


def smooth_picture() -> Image.Image:
    """Return a smooth picture with an edge, wider than high."""
    y, x = np.mgrid[:40, :61]
    return Image.fromarray(np.stack([4 * x, 6 * y, 255 * (x > y)], axis=2).astype(np.uint8))


def turned_picture() -> Image.Image:
    """Return another picture, higher than wide."""
    return smooth_picture().transpose(Image.Transpose.ROTATE_90)


def asked(text: str, picture: Image.Image | None = None) -> dict[str, Any]:
    """Return a user's message about a picture."""
    shown = {"type": "image", "image": picture or smooth_picture()}
    return {"role": "user", "content": [shown, {"type": "text", "text": text}]}


def model_inputs(processor: SaccadeProcessor, conversations: list[Any]) -> dict[str, Tensor]:
    """Return the model's inputs by the way of the chat template's string, padded on the left."""
    batch: Any = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    return {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values")}
