"""An explanation: one question with its answer, and what was looked at on the way, as arrays, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.explain.answer import read_by_answer, to_patches
from saccade.explain.attention import Weights, attend
from saccade.explain.draw import Panel, draw_page
from saccade.explain.maps import Box, grid_boxes, kept_boxes, to_map
from saccade.explain.words import group_words
from saccade.image.geometry import view_rows
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
        kept: What is each view's own, without its margin, in the same form.
        rows: How the views stand in rows: how many show the whole picture, then the tiles in each row; see
            `saccade.image.geometry.view_rows`.
        words: The words of the question.
        answer_image: `[views, grid, grid]`, how much the answer read each patch by way of the visual tokens that stand
            for it; sums to 1. None where the compressor's tokens stand for no place in the picture.
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
    kept: tuple[Box, ...]
    rows: tuple[int, ...]
    words: tuple[str, ...]
    answer_image: Weights | None
    sap: Weights | None
    query_image: Weights | None
    query_text: Weights | None

    def to_map(self, weights: Weights) -> Weights:
        """Lay weights `[views, grid, grid]` on the picture, float32 `[height, width]`; see `maps.to_map`."""
        return to_map(weights, self.boxes, *self.image.size)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return `boxes` and `kept` `[views, 4]`, `rows`, `words` and those of the four weights that the model has."""
        weights = {
            "answer_image": self.answer_image,
            "sap": self.sap,
            "query_image": self.query_image,
            "query_text": self.query_text,
        }
        told = {"boxes": self.boxes, "kept": self.kept, "rows": self.rows, "words": self.words}
        return {name: np.array(value) for name, value in (told | weights).items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: EmbQ's weights as means over the queries, and None for what the model lacks."""
        width, height = self.image.size
        read = None if self.query_text is None else _rounded(self.query_text.mean(axis=0))
        return {
            "question": self.question,
            "answer": self.answer,
            "image": {"width": width, "height": height},
            "boxes": [list(box) for box in self.boxes],
            "kept": [list(box) for box in self.kept],
            "rows": list(self.rows),
            "words": list(self.words),
            "query_text": read,
            "query_image": None if self.query_image is None else _rounded(self.query_image.mean(axis=0)),
            "sap": None if self.sap is None else _rounded(self.sap),
            "answer_image": None if self.answer_image is None else _rounded(self.answer_image),
        }

    def draw(self) -> Image.Image:
        """Draw the picture and what was looked at side by side, above the question's words.

        First the answer's attention, of all views and, where there are tiles, of the thumbnail and of them; then SAP,
        EmbQ's mean and its queries (as FlashSloth, Fig. 4a).
        """
        top, notes = self._views()
        queries: list[Panel] = []
        if self.sap is None:
            notes.append("The compressor of this model is not SAP: there are no weights of its own to show.")
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

    def _views(self) -> tuple[list[Panel], list[str]]:
        """Return panels for the picture and the answer's attention, and what there is to say about them."""
        whole, *tiles = self.rows
        of_tiles = slice(whole, None) if tiles else slice(0)
        lines, shared = self.kept[of_tiles], self.boxes[of_tiles]
        size = f"{self.image.width} x {self.image.height} pixels"
        panels, notes = [Panel("picture", size, lines=lines, shared=shared)], []
        if tiles:
            notes.append(
                f"The model sees the picture in {tiles[0]} x {len(tiles)} tiles"
                + (", of which neighbors share what is hatched" if self.boxes[whole][2] > self.kept[whole][2] else "")
                + (", and the whole of it in a thumbnail." if whole else ".")
            )
        if self.answer_image is None:
            notes.append(
                "Each visual token of this model is made of a whole view, so the answer looked at no place in it."
            )
        elif tiles and whole:
            thumbnail = np.zeros_like(self.answer_image)
            thumbnail[:whole] = self.answer_image[:whole]
            cut = self.answer_image - thumbnail
            panels += [
                _panel("answer, all views", self.answer_image),
                Panel("answer, thumbnail", _share(thumbnail), thumbnail),
                Panel("answer, tiles", _share(cut), cut, lines=lines),
            ]
        else:
            panels.append(_panel("answer", self.answer_image, lines))
        return panels, notes

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
    answer_ids: Sequence[int],
) -> Explanation:
    """Explain one prompt that shows one picture and asks one question, and its answer.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        picture: The picture, RGB.
        inputs: The model's inputs for the prompt, as `attend` takes them, batch 1.
        question: What was asked.
        answer: What the model said.
        answer_ids: The tokens it said, at least one.

    Raises:
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
        kept=kept_boxes(*picture.size, model.config),
        rows=view_rows(*picture.size, model.config.image),
        words=words if text is not None else tuple(question.split()),
        answer_image=_answer_image(model, inputs, answer_ids, attention.sap),
        sap=attention.sap,
        query_image=None if image is None else image.mean(axis=(0, 1)),
        query_text=None if text is None else text.mean(axis=(0, 1))[:, asked.numpy()] @ _one_hot(owners, len(words)),
    )


def _answer_image(
    model: SaccadeForConditionalGeneration, inputs: Mapping[str, Tensor], answer_ids: Sequence[int], sap: Weights | None
) -> Weights | None:
    owners = model.config.compressor.owners(model.config.grid)
    return None if owners is None else to_patches(read_by_answer(model, inputs, answer_ids), owners, sap)


def _one_hot(owners: list[int], count: int) -> Weights:
    return np.eye(count, dtype=np.float32)[np.array(owners, dtype=np.int64)]


def _panel(title: str, weights: Weights, lines: Sequence[Box] = ()) -> Panel:
    return Panel(title, f"up to {weights.max():.1%} on a patch", weights, lines)


def _share(weights: Weights) -> str:
    return f"{weights.sum():.0%} of the attention"


def _rounded(weights: Weights) -> Any:
    return np.round(weights.astype(np.float64), _DIGITS).tolist()
