"""Which attention backend trains nano fastest on this machine: one step of the patch stage and of the question stage.

    python tools/bench_attention.py [--rounds 5] [--out docs/results/attention_cpu.json]

The variants take turns, so that a slow moment of the machine hits all of them; medians in seconds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from saccade import presets
from saccade.evaluate.provenance import made_with
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.build import build_lesson
from saccade.train.patches import PatchPretraining
from saccade.train.recipes.nano_recipes import nano
from saccade.train.start import load_tokenizer

BACKENDS = ("eager", "sdpa")
DTYPES = (torch.float32, torch.bfloat16)


def batches() -> dict[str, dict[str, torch.Tensor]]:
    """One batch for each kind of stage, at the recipe's sizes."""
    recipe, model = nano(), SaccadeForConditionalGeneration(presets.nano())
    tokenizer = load_tokenizer("nano")
    made: dict[str, dict[str, torch.Tensor]] = {}
    for stage in (recipe.stages[0], recipe.stages[-1]):
        lesson = build_lesson(model, tokenizer, stage)
        made[stage.task.kind] = lesson.collate([lesson.dataset[number] for number in range(stage.batch)])
    return made


def steps(stage: str, batch: dict[str, torch.Tensor]) -> dict[str, Callable[[], None]]:
    """A forward and backward pass of the stage for every backend and precision."""
    made: dict[str, Callable[[], None]] = {}
    for backend in BACKENDS:
        for dtype in DTYPES:
            model = SaccadeForConditionalGeneration._from_config(presets.nano(), attn_implementation=backend)
            model.model.vision_tower.requires_grad_(stage == "patches")
            module = PatchPretraining(model.model) if stage == "patches" else model
            made[f"{backend} {str(dtype).removeprefix('torch.')}"] = partial(step, module, batch, dtype)
    return made


def step(module: torch.nn.Module, batch: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """One forward and backward pass, in mixed precision where `dtype` is not float32."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = module(**batch)["loss"]
    loss.backward()
    module.zero_grad()


def main() -> None:
    """Time all variants in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one that is not (default 5)")
    parser.add_argument("--out", type=Path, help="write the JSON to this file (default: print it)")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    results: dict[str, dict[str, float]] = {}
    for stage, batch in batches().items():
        variants = steps(stage, batch)
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(rounds + 1):
            for name, run in variants.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        results[stage] = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
        for name, median in results[stage].items():
            print(f"{stage:10} {name:16} {median:.3f} s")
    report = {
        "command": "python tools/bench_attention.py",
        "seconds_per_step": results,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        **made_with(),
    }
    if arguments.out is None:
        print(json.dumps(report))
    else:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
