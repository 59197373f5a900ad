"""Rows become prompts: rendered by a model's template and tokenized, before any pixel is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from saccade.config import SaccadeConfig
from saccade.data.collate import Sample, collate
from saccade.data.rows import CaptionRow, ChatRow, PreferenceRow, ProblemRow, Row
from saccade.image import view_rows
from saccade.prompt import Encoded, Segment, Turn, encode, picture_segments, render_chat, render_plain

Size = tuple[int, int]


class Encoder:
    """Encodes conversations for a model.

    Args:
        config: The model's configuration.
        tokenizer: Its tokenizer, placeholders included.
    """

    def __init__(self, config: SaccadeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer

    def __call__(self, segments: list[Segment], *sizes: Size) -> Encoded:
        """Encode segments that hold pictures of the given (width, height) in pixels."""
        config = self.config
        arranged = [view_rows(*size, config.image) for size in sizes]
        pictures = [picture_segments(rows, config.tokens_per_view, config.prompt) for rows in arranged]
        return encode(segments, self.tokenizer, pictures)

    def chat(self, turns: Sequence[Turn], sizes: Sequence[Size]) -> Encoded:
        """Encode a conversation in the chat form, its answers trained; raises PromptError like `render_chat`."""
        return self(render_chat(turns, self.config.prompt, generate=False), *sizes)

    def plain(self, caption: str, sizes: Sequence[Size]) -> Encoded:
        """Encode pictures and their caption in the plain form; raises PromptError like `render_plain`."""
        return self(render_plain(caption, self.config.prompt, len(sizes)), *sizes)

    def row(self, row: Row, sizes: Sequence[Size]) -> list[Encoded]:
        """Encode a row with what is trained or compared: of a preference both answers, of a problem the solution.

        Args:
            row: What is encoded.
            sizes: Width and height of its pictures in pixels.
        """
        match row:
            case ChatRow():
                return [self.chat(row.turns, sizes)]
            case CaptionRow():
                return [self.plain(row.caption, sizes)]
            case PreferenceRow():
                answers = [row.chosen, row.rejected]
            case ProblemRow():
                answers = [row.solution]
            case _:
                raise TypeError(f"{type(row).__name__} is no kind of row")
        return [self.chat([*row.turns, Turn("assistant", answer)], sizes) for answer in answers]

    def collate(self, items: list[list[Sample]]) -> dict[str, torch.Tensor]:
        """Make one training batch of the samples of several pictures."""
        return collate(
            [sample for item in items for sample in item],
            image=self.config.image,
            pad_id=self.tokenizer.pad_token_id,
            tokens_per_view=self.config.tokens_per_view,
            num_queries=self.config.prompt.num_queries,
            labels=True,
        )
