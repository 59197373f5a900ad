"""A small recipe, started by `tests/test_train_many.py` in one process and in several: OUT [STEP TO INTERRUPT AT]."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from saccade import presets
from saccade.config import SaccadeConfig
from saccade.train import loop
from saccade.train.progress import StopOnInterrupt
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Recipe, Stage
from saccade.train.tasks import Patches, Questions

FAMILIES = {"objects": 1.0}


def small() -> SaccadeConfig:
    """Nano with two layers a side and without dropout, which every process would draw for itself."""
    config = presets.nano()
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    config.query = config.query.model_copy(update={"before_layers": (1,)})
    config.compressor = config.compressor.model_copy(update={"dropout": 0.0})
    config.text_config.resid_pdrop = 0.0
    return config


def recipe() -> Recipe:
    tower = Stage(
        name="tower",
        task=Patches(families=FAMILIES),
        groups=(Group(pattern="vision_tower|heads", lr=1e-4),),
        steps=2,
        batch=4,
    )
    asked = {"name": "asked", "task": Questions(families=FAMILIES, questions=3, turns=2), "steps": 20}
    rest = (Group(pattern="compressor|projector|language_model|lm_head|query", lr=1e-4),)
    questions = tower.model_copy(update={**asked, "groups": rest})
    return Recipe(name="small", preset="small", tokenizer="nano", stages=(tower, questions))


class InterruptLast(StopOnInterrupt):
    """Gets the signal at a step, and only in the last process."""

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        self.noted |= last and state.global_step == int(sys.argv[2]) and state.max_steps > int(sys.argv[2])
        return super().on_step_end(args, state, control, **rest)


if __name__ == "__main__":
    torch.set_num_threads(1)
    presets.PRESETS["small"] = small
    if len(sys.argv) > 2:
        loop.StopOnInterrupt = InterruptLast  # type: ignore[misc]
    run_recipe(recipe(), Path(sys.argv[1]), workers=0)
