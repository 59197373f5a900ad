"""An explanation: one question with its answer, and what was looked at on the way, as arrays, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.explain.attention import Weights, attend
from saccade.explain.draw import Panel, draw_page
from saccade.explain.maps import Box, grid_boxes, to_map
from saccade.explain.words import group_words
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import instruction_role

_DIGITS = 6  # decimals of a weight in JSON


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """What a model looked at to answer one question about one picture.

    Weights of EmbQ are means over its heads and layers; `saccade.explain.attend` gives each of them.

    Attributes:
        image: The picture, RGB.
        question: What was asked.
        answer: What the model said.
        boxes: What the patches of each view cover, as (left, top, right, bottom) in pixels of the picture.
        words: The words of the question.
        sap: `[views, grid, grid]`, the weight of each patch in its window; a window sums to 1. None where the
            compressor is not SAP.
        query_image: `[queries, views, grid, grid]`, how much each query looked at each patch; a query sums to 1. None
            without EmbQ.
        query_text: `[queries, words]`, how much each query read each word; a query sums to 1. None without EmbQ.
    """

    image: Image.Image
    question: str
    answer: str
    boxes: tuple[Box, ...]
    words: tuple[str, ...]
    sap: Weights | None
    query_image: Weights | None
    query_text: Weights | None

    def to_map(self, weights: Weights) -> Weights:
        """Lay weights `[views, grid, grid]` on the picture, float32 `[height, width]`; see `maps.to_map`."""
        return to_map(weights, self.boxes, *self.image.size)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return `boxes` `[views, 4]`, `words` `[words]` and those of the three weights that the model has."""
        weights = {"sap": self.sap, "query_image": self.query_image, "query_text": self.query_text}
        held = {name: array for name, array in weights.items() if array is not None}
        return {"boxes": np.array(self.boxes), "words": np.array(self.words), **held}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: EmbQ's weights as means over the queries, and None for what the model lacks."""
        width, height = self.image.size
        read = None if self.query_text is None else _rounded(self.query_text.mean(axis=0))
        return {
            "question": self.question,
            "answer": self.answer,
            "image": {"width": width, "height": height},
            "boxes": [list(box) for box in self.boxes],
            "words": list(self.words),
            "query_text": read,
            "query_image": None if self.query_image is None else _rounded(self.query_image.mean(axis=0)),
            "sap": None if self.sap is None else _rounded(self.sap),
        }

    def draw(self) -> Image.Image:
        """Draw the picture, SAP, EmbQ's mean and its queries side by side (as Fig. 4a), above the question's words."""
        top = [Panel("picture", f"{self.image.width} x {self.image.height} pixels")]
        queries: list[Panel] = []
        notes: list[str] = []
        if self.sap is None:
            notes.append("The compressor of this model is not SAP: it weighs all patches alike.")
        else:
            top.append(Panel("SAP", f"up to {self.sap.max():.0%} of a window", self.sap))
        if self.query_image is None:
            notes.append("This model has no embedded queries.")
        else:
            mean = self.query_image.mean(axis=0)
            top.append(_panel(f"EmbQ, mean of {len(self.query_image)} queries", mean))
            queries = [_panel(f"query {number}", weights) for number, weights in enumerate(self.query_image, 1)]
        read = None if self.query_text is None else self.query_text.mean(axis=0)
        words = [] if read is None else list(zip(self.words, read.tolist(), strict=True))
        return draw_page(self.image, self.boxes, (self.question, self.answer), top, queries, words, notes)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the drawing as a PNG file."""
        self.draw().save(path, format="PNG")


def explain(
    model: SaccadeForConditionalGeneration,
    tokenizer: Any,
    picture: Image.Image,
    inputs: Mapping[str, Tensor],
    *,
    question: str,
    answer: str,
) -> Explanation:
    """Explain one prompt that shows one picture and asks one question.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        picture: The picture, RGB.
        inputs: The model's inputs for the prompt, as `attend` takes them, batch 1.
        question: What was asked.
        answer: What the model said.

    Raises:
        ConfigError: when the model has no attention weights to show.
        PromptError: when the prompt shows no picture.
    """
    attention = attend(model, inputs)[0]
    asked = (inputs["mm_token_type_ids"][0] == instruction_role(0)).cpu()
    words, owners = group_words(inputs["input_ids"][0].cpu()[asked].tolist(), tokenizer)
    text, image = attention.query_text, attention.query_image
    return Explanation(
        image=picture,
        question=question,
        answer=answer,
        boxes=grid_boxes(*picture.size, model.config),
        words=words if text is not None else tuple(question.split()),
        sap=attention.sap,
        query_image=None if image is None else image.mean(axis=(0, 1)),
        query_text=None if text is None else text.mean(axis=(0, 1))[:, asked.numpy()] @ _one_hot(owners, len(words)),
    )


def _one_hot(owners: list[int], count: int) -> Weights:
    return np.eye(count, dtype=np.float32)[np.array(owners, dtype=np.int64)]


def _panel(title: str, weights: Weights) -> Panel:
    return Panel(title, f"up to {weights.max():.1%} on a patch", weights)


def _rounded(weights: Weights) -> Any:
    return np.round(weights.astype(np.float64), _DIGITS).tolist()
