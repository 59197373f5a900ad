"""Group relative policy optimization through trl: answers of one's own, rewarded (Flash-VL, Sec. 4.7).

A problem's answers share its picture: the tower sees it once, however large the group is. trl has no place for that in
what it hands on, so a group of prompts stays here while it is learned from, and trl hands on its numbers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from saccade.data.check import positions
from saccade.data.collate import Sample, collate, pad
from saccade.data.encoder import Encoder
from saccade.data.rows import ProblemRow, Rows
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt import render_chat
from saccade.prompt.encode import stop_token_ids
from saccade.roles import TEXT
from saccade.train.reference import ComparingTrainer, numbers
from saccade.train.rewards import REWARDS
from saccade.train.rows import open_views
from saccade.train.stages import Stage
from saccade.train.tasks import Problems

# What stands for the prompt in trl's data set, and for the row of a batch in what trl shuffles and divides.
PROMPT, NUMBER = "prompt", "number"


class ProblemTrainer(ComparingTrainer, GRPOTrainer):
    """trl's trainer with our prompts, groups of parameters and reference model.

    The methods of trl's that it overrides are not promised to stay; the tests tell when they change.

    Args:
        model: What learns, adapters included.
        stage: What it learns, in how many steps; its task is `Problems`. Its batch counts problems, and all answers to
            one are learned from together.
        rows: Problem rows by number, at least `steps * batch` of them.
        encoder: Of the model.
        settings: Those of any stage, by the names of transformers' `TrainingArguments`.

    Raises:
        ConfigError: when the groups do not fit the model, its output head has adapters, or a prompt and its answer may
            be longer than the decoder has positions.
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
        assert isinstance(task, Problems)
        assert stage.steps is not None
        _check_length(task, encoder)
        self.rows, self.encoder = rows, encoder
        # The problems of the step in hand with their solutions, and the problem of each row that is scored next.
        self.shown: dict[int, tuple[Sample, str]] = {}
        self.numbers: list[int] = []
        reference = self.borrow(model, stage)
        stops = stop_token_ids(encoder.tokenizer, encoder.config.prompt, model.generation_config.eos_token_id)
        never = model.config.placeholder_ids
        super().__init__(
            model=model,
            reward_funcs=list(map(self._reward, task.rewards)),
            args=GRPOConfig(
                **settings | _settings(task, settings),
                generation_kwargs={"eos_token_id": stops, "suppress_tokens": never},
            ),
            train_dataset=numbers(PROMPT, stage.steps * stage.batch),
            processing_class=encoder.tokenizer,
        )
        self.eos_token_ids = stops
        if task.kl:
            # trl would load a reference model by its name; this one may have none, and is no file yet.
            self.beta = task.kl
            add_fused_lm_head(reference, temperature=task.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def _reward(self, name: str) -> Callable[..., list[float | None]]:
        def score(prompts: Sequence[int], completions: Sequence[str], **_: Any) -> list[float | None]:
            return [REWARDS[name](said, self.shown[n][1]) for n, said in zip(prompts, completions, strict=True)]

        score.__name__ = name
        return score

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Open the problems of a step, let trl answer and score them, and add which row is which problem."""
        self.numbers = [one[PROMPT] for one in inputs]
        self.shown = {number: self._open(number) for number in dict.fromkeys(self.numbers)}
        scored: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return scored | {NUMBER: torch.tensor(self.numbers, device=scored["prompt_ids"].device)}

    def _open(self, number: int) -> tuple[Sample, str]:
        """Return the prompt and the solution of a problem; raises RowError like `open_views`."""
        row, encoder = self.rows[number], self.encoder
        assert isinstance(row, ProblemRow)
        views, sizes = open_views(row, encoder)
        segments = render_chat(row.turns, encoder.config.prompt, generate=True)
        return Sample(encoder(segments, *sizes), views), row.solution

    def _tokenize_prompts(self, prompts: list[int]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return ids, no pictures for trl's processor, and what the model takes beside ids."""
        encoded = [self.shown[number][0].encoded for number in prompts]
        fields = self._views(prompts) | {"mm_token_type_ids": [one.roles for one in encoded]}
        return [one.input_ids for one in encoded], None, fields

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        self.numbers = inputs[NUMBER].tolist()
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **wanted: Any,
    ) -> tuple[torch.Tensor | None, ...]:
        """Score answers `[batch, prompt + answer]`, a few rows at a time, each chunk with its own views and roles."""
        wanted = {name: value for name, value in wanted.items() if name.startswith("compute_")}
        size = batch_size or len(input_ids)
        parts = [
            super(ProblemTrainer, self)._get_per_token_logps_and_entropies(
                partial(model, **self._beside(self.numbers[start : start + size], ids, mask, logits_to_keep)),
                ids,
                mask,
                logits_to_keep,
                **wanted,
            )
            for start, ids, mask in zip(
                range(0, len(input_ids), size), input_ids.split(size), attention_mask.split(size), strict=True
            )
        ]
        return tuple(None if found[0] is None else torch.cat(found) for found in zip(*parts, strict=True))

    def _beside(
        self, rows: Sequence[int], ids: torch.Tensor, mask: torch.Tensor, answer: int
    ) -> dict[str, torch.Tensor]:
        """Return what the model takes beside ids and mask `[rows, prompt + answer]`: as when it answered."""
        roles = pad([self.shown[number][0].encoded.roles for number in rows], TEXT, "left")
        roles = nn.functional.pad(roles, (ids.shape[1] - answer - roles.shape[1], answer), value=TEXT)
        place = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return {"mm_token_type_ids": roles.to(ids.device), "position_ids": place} | {
            name: value.to(ids.device) for name, value in self._views(rows).items()
        }

    def _views(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the views of some prompts, each once, and which row holds which; nothing where there is no picture."""
        config = self.encoder.config
        batch = collate(
            [self.shown[number][0] for number in rows],
            image=config.image,
            pad_id=self.encoder.tokenizer.pad_token_id,
            tokens_per_view=config.tokens_per_view,
            num_queries=config.prompt.num_queries,
            labels=False,
        )
        return {name: batch[name] for name in ("pixel_values", "view_index") if name in batch}


def _settings(task: Problems, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what trl's `GRPOConfig` says beyond or instead of the settings of any stage."""
    return {
        "per_device_train_batch_size": settings["per_device_train_batch_size"] * task.generations,
        "num_generations": task.generations,
        "max_completion_length": task.max_new_tokens,
        "temperature": task.temperature,
        "reward_weights": list(task.rewards.values()),
        "loss_type": "grpo",
        "beta": 0.0,
        "disable_dropout": True,
        "shuffle_dataset": False,
    }


def _check_length(task: Problems, encoder: Encoder) -> None:
    limit = positions(encoder)
    if task.max_length + task.max_new_tokens > limit:
        raise ConfigError(
            f"prompts of up to {task.max_length} tokens and answers of up to {task.max_new_tokens} do not fit the "
            f"{limit} positions of the decoder: lower max_length or max_new_tokens"
        )
