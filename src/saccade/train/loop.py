"""One stage: transformers' Trainer on what it teaches, resumable at every step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.integrations.integration_utils import is_tensorboard_available

from saccade.config import ImageConfig
from saccade.data.encoder import Encoder
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.answers import answer_trainer
from saccade.train.build import Lesson, build_lesson, build_tuning
from saccade.train.checkpoints import KeepWhole, newest_checkpoint
from saccade.train.lora import add_adapters
from saccade.train.options import DEFAULTS, Options
from saccade.train.processes import join_processes, split
from saccade.train.progress import ProgressBar, StopOnInterrupt
from saccade.train.rows import open_checked
from saccade.train.stages import Stage
from saccade.train.tasks import Captions, Patches, Questions, RowTask, Tuning
from saccade.train.trainer import StageTrainer
from saccade.train.world import StoredPatches

LOGGING_STEPS = 20
# The argument that says to compute activations again: the name that version 6 keeps, where there is one.
_CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, name)
)


def train_stage(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    folder: Path,
    *,
    log: Path,
    seed: int,
    patches: StoredPatches | None = None,
    data: Path = Path("data"),
    **options: Unpack[Options],
) -> None:
    """Train one stage in place; checkpoints go to `folder`, and a run found there goes on.

    A stage with adapters writes them to `adapter` in its folder and leaves them merged into the model. One that changes
    the picture configuration changes the model's for good: what follows sees as it learned to see.

    Args:
        model: What learns.
        tokenizer: Its tokenizer.
        stage: What it learns.
        folder: Holds the checkpoints.
        log: File of JSON lines, one for every few steps.
        seed: Of the order of the data, of fresh adapters and heads, and of dropout.
        patches: What the frozen tower makes of the stage's pictures, where they were computed before.
        data: Folder that mixtures were fetched to.
        **options: See `Options`.

    Raises:
        ConfigError: when the stage does not fit the processes, the questions of its families, the way pictures become
            views, or the patches, or TensorBoard is asked for and not there.
        DataError: when rows are missing or bad.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    how = DEFAULTS | options
    processes = join_processes([stage], sharded=how["sharded"], compiled=how["compiled"])
    model.config.image = ImageConfig(**model.config.image.model_dump() | stage.image)
    model.config.check()
    # Not left to the Trainer: heads are drawn before it exists, and must not depend on what ran before.
    set_seed(seed)
    adapters = add_adapters(model, stage.groups)
    interrupt, bar = StopOnInterrupt(), ProgressBar(stage.name, log, stage.batch)
    settings = partial(_settings, folder=folder, seed=seed, how=how)
    if isinstance(stage.task, Patches | Captions | Questions):
        lesson = build_lesson(model, tokenizer, stage, patches)
        trainer: Trainer = _trainer(lesson, stage, settings, sharded=how["sharded"])
    else:
        trainer = _trainer_of_rows(model, tokenizer, stage, folder, settings, data=data, seed=seed, how=how)
    for callback in (bar, interrupt, KeepWhole()):
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    with interrupt, bar:
        trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
    if interrupt.stopped:
        raise KeyboardInterrupt
    if adapters is not None:
        if processes.is_main_process:
            adapters.save(folder / "adapter")
        adapters.merge()


def _trainer_of_rows(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    folder: Path,
    settings: Callable[[Stage], dict[str, Any]],
    *,
    data: Path,
    seed: int,
    how: Options,
) -> Trainer:
    kind = (
        None if isinstance(stage.task, Tuning) else answer_trainer(stage)
    )  # a library that is missing is told before a long check
    assert isinstance(stage.task, RowTask)
    encoder = Encoder(model.config, tokenizer)
    with PartialState().main_process_first():  # the others recall what it found
        checked = open_checked(
            stage.task, encoder, folder, data=data, seed=seed, workers=how["workers"], skip_bad=how["skip_bad"]
        )
    if kind is None:
        lesson = build_tuning(model, stage, checked, encoder, seed)
        counted = stage.model_copy(update={"steps": lesson.steps})
        return _trainer(lesson, counted, settings, sharded=how["sharded"])
    rows = checked.rows
    counted = stage.model_copy(update={"steps": stage.steps_for(stage.rows_shown(len(rows)))})
    trainer: Trainer = kind(model, counted, rows, encoder, settings(counted))
    return trainer


def _trainer(
    lesson: Lesson, stage: Stage, settings: Callable[[Stage], dict[str, Any]], *, sharded: bool
) -> StageTrainer:
    return StageTrainer(
        model=lesson.module,
        args=TrainingArguments(**settings(stage)),
        train_dataset=lesson.dataset,
        data_collator=lesson.collate,
        stage=stage,
        sharded=sharded,
    )


def _settings(stage: Stage, folder: Path, seed: int, how: Options) -> dict[str, Any]:
    """Return the arguments of transformers' Trainer by name, which trl's trainers take too."""
    if how["tensorboard"] and not is_tensorboard_available():
        raise ConfigError("event files need the library tensorboard: pip install tensorboard")
    processes = PartialState().num_processes
    part = split(stage, processes)
    return dict(
        output_dir=str(folder),
        max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs or 1,
        per_device_train_batch_size=part.at_once,
        gradient_accumulation_steps=part.accumulated,
        **{_CHECKPOINTING: stage.checkpointing},
        lr_scheduler_type="cosine_with_min_lr" if stage.min_lr else stage.schedule,
        lr_scheduler_kwargs={"min_lr_rate": stage.min_lr} if stage.min_lr else None,
        warmup_steps=_warmup_steps(stage),
        max_grad_norm=stage.max_grad_norm,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if processes > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
        logging_steps=LOGGING_STEPS,
        save_strategy="steps" if how["save_steps"] else "no",
        save_steps=how["save_steps"] or 1,
        include_num_input_tokens_seen="non_padding" if isinstance(stage.task, Captions | Questions | Tuning) else "no",
        seed=seed,
        dataloader_num_workers=how["workers"],
        torch_compile=how["compiled"] and isinstance(stage.task, Patches),
        remove_unused_columns=False,
        # Rows come in an order of their own, which spans passes.
        train_sampling_strategy="sequential" if isinstance(stage.task, RowTask) else "random",
        disable_tqdm=True,
        report_to="tensorboard" if how["tensorboard"] else "none",
    )


def _warmup_steps(stage: Stage) -> float:
    """Steps, or below 1 the share of all steps, which the Trainer knows how to read."""
    return round(stage.warmup * stage.steps) if stage.warmup < 1 and stage.steps else stage.warmup
