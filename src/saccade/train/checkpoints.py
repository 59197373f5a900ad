"""Which checkpoint counts: one that all processes wrote to its end, whenever a run is killed."""

import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

WHOLE = "whole"


class KeepWhole(TrainerCallback):
    """Marks a checkpoint once it is whole, and only then removes those before it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after the files are written."""
        processes = PartialState()
        processes.wait_for_everyone()
        if not processes.is_main_process:
            return
        folder = Path(str(args.output_dir))
        newest = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        (newest / WHOLE).touch()
        for checkpoint in _checkpoints(folder):
            if checkpoint != newest:
                (checkpoint / WHOLE).unlink(missing_ok=True)  # first: what is removed in part is not whole
                shutil.rmtree(checkpoint)


def newest_checkpoint(folder: Path) -> str | None:
    """Return the last whole checkpoint in a folder; None where there is none, or no folder.

    transformers' own `get_last_checkpoint` also returns one whose writing was cut off.
    """
    whole = [checkpoint for checkpoint in _checkpoints(folder) if (checkpoint / WHOLE).exists()]
    return str(max(whole, key=_step)) if whole else None


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.fullmatch(r"\d+", path.name.split("-")[1])]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])
