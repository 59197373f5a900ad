"""From conversations and pictures to the tensors a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.prompt.conversation import parse_messages
from saccade.prompt.encode import Encoded, encode
from saccade.prompt.render import render_chat
from saccade.roles import TEXT
from saccade.vlm.generation import end_token_id

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
        num_tokens: Visual tokens the picture takes in a prompt.
        key: SHA-256 of the pixels the tower saw; equal pictures have equal keys.
    """

    patches: Tensor
    size: tuple[int, int]
    num_tokens: int
    key: str


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
        `input_ids`, `attention_mask`, `mm_token_type_ids` `[batch, seq]`; with pictures also `image_features`
        `[views, patches, vision_dim]` and `view_index` `[batch, slots]`, -1 where a row has no further view.

    Raises:
        PromptError: for a conversation that cannot be rendered.
    """
    remaining = iter(pictures)
    rows: list[Encoded] = []
    shown: list[list[EncodedImage]] = []
    for talk in conversations:
        own = [next(remaining) for _ in talk.images]
        segments = render_chat(parse_messages(talk.messages), processor.prompt, generate=True)
        rows.append(encode(segments, processor.tokenizer, [picture.num_tokens for picture in own]))
        shown.append(own)
    ids = [row.input_ids for row in rows]
    inputs = {
        "input_ids": _padded(ids, end_token_id(processor), left=True),
        "attention_mask": _padded([[1] * len(row) for row in ids], 0, left=True),
        "mm_token_type_ids": _padded([row.roles for row in rows], TEXT, left=True),
    }
    if pictures:
        distinct = {id(picture): picture for picture in pictures}
        place: dict[int, range] = {}
        start = 0
        for key, picture in distinct.items():
            place[key] = range(start, start + len(picture.patches))
            start = place[key].stop
        inputs["image_features"] = torch.cat([picture.patches for picture in distinct.values()])
        slots = [[view for picture in own for view in place[id(picture)]] for own in shown]
        inputs["view_index"] = _padded(slots, -1, left=False)
    return inputs


def _padded(rows: Sequence[Sequence[int]], filler: int, *, left: bool) -> Tensor:
    """Stack rows of different lengths to `[batch, longest]`."""
    width = max(len(row) for row in rows)
    fill = [[filler] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, fill, strict=True)])
