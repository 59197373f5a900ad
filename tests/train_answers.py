"""What the tests of the two stages that compare answers share: a stage, a trainer outside of a run, rows in a file.

Started in one process or in several, it runs both stages on the rendered world: OUT.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Trainer

from saccade import presets
from saccade.data.encoder import Encoder
from saccade.model import SaccadeForConditionalGeneration
from saccade.train import loop
from saccade.train.processes import leave_processes
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Recipe, Stage
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Preferences, Problems, World
from train_small import SOURCE, small

TRAINED = "language_model|lm_head|query|projector"


def answer_stage(task: Any, **changes: Any) -> Stage:
    """A stage of two steps of four rows, taken two by two."""
    fields = {"name": "answers", "groups": (Group(pattern=TRAINED, lr=1e-3),), "steps": 2, "batch": 4, "micro_batch": 2}
    return Stage(**(fields | {"task": task} | changes))


def make_trainer(kind: Any, model: SaccadeForConditionalGeneration, stage: Stage, rows: Any, folder: Path) -> Trainer:
    """A trainer that logs every step and writes no checkpoints."""
    settings = {
        "output_dir": str(folder),
        "max_steps": stage.steps,
        "per_device_train_batch_size": stage.micro_batch,
        "gradient_accumulation_steps": stage.batch // (stage.micro_batch or stage.batch),
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": True,
    }
    trainer: Trainer = kind(model, stage, rows, Encoder(model.config, load_tokenizer("nano")), settings)
    return trainer


def train_both(out: Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Start this file in some processes, 0 for one without a launcher."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(many if processes else []), __file__, str(out)]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=900, check=False
    )


def noise(number: int, width: int = 80, height: int = 60) -> Any:
    """A picture, uint8 `[height, width, 3]`."""
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)


def write_rows(folder: Path, count: int, **fields: str) -> Path:
    """Write rows of equal fields as JSON lines, each but the last with a picture of its own."""
    lines = []
    for number in range(count):
        picture = {} if number == count - 1 else {"image": f"{number}.png"}
        if picture:
            Image.fromarray(noise(number)).save(folder / f"{number}.png")
        lines.append(json.dumps({"id": number, **fields, **picture}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def both() -> Recipe:
    """Preferences, then problems, of rows with pictures and of rows without."""

    def shown(family: str) -> dict[str, Any]:
        with_pictures, without = (
            World(families={family: 1.0}, rows=5),
            World(families={family: 1.0}, rows=7, pictures=False),
        )
        return {"data": (with_pictures, without), "max_length": 1000}

    preferences = answer_stage(Preferences(**shown("preference")), name="preferences", steps=3, micro_batch=1)
    problems = Problems(**shown("reasoning"), max_new_tokens=4, generations=2)
    stages = (preferences, answer_stage(problems, name="problems", micro_batch=1))
    return Recipe(name="both", preset="small", tokenizer="nano", stages=stages)


if __name__ == "__main__":
    torch.set_num_threads(1)
    presets.PRESETS["small"] = small
    loop.LOGGING_STEPS = 1
    run_recipe(both(), Path(sys.argv[1]), workers=0)
    leave_processes()
