"""Running a recipe: stage after stage in one folder, resumable at every step."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from saccade.checkpoint import bundled_models, open_checkpoint
from saccade.config import ImageConfig, SaccadeConfig
from saccade.errors import ConfigError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.train.patches import PatchDataset, PatchPretraining, collate_patches
from saccade.train.progress import ProgressBar, StopOnInterrupt
from saccade.train.questions import CaptionDataset, Encoder, QuestionDataset
from saccade.train.stages import Recipe, Stage
from saccade.train.trainer import StageTrainer
from saccade.train.world import StoredPatches, question_types
from saccade.vlm import load

Task = tuple[nn.Module, Dataset[Any], Callable[[list[Any]], dict[str, torch.Tensor]]]


def run_recipe(recipe: Recipe, out: Path, *, workers: int = 1, save_steps: int = 200, compiled: bool = False) -> Path:
    """Train a recipe's stages in order, or go on where an earlier run of the same folder stopped.

    Under `torchrun` the pictures of a step are divided among the processes; the first one writes.

    Args:
        recipe: What to train.
        out: The run's folder: the resolved recipe, a log, and a folder for each stage with checkpoints and weights.
        workers: Processes that draw pictures.
        save_steps: Steps between checkpoints.
        compiled: Whether to compile the patch stage; its first steps then take a minute.

    Returns:
        The folder of the trained model, which `saccade.load` reads.

    Raises:
        ConfigError: when the folder holds a run of another recipe, or a step's pictures cannot be divided.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    config = preset(recipe.preset)
    config.description = recipe.description
    processes = _processes(recipe.stages)
    with processes.main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _claim(recipe, config, out)
    set_seed(recipe.seed)
    model = SaccadeForConditionalGeneration(config)
    if recipe.base is not None:
        _start_from(recipe.base, recipe.base_modules, model)
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
        if processes.is_main_process:
            build_processor(config, tokenizer).save_pretrained(folder / "unfinished")
            model.save_pretrained(folder / "unfinished")
            (folder / "unfinished").rename(weights)
        processes.wait_for_everyone()
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
    patches: StoredPatches | None = None,
) -> None:
    """Train one stage in place; checkpoints go to `folder`, and a run found there goes on.

    `patches` are what the frozen tower makes of the stage's pictures, where they were computed before.

    Raises:
        ConfigError: when the stage does not fit the processes, the questions of its families, the way pictures become
            views, or the patches.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    _processes([stage])
    # Not left to the Trainer: heads are drawn before it exists, and must not depend on what ran before.
    set_seed(seed)
    module, dataset, collate = _task(model, tokenizer, stage, patches)
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
    if interrupt.stopped:
        raise KeyboardInterrupt


def _processes(stages: Sequence[Stage]) -> PartialState:
    """Return the processes that share the steps of some stages.

    Raises:
        ConfigError: when they cannot divide a step's pictures, or one process sees several GPUs.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    if processes.num_processes == 1 and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"one process sees {torch.cuda.device_count()} GPUs: start one process for each with torchrun, or name "
            "one GPU in CUDA_VISIBLE_DEVICES"
        )
    for stage in stages:
        if stage.pictures % processes.num_processes:
            raise ConfigError(
                f"stage {stage.name} has {stage.pictures} pictures in a step, which {processes.num_processes} "
                "processes cannot divide: start another number of processes"
            )
    return processes


def _start_from(base: str, modules: tuple[str, ...] | None, model: SaccadeForConditionalGeneration) -> None:
    """Copy the weights of another model, of all of it or of some modules.

    Raises:
        ConfigError: when a module is missing in either, or its tensors have other names or shapes.
    """
    given = load(base, device="cpu", dtype="float32").model
    for name in ("",) if modules is None else modules:  # the module without a name is the whole model
        weights, own = (_weights_of(name, whole) for whole in (given, model))
        if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in own.items()}:
            raise ConfigError(
                f"the weights of base {base!r}{name and f', module {name},'} do not fit the recipe's preset: change "
                "one of them"
            )
        model.get_submodule(name).load_state_dict(weights)


def _weights_of(name: str, model: SaccadeForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return the weights of a module by name; raise ConfigError where the model has no such module."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise ConfigError(
            f"base_modules names {name!r}, which the base or the recipe's preset does not have: name modules of both, "
            "such as 'model.vision_tower'"
        ) from error
    weights: dict[str, torch.Tensor] = module.state_dict()
    return weights


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a bundled model, or from a path."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(bundled_models().get(source, source)))
    return tokenizer


def _arguments(
    stage: Stage, folder: Path, seed: int, workers: int, save_steps: int, compiled: bool
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.pictures // PartialState().num_processes,
        lr_scheduler_type=stage.schedule,
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=stage.max_grad_norm,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if PartialState().num_processes > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
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


def _task(
    model: SaccadeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    patches: StoredPatches | None,
) -> Task:
    """Return what a stage trains, on which data, collated how."""
    config, length = model.config, stage.steps * stage.pictures
    if patches is not None and (stage.task == "patches" or len(patches) < length):
        raise ConfigError(
            f"{len(patches)} pictures were encoded before, but stage {stage.name} ({stage.task}) shows {length}: "
            "encode them all, and leave them out where the tower is trained"
        )
    if stage.task == "patches":
        _check_labels_fit(stage, config.image)
        labelled = PatchDataset(stage.families, length, config.image, grid=config.grid)
        return PatchPretraining(model.model), labelled, partial(collate_patches, config)
    unknown = stage.emphasis.keys() - question_types(stage.families) if stage.emphasis else ()
    if unknown:
        raise ConfigError(
            f"stage {stage.name} emphasizes {', '.join(sorted(unknown))}, but its families ask only for "
            f"{', '.join(sorted(question_types(stage.families)))}: name types among these"
        )
    encoder = Encoder(config, tokenizer)
    shared: dict[str, Any] = {
        "families": stage.families,
        "length": length,
        "image": config.image,
        "patches": patches,
        "encoder": encoder,
    }
    data = CaptionDataset(**shared) if stage.task == "captions" else QuestionDataset(**shared, stage=stage)
    return model, data, encoder.collate


def _check_labels_fit(stage: Stage, image: ImageConfig) -> None:
    """Raise ConfigError where a view is not the whole picture squashed to a square, which patch labels divide."""
    meant = {"layout": "single", "fit": "squash", "margin": 0}
    wrong = [f"image.{name} {getattr(image, name)!r}" for name, value in meant.items() if getattr(image, name) != value]
    if wrong:
        raise ConfigError(
            f"stage {stage.name} labels the patches of one view that the whole picture fills, not with "
            f"{', '.join(wrong)}: train the tower with the single layout, fit 'squash' and margin 0 first"
        )


def _claim(recipe: Recipe, config: SaccadeConfig, out: Path) -> None:
    """Write the resolved recipe and its model into the folder, or check that they are those already there."""
    claim = {"recipe": recipe.model_dump(mode="json"), "model": config.definition()}
    file = out / "run.json"
    if not file.exists():
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(claim, indent=2) + "\n")
        unfinished.replace(file)
    elif json.loads(file.read_text()) != claim:
        raise ConfigError(f"{out} holds a run of another recipe (see {file}): choose an empty folder, or remove it")
