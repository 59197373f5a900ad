"""Running a recipe: stage after stage in one folder, resumable at every step."""

import json
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from saccade.checkpoint import open_checkpoint
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.train.patches import PatchDataset, PatchPretraining, collate_patches
from saccade.train.progress import ProgressBar, StopOnInterrupt
from saccade.train.questions import CaptionDataset, Encoder, QuestionDataset
from saccade.train.stages import Recipe, Stage
from saccade.train.trainer import StageTrainer

Task = tuple[nn.Module, Dataset[Any], Callable[[list[Any]], dict[str, torch.Tensor]]]


def run_recipe(recipe: Recipe, out: Path, *, workers: int = 1, save_steps: int = 200, compiled: bool = False) -> Path:
    """Train a recipe's stages in order, or go on where an earlier run of the same folder stopped.

    Args:
        recipe: What to train.
        out: The run's folder: the resolved recipe, a log, and a folder for each stage with checkpoints and weights.
        workers: Processes that draw pictures.
        save_steps: Steps between checkpoints.
        compiled: Whether to compile the patch stage; its first steps then take a minute.

    Returns:
        The folder of the trained model, which `saccade.load` reads.

    Raises:
        ConfigError: when the folder holds a run of another recipe.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = preset(recipe.preset)
    config.description = recipe.description
    _claim(recipe, config, out)
    set_seed(recipe.seed)
    model = SaccadeForConditionalGeneration(config)
    tokenizer = load_tokenizer(recipe.tokenizer)
    for number, stage in enumerate(recipe.stages):
        folder = out / f"{number}-{stage.name}"
        weights = folder / "model"
        if weights.exists():
            model, _ = open_checkpoint(weights, dtype=torch.float32)
            continue
        train_stage(
            model,
            tokenizer,
            stage,
            folder,
            log=out / "log.jsonl",
            seed=recipe.seed,
            workers=workers,
            save_steps=save_steps,
            compiled=compiled,
        )
        build_processor(config, tokenizer).save_pretrained(folder / "unfinished")
        model.save_pretrained(folder / "unfinished")
        (folder / "unfinished").rename(weights)
    return weights


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
) -> None:
    """Train one stage in place; checkpoints go to `folder`, and a run found there goes on.

    Raises:
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    # Not left to the Trainer: heads are drawn before it exists, and must not depend on what ran before.
    set_seed(seed)
    module, dataset, collate = _task(model, tokenizer, stage)
    interrupt, bar = StopOnInterrupt(), ProgressBar(stage.name, log, stage.pictures)
    trainer = StageTrainer(
        model=module,
        args=_arguments(stage, folder, seed, workers, save_steps, compiled and stage.task == "patches"),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[bar, interrupt],
        stage=stage,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    with interrupt, bar:
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        raise KeyboardInterrupt


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder of the package's assets, or from a path."""
    bundled = resources.files("saccade") / "assets" / source
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(bundled) if bundled.is_dir() else source)
    return tokenizer


def _arguments(
    stage: Stage, folder: Path, seed: int, workers: int, save_steps: int, compiled: bool
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.pictures,
        lr_scheduler_type=stage.schedule,
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=stage.max_grad_norm,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        save_steps=save_steps,
        save_total_limit=1,
        seed=seed,
        dataloader_num_workers=workers,
        torch_compile=compiled,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )


def _task(model: SaccadeForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> Task:
    """Return what a stage trains, on which data, collated how."""
    config, length = model.config, stage.steps * stage.pictures
    if stage.task == "patches":
        labelled = PatchDataset(stage.families, length, config.image, grid=config.grid)
        return PatchPretraining(model.model), labelled, partial(collate_patches, config)
    encoder = Encoder(config, tokenizer)
    shared: dict[str, Any] = {"families": stage.families, "length": length, "image": config.image, "encoder": encoder}
    data = (
        CaptionDataset(**shared)
        if stage.task == "captions"
        else QuestionDataset(
            **shared,
            questions=stage.questions,
            turns=stage.turns,
            where=stage.where,
            describe=stage.describe,
        )
    )
    return model, data, encoder.collate


def _claim(recipe: Recipe, config: SaccadeConfig, out: Path) -> None:
    """Write the resolved recipe and its model into the folder, or check that they are those already there."""
    model = {
        name: value for name, value in json.loads(config.to_json_string()).items() if name != "transformers_version"
    }
    claim = {"recipe": recipe.model_dump(mode="json"), "model": model}
    file = out / "run.json"
    if file.exists() and json.loads(file.read_text()) != claim:
        raise ConfigError(f"{out} holds a run of another recipe (see {file}): choose an empty folder, or remove it")
    file.write_text(json.dumps(claim, indent=2) + "\n")
