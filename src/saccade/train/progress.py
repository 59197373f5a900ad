"""What a person sees of a run: a bar with loss, speed and time left; a log that can be plotted; a clean stop."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import PartialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):
    """A rich progress bar, shown inside a `with` block, and a JSON-lines log, one line per logged step.

    Args:
        stage: Its name.
        log: File of the log.
        per_step: Pictures, or rows, in an optimizer step.
    """

    def __init__(self, stage: str, log: Path, per_step: int) -> None:
        self.stage, self.log, self.per_step = stage, log, per_step
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, refresh_per_second=1, disable=not PartialState().is_main_process)

    def __enter__(self) -> Self:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is, also after an error."""
        self.bar.stop()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar where the run starts."""
        self.task = self.bar.add_task(
            self.stage, total=state.max_steps, completed=state.global_step, loss="-", speed="-"
        )
        self.last = (time.perf_counter(), state.global_step, state.num_input_tokens_seen)
        if state.is_world_process_zero:
            _drop_half_line(self.log)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance the bar."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show loss and speed, and append the line to the log."""
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        before, self.last = self.last, (time.perf_counter(), state.global_step, state.num_input_tokens_seen)
        seconds, steps, tokens = (after - earlier for after, earlier in zip(self.last, before, strict=True))
        speeds = {"pictures": steps * self.per_step / max(seconds, 1e-9), "tokens": tokens / max(seconds, 1e-9)}
        if not tokens:  # of patches there are none
            del speeds["tokens"]
        said = "  ".join(f"{speed:.3g} {what}/s" for what, speed in speeds.items())
        self.bar.update(self.task, loss=f"{logs['loss']:.4f}", speed=said)
        line = {
            "stage": self.stage,
            "step": state.global_step,
            "seconds": round(seconds, 2),
            **{f"{what}_per_second": round(speed, 1) for what, speed in speeds.items()},
            **{name: value for name, value in logs.items() if not name.startswith("train_")},
        }
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _drop_half_line(log: Path) -> None:
    """Cut off what a killed run left behind the last whole line."""
    if log.exists():
        text = log.read_bytes()
        if not text.endswith(b"\n"):
            log.write_bytes(text[: text.rfind(b"\n") + 1])


class StopOnInterrupt(TrainerCallback):
    """Ctrl-C ends the run after the step in hand, with a checkpoint to resume from; a second Ctrl-C ends it at once.

    It holds inside a `with` block of the main thread; elsewhere Python delivers no signals, and nothing is changed.

    Attributes:
        stopped: Whether the run was ended; in a run of several processes all of them agree.
    """

    def __init__(self) -> None:
        self.noted = self.stopped = False

    def __enter__(self) -> Self:
        """Take over the signal."""
        self.before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)

    def _note(self, *_: Any) -> None:
        self.noted = True
        signal.signal(signal.SIGINT, self.before)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint and the end."""
        if self._noted_anywhere():
            self.stopped = control.should_save = control.should_training_stop = True
        return control

    def _noted_anywhere(self) -> bool:
        """Agree with the other processes, which the signal may reach a step later."""
        if not torch.distributed.is_initialized():
            return self.noted
        flag = torch.tensor(self.noted, dtype=torch.int32, device=PartialState().device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)
