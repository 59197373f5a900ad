"""Pictures and conversations that a checkpoint is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.config import ImageConfig
from saccade.image.processor import SaccadeProcessor


@dataclass(frozen=True)
class Sample:
    """A picture, a question about it, and its only right answer."""

    picture: Image.Image
    question: str
    answer: str


def smooth_picture(config: ImageConfig) -> Image.Image:
    """Return a smooth picture with an edge, wider than high, and large enough to be cut by a model that cuts."""
    height = config.grid_side or config.side
    width = 3 * height // 2
    y, x = np.mgrid[:height, :width]
    channels = [240 * x // width, 240 * y // height, 255 * (x > y)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def turned_picture(config: ImageConfig) -> Image.Image:
    """Return another picture, as much higher than wide: it is cut into other rows."""
    return smooth_picture(config).transpose(Image.Transpose.ROTATE_90)


def asked(text: str, picture: Image.Image) -> dict[str, Any]:
    """Return a user's message about a picture."""
    return {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}


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
