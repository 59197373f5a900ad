"""A small recipe, trained by the tests in one process and in several, each time by this file started as a script."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from saccade import presets
from saccade.config import SaccadeConfig
from saccade.data.sources import Source
from saccade.train import loop
from saccade.train.processes import leave_processes
from saccade.train.progress import StopOnInterrupt
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Lora, Recipe, Stage
from saccade.train.tasks import Patches, Questions, Tuning

FAMILIES = {"objects": 1.0}
SOURCE = Path(__file__).parent.parent / "src"


def train(out: Path, processes: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Start this file in some processes: OUT, and the options below."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, *(many if processes else []), __file__, str(out), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


def logged(out: Path) -> list[dict[str, Any]]:
    """Return what a run logged."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def small() -> SaccadeConfig:
    """Nano with two layers a side and without dropout, which every process would draw for itself."""
    config = presets.nano()
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    config.query = config.query.model_copy(update={"before_layers": (1,)})
    config.compressor = config.compressor.model_copy(update={"dropout": 0.0})
    config.text_config.resid_pdrop = 0.0
    return config


def on_the_world(micro_batch: int | None) -> Recipe:
    """The tower learns patches, then all else learns questions, with its activations computed again."""
    tower = Stage(
        name="tower",
        task=Patches(families=FAMILIES),
        groups=(Group(pattern="vision_tower|heads", lr=1e-4),),
        steps=2,
        batch=4,
    )
    asked = Stage(
        name="asked",
        task=Questions(families=FAMILIES, questions=3, turns=2),
        groups=(Group(pattern="compressor|projector|language_model|lm_head|query", lr=1e-4),),
        steps=10,
        batch=4,
        micro_batch=micro_batch,
        checkpointing=True,
    )
    return Recipe(name="small", preset="small", tokenizer="nano", stages=(tower, asked))


def on_rows(rows: str, micro_batch: int | None) -> Recipe:
    """The whole model learns rows of a file, then adapters of the decoder and the whole compressor do."""
    whole = Stage(
        name="whole",
        task=Tuning(data=(Source(path=rows, kind="chat"),), max_length=512),
        groups=(Group(pattern=".", lr=1e-4),),
        epochs=2,
        batch=4,
        micro_batch=micro_batch,
    )
    lora = (Group(pattern="language_model.*(fc|proj)", lr=1e-3, lora=Lora()), Group(pattern="compressor", lr=1e-4))
    adapted = whole.model_copy(update={"name": "adapted", "groups": lora})
    return Recipe(name="small", preset="small", tokenizer="nano", stages=(whole, adapted))


def stopping_at(step: int) -> type[StopOnInterrupt]:
    """Return what gets the signal at a step, and only in the last process."""

    class StopAt(StopOnInterrupt):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
            last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
            self.noted |= last and state.global_step == step and state.max_steps > step
            return super().on_step_end(args, state, control, **rest)

    return StopAt


def main() -> None:
    """Train as the options say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--stop", type=int, help="step to be interrupted at")
    parser.add_argument("--rows", help="file of rows to train on, instead of the rendered world")
    parser.add_argument("--micro", type=int, help="rows a process takes at once")
    parser.add_argument("--sharded", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    presets.PRESETS["small"] = small
    loop.LOGGING_STEPS = 5
    if given.stop is not None:
        loop.StopOnInterrupt = stopping_at(given.stop)  # type: ignore[misc]
    recipe = on_the_world(given.micro) if given.rows is None else on_rows(given.rows, given.micro)
    run_recipe(recipe, given.out, workers=0, sharded=given.sharded)
    leave_processes()


if __name__ == "__main__":
    main()
