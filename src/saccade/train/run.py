"""Running a recipe: stage after stage in one folder, resumable at every step."""

from pathlib import Path
from typing import Unpack

import torch
from transformers import set_seed

from saccade.checkpoint import open_checkpoint
from saccade.errors import ConfigError
from saccade.image.processor import build_processor
from saccade.train.curves import draw_curves
from saccade.train.describe import claim, note_end, note_run, note_start
from saccade.train.loop import train_stage
from saccade.train.options import DEFAULTS, Options
from saccade.train.processes import join_processes
from saccade.train.rows import sources_of
from saccade.train.stages import Recipe, Stage
from saccade.train.start import start_model
from saccade.train.tasks import RowTask


def run_recipe(recipe: Recipe, out: Path, **options: Unpack[Options]) -> Path:
    """Train a recipe's stages in order, or go on where an earlier run of the same folder stopped.

    Under `torchrun` the pictures of a step are divided among the processes; the first one writes. A program that has
    trained all that it will then calls `leave_processes`.

    Args:
        recipe: What to train.
        out: The run's folder: the resolved recipe, what it was made with, a log and its curves, and a folder for each
            stage with checkpoints and weights.
        **options: See `Options`.

    Returns:
        The folder of the trained model, which `saccade.load` reads.

    Raises:
        ConfigError: when the folder holds a run of another recipe, the processes cannot share the run, or TensorBoard
            is asked for and not there.
        DataError: when rows are missing or bad.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    how = DEFAULTS | options
    log, data = out / "log.jsonl", Path(recipe.data)
    for number, stage in enumerate(recipe.stages):
        # A mixture that the last stage lacks is told before the first is trained; one that was trained on may be gone.
        if isinstance(stage.task, RowTask) and not _weights(out, number, stage).exists():
            sources_of(stage.task, data)
    processes = join_processes(recipe.stages, sharded=how["sharded"], compiled=how["compiled"])
    set_seed(recipe.seed)
    model, tokenizer = start_model(recipe)
    with processes.main_process_first():
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file: name a folder for the run")
        out.mkdir(parents=True, exist_ok=True)
        claim(recipe, model.config, out)
    if processes.is_main_process:
        note_run(recipe, out, processes.num_processes)
    for number, stage in enumerate(recipe.stages):
        weights = _weights(out, number, stage)
        folder = weights.parent
        if weights.exists():
            model, _ = open_checkpoint(weights, dtype=torch.float32)
            continue
        if processes.is_main_process:
            note_start(stage, data, out)
        try:
            train_stage(model, tokenizer, stage, folder, log=log, seed=recipe.seed, data=data, **how)
        finally:
            if processes.is_main_process:
                draw_curves(log, out / "curves.png")
        if processes.is_main_process:
            build_processor(model.config, tokenizer).save_pretrained(folder / "unfinished")
            model.save_pretrained(folder / "unfinished")
            (folder / "unfinished").rename(weights)
            note_end(stage, out)
        processes.wait_for_everyone()
        model.config.name_or_path = str(weights)
    return weights


def _weights(out: Path, number: int, stage: Stage) -> Path:
    """Return where the weights of a stage are once it has been trained."""
    return out / f"{number}-{stage.name}" / "model"
