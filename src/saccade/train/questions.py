"""Stages 1 and 2: captions and questions about the rendered world, several questions on one encoded picture."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from saccade.config import SaccadeConfig
from saccade.data.collate import Sample, collate
from saccade.data.scenes import Dice, Question, Scene, ask_to_describe, ask_where
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
    """Pictures with several questions each, asked in conversations of one or more turns.

    Args:
        questions: Most questions of a picture.
        turns: Most questions in a conversation.
        where: Share of the pictures of which it is also asked where something is.
        describe: Share of the pictures whose caption is also asked for.
    """

    def __init__(
        self, *args: Any, questions: int, turns: int, where: float = 0.0, describe: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.questions, self.turns = questions, turns
        self.where, self.describe = where, describe

    def __getitem__(self, number: int) -> list[Sample]:
        """Return conversations that share one array of views."""
        scene = self.scene(number)
        height, width = scene.image.shape[:2]
        views = self.views(scene)
        dice = Dice(np.random.default_rng(number))
        where = ask_where(dice, scene) if dice.chance(self.where) else None
        chosen = dice.shuffled(spread(dice, scene.questions, self.questions) + ([where] if where else []))
        asked = [chosen[start : start + self.turns] for start in range(0, len(chosen), self.turns)]
        if dice.chance(self.describe):
            asked.append([ask_to_describe(dice, scene)])
        samples = []
        for questions in asked:
            turns: list[Turn] = []
            for question in questions:
                turns += [Turn("user", question.text, images=0 if turns else 1), Turn("assistant", question.answer)]
            segments = render_chat(turns, self.encoder.config.prompt, generate=False)
            samples.append(Sample(self.encoder(segments, width, height), views))
        return samples


def spread(dice: Dice, questions: Sequence[Question], count: int) -> list[Question]:
    """Choose up to `count` questions, one of every type before a second of any.

    The world asks some types more often than others; training should not.
    """
    seen: Counter[str] = Counter()
    rounds = []
    for question in dice.shuffled(questions):
        rounds.append((seen[question.type], question))
        seen[question.type] += 1
    return [question for _, question in sorted(rounds, key=itemgetter(0))[:count]]
