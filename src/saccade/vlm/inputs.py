"""From conversations and pictures to the tensors a model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saccade.config import ImageConfig
from saccade.data.collate import pad_prompts, place_views
from saccade.image.geometry import view_rows
from saccade.prompt.conversation import parse_messages
from saccade.prompt.encode import Encoded, encode, end_token_id
from saccade.prompt.render import render_chat

if TYPE_CHECKING:
    from saccade.image.processor import SaccadeProcessor
    from saccade.vlm.chat import Conversation


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A picture that the tower has seen; accepted wherever a picture is, and then costs no tower time.

    Compressor, projector and the decoder's query module still run per question: the last reads the patches with the
    question in mind.

    Attributes:
        patches: Raw patches of the tower `[views, patches, vision_dim]`, on the model's device.
        size: Width and height of the picture in pixels.
        num_tokens: Visual tokens the picture takes in a prompt, texts around its tiles not counted.
        key: SHA-256 of the views the tower saw and of their rows; equal pictures have equal keys.
    """

    patches: Tensor
    size: tuple[int, int]
    num_tokens: int
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class CutImage:
    """A picture cut to what a tower takes, which is all that is kept of it until the tower sees it.

    Attributes:
        views: `[views, 3, side, side]`, uint8.
        size: Width and height of the picture in pixels.
    """

    views: NDArray[np.uint8]
    size: tuple[int, int]

    def key(self, config: ImageConfig) -> str:
        """Hash the views and how they stand in rows: other rows are read in another order, be each view the same."""
        rows = np.array(view_rows(*self.size, config))
        return hashlib.sha256(rows.tobytes() + self.views.tobytes()).hexdigest()


Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | EncodedImage


def batch_inputs(
    conversations: Sequence[Conversation], pictures: Sequence[EncodedImage], processor: SaccadeProcessor
) -> dict[str, Tensor]:
    """Render and tokenize conversations up to the header of the next answer, padded on the left.

    Args:
        conversations: What was said.
        pictures: The pictures of all conversations, in order; one that occurs several times is stored once.
        processor: Holds template and tokenizer.

    Returns:
        Those of `pad_inputs`.

    Raises:
        PromptError: for a conversation that cannot be rendered.
    """
    remaining = iter(pictures)
    rows: list[Encoded] = []
    shown: list[list[EncodedImage]] = []
    for talk in conversations:
        own = [next(remaining) for _ in talk.images]
        rows.append(encode_prompt(talk, [picture.size for picture in own], processor))
        shown.append(own)
    return pad_inputs(rows, shown, processor)


def encode_prompt(conversation: Conversation, sizes: Sequence[tuple[int, int]], processor: SaccadeProcessor) -> Encoded:
    """Render and tokenize a conversation up to the header of the next answer.

    Args:
        conversation: What was said.
        sizes: Width and height of each picture in pixels.
        processor: Holds template and tokenizer.

    Raises:
        PromptError: for a conversation that cannot be rendered.
    """
    segments = render_chat(parse_messages(conversation.messages), processor.prompt, generate=True)
    return encode(segments, processor.tokenizer, [processor.picture_segments(*size) for size in sizes])


def pad_inputs(
    rows: Sequence[Encoded], shown: Sequence[Sequence[EncodedImage]], processor: SaccadeProcessor
) -> dict[str, Tensor]:
    """Pad tokenized prompts on the left and place the pictures of each.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` `[batch, seq]`; with pictures also `image_features`
        `[views, patches, vision_dim]` and `view_index` `[batch, slots]`, -1 where a row has no further view, and with
        query sets `query_positions`.
    """
    inputs = pad_prompts(rows, end_token_id(processor.tokenizer, processor.prompt), "left")
    distinct, view_index = place_views([[picture.patches for picture in own] for own in shown])
    if distinct:
        inputs |= {"image_features": torch.cat(distinct), "view_index": view_index}
    return inputs
