"""Direct preference optimization through trl, on batches that carry their masks (Flash-VL, stage 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from saccade.data.collate import Sample
from saccade.data.encoder import Encoder
from saccade.data.rows import Row, Rows
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt.encode import IGNORE
from saccade.train.reference import ComparingTrainer, numbers
from saccade.train.rows import open_views
from saccade.train.stages import Stage
from saccade.train.tasks import Preferences

# By this column trl knows a data set with pictures, whose batches it leaves to a collator.
NUMBER = "images"


class PreferenceTrainer(ComparingTrainer, DPOTrainer):
    """trl's trainer with our batches, groups of parameters and reference model.

    Args:
        model: What learns, adapters included.
        stage: What it learns, in how many steps; its task is `Preferences`.
        rows: Preference rows by number, at least `steps * batch` of them.
        encoder: Of the model.
        settings: Those of any stage, by the names of transformers' `TrainingArguments`.

    Raises:
        ConfigError: when the groups do not fit the model, or its output head has adapters.
    """

    def __init__(
        self,
        model: SaccadeForConditionalGeneration,
        stage: Stage,
        rows: Rows,
        encoder: Encoder,
        settings: dict[str, Any],
    ) -> None:
        task = stage.task
        assert isinstance(task, Preferences)
        assert stage.steps is not None
        losses = {"sigmoid": 1.0} | ({"sft": task.likelihood} if task.likelihood else {})
        super().__init__(
            model=model,
            ref_model=self.borrow(model, stage),
            args=DPOConfig(
                **settings,
                beta=task.beta,
                loss_type=list(losses),
                loss_weights=list(losses.values()),
                max_length=None,  # rows that are too long were refused before; trl would cut them
                disable_dropout=True,
            ),
            data_collator=Pairs(rows, encoder),
            train_dataset=numbers(NUMBER, stage.steps * stage.batch),
            processing_class=build_processor(model.config, encoder.tokenizer),
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Makes batches of preference rows.

    Attributes:
        rows: By number.
        encoder: Of the model.
    """

    rows: Rows
    encoder: Encoder

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Stack the good answers of some rows, then the worse ones; the two of a row share its pictures.

        Returns:
            What the model takes (see `collate`), `[2 * rows, ...]`, and `completion_mask` `[2 * rows, seq]`, 1 on the
            tokens of the answers that are compared: earlier answers of a conversation are none of these.
        """
        pairs = [open_pair(self.rows[item[NUMBER]], self.encoder) for item in items]
        batch = self.encoder.collate([[pair[side] for pair in pairs] for side in (0, 1)])
        return batch | {"completion_mask": last_answers(batch.pop("labels"))}


def open_pair(row: Row, encoder: Encoder) -> list[Sample]:
    """Return a conversation with its good answer, and with the worse one; raises RowError like `open_views`."""
    views, sizes = open_views(row, encoder)
    return [Sample(encoded, views) for encoded in encoder.row(row, sizes)]


def last_answers(labels: torch.Tensor) -> torch.Tensor:
    """Mark, in labels `[batch, seq]` of conversations, the tokens of the last answer of each; int64 `[batch, seq]`."""
    trained = labels != IGNORE
    place = torch.arange(1, labels.shape[1] + 1)
    last = (trained * place).amax(dim=1, keepdim=True)
    before = (~trained * place * (place < last)).amax(dim=1, keepdim=True)
    return (trained & (place > before)).long()
