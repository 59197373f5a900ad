"""Stages 1 and 2: captions and questions about the rendered world, several questions on one encoded picture."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from saccade.config import SaccadeConfig
from saccade.data.collate import Sample, collate
from saccade.data.scenes import Question
from saccade.image.geometry import num_image_tokens
from saccade.prompt.conversation import Turn
from saccade.prompt.encode import Encoded, encode
from saccade.prompt.render import Segment, render_chat, render_plain
from saccade.train.world import Pictures


class Encoder:
    """Encodes conversations about one picture for a model."""

    def __init__(self, config: SaccadeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer

    def __call__(self, segments: list[Segment], width: int, height: int) -> Encoded:
        """Encode segments that hold one picture of the given size in pixels."""
        tokens = num_image_tokens(width, height, self.config.image, self.config.tokens_per_view)
        return encode(segments, self.tokenizer, [tokens])

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


class CaptionDataset(Pictures):
    """Pictures with their captions in the plain form."""

    def __init__(self, *args: Any, encoder: Encoder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder = encoder

    def __getitem__(self, number: int) -> list[Sample]:
        """Return the one sample of a picture."""
        scene = self.scene(number)
        height, width = scene.image.shape[:2]
        segments = render_plain(scene.caption, self.encoder.config.prompt)
        return [Sample(self.encoder(segments, width, height), self.views(scene))]


class QuestionDataset(CaptionDataset):
    """Pictures with several questions each, asked in conversations of one or more turns."""

    def __init__(self, *args: Any, questions: int, turns: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.questions, self.turns = questions, turns

    def __getitem__(self, number: int) -> list[Sample]:
        """Return conversations that share one array of views."""
        scene = self.scene(number)
        height, width = scene.image.shape[:2]
        views = self.views(scene)
        chosen = spread(scene.questions, self.questions, np.random.default_rng(number))
        samples = []
        for start in range(0, len(chosen), self.turns):
            turns: list[Turn] = []
            for question in chosen[start : start + self.turns]:
                turns += [Turn("user", question.text, images=0 if turns else 1), Turn("assistant", question.answer)]
            segments = render_chat(turns, self.encoder.config.prompt, generate=False)
            samples.append(Sample(self.encoder(segments, width, height), views))
        return samples


def spread(questions: Sequence[Question], count: int, dice: np.random.Generator) -> list[Question]:
    """Choose up to `count` questions in random order, one of every type before a second of any.

    The world asks some types more often than others; training should not.
    """
    shuffled = [questions[place] for place in dice.permutation(len(questions))]
    seen: Counter[str] = Counter()
    rounds = []
    for question in shuffled:
        rounds.append(seen[question.type])
        seen[question.type] += 1
    chosen = sorted(range(len(shuffled)), key=rounds.__getitem__)[:count]
    return [shuffled[place] for place in dice.permutation(chosen)]
