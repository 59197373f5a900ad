"""One stage: transformers' Trainer on what it teaches, resumable at every step."""

from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from saccade.model import SaccadeForConditionalGeneration
from saccade.train.build import build_lesson
from saccade.train.processes import join_processes, split
from saccade.train.progress import ProgressBar, StopOnInterrupt
from saccade.train.stages import Stage
from saccade.train.tasks import Patches
from saccade.train.trainer import StageTrainer
from saccade.train.world import StoredPatches

LOGGING_STEPS = 20


def train_stage(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    folder: Path,
    *,
    log: Path,
    seed: int,
    workers: int = 1,
    save_steps: int = 200,
    compiled: bool = False,
    patches: StoredPatches | None = None,
) -> None:
    """Train one stage in place; checkpoints go to `folder`, and a run found there goes on.

    `patches` are what the frozen tower makes of the stage's pictures, where they were computed before.

    Raises:
        ConfigError: when the stage does not fit the processes, the questions of its families, the way pictures become
            views, or the patches.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    join_processes([stage])
    # Not left to the Trainer: heads are drawn before it exists, and must not depend on what ran before.
    set_seed(seed)
    lesson = build_lesson(model, tokenizer, stage, patches)
    interrupt, bar = StopOnInterrupt(), ProgressBar(stage.name, log, stage.batch)
    trainer = StageTrainer(
        model=lesson.module,
        args=_arguments(stage, folder, seed, workers, save_steps, compiled and isinstance(stage.task, Patches)),
        train_dataset=lesson.dataset,
        data_collator=lesson.collate,
        callbacks=[bar, interrupt],
        stage=stage,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    with interrupt, bar:
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.stopped:
        raise KeyboardInterrupt


def _arguments(
    stage: Stage, folder: Path, seed: int, workers: int, save_steps: int, compiled: bool
) -> TrainingArguments:
    processes = PartialState().num_processes
    part = split(stage, processes)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs or 1,
        per_device_train_batch_size=part.at_once,
        gradient_accumulation_steps=part.accumulated,
        gradient_checkpointing=stage.checkpointing,
        lr_scheduler_type="cosine_with_min_lr" if stage.min_lr else stage.schedule,
        lr_scheduler_kwargs={"min_lr_rate": stage.min_lr} if stage.min_lr else None,
        warmup_steps=_warmup_steps(stage),
        max_grad_norm=stage.max_grad_norm,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if processes > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
        logging_steps=LOGGING_STEPS,
        save_steps=save_steps,
        save_total_limit=1,
        seed=seed,
        dataloader_num_workers=workers,
        torch_compile=compiled,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )


def _warmup_steps(stage: Stage) -> float:
    """Steps, or below 1 the share of all steps, which the Trainer knows how to read."""
    return round(stage.warmup * stage.steps) if stage.warmup < 1 and stage.steps else stage.warmup
