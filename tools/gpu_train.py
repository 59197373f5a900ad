"""Both models at full size through the first two stages of their recipes, two optimizer steps each, on one accelerator.

    python tools/gpu_train.py [--out runs/gpu-train] [--small]

Random weights, made on the device, and synthetic pictures; everything else is what `saccade train run` does: the
recipe's groups, rates, batch and rows at once, through the one training loop. Then `saccade bench train`, with the
peers. No network; peft and trl are not needed. The files go to the folder that the variable OUT names, or to
runs/gpu-train: `gpu_train.json`, written after every stage, `train.json` and `train.png`. A stage that does not fit, or
fails, does not keep the others from running.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gpu_bench import as_command
from saccade.bench.plan import configuration
from saccade.bench.recipe_plan import Run, plan_recipe
from saccade.bench.skeleton import random_model
from saccade.bench.tasks import encoded, picture
from saccade.cli import app
from saccade.cli.shell import prepare_libraries
from saccade.data.sources import Source
from saccade.errors import SaccadeError
from saccade.evaluate.provenance import made_with
from saccade.train import loop
from saccade.train.curves import read_log
from saccade.train.recipes import recipe
from saccade.train.stages import Recipe, Stage
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Tuning

RECIPES = ("flashsloth", "flashvl_static")
STAGES = 2
STEPS = 2
ROWS = 64
PHOTO = (640, 480)
ROUNDS = 5
# Tokens of a caption, and of a round with its queries, which the plan takes for text.
CAPTION, ROUND = 32, 64
SENTENCE = "there is a small red circle to the left of the large blue square"
SMALL = {"flashsloth": "nano", "flashvl_static": "nano_flashvl_static"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu-train"))
    parser.add_argument("--small", action="store_true", help="small models and batches, to try the command")
    options = parser.parse_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    prepare_libraries()
    loop.LOGGING_STEPS = 1
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in RECIPES:
            for stage in synthetic(name, Path(folder), small=options.small).stages:
                told.append(run(name, stage, Path(folder), small=options.small))
                print(json.dumps(told[-1]), flush=True)
                summary = {"bench": "gpu-train", "small": options.small, **made_with(), "stages": told}
                (out / "gpu_train.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    words = ["bench", "train", "--out", str(out / "train.json"), "--plot", str(out / "train.png")]
    with as_command(words), contextlib.redirect_stdout(io.StringIO()):
        code = app(
            words + (["--quick", "--model", "preset:nano", "--peer", "llava-1.5-7b"] if options.small else []),
            standalone_mode=False,
        )
    return int(bool(code) or any(row["error"] for row in told))


def synthetic(name: str, folder: Path, *, small: bool) -> Recipe:
    """Return a recipe's first stages, for two steps of synthetic rows."""
    found = recipe(name)
    stages = []
    for number, stage in enumerate(found.stages[:STAGES]):
        rows = write_rows(folder / f"{name}-{number}", captions=number == 0)
        task = stage.task
        assert isinstance(task, Tuning)
        changes: dict[str, Any] = {"task": task.model_copy(update={"data": (rows,)}), "steps": STEPS, "epochs": None}
        if small:
            changes |= {"batch": 4, "micro_batch": 2}
        stages.append(stage.model_copy(update=changes))
    return found.model_copy(update={"stages": tuple(stages), "preset": SMALL[name] if small else found.preset})


def write_rows(folder: Path, *, captions: bool) -> Source:
    """Write pictures with a caption each, or with several questions and answers."""
    folder.mkdir()
    records: list[dict[str, Any]] = []
    for number in range(ROWS):
        image = f"{number % 8}.jpg"
        (folder / image).write_bytes(encoded(picture(*PHOTO, number % 8)))
        talk = [
            {"from": speaker, "value": SENTENCE if turn or speaker == "gpt" else f"<image>\n{SENTENCE}"}
            for turn in range(ROUNDS)
            for speaker in ("human", "gpt")
        ]
        records.append({"image": image} | ({"caption": SENTENCE} if captions else {"conversations": talk}))
    (folder / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return Source(path=str(folder / "rows.jsonl"), kind="captions" if captions else "chat")


def run(name: str, stage: Stage, folder: Path, *, small: bool) -> dict[str, Any]:
    """Train a stage, and say what it took beside what was planned."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = recipe(name).model_copy(update={"preset": SMALL[name]} if small else {})
    (rows,) = stage.task.data if isinstance(stage.task, Tuning) else ()
    text = CAPTION if isinstance(rows, Source) and rows.kind == "captions" else ROUNDS * ROUND
    bill = plan_recipe(whole.model_copy(update={"stages": (stage,)}), Run(PHOTO, text))["stages"][0]
    way = "computed again" if stage.checkpointing else "kept"
    told = {"recipe": name, "stage": stage.name, "batch": stage.batch, "at_once": bill["at_once"]}
    told |= {"trained": bill["trained"], "planned_bytes": bill["bytes_at_most"][way], "memory_bytes": None}
    place = folder / f"{name}-{stage.name}-run"
    log = place / "log.jsonl"
    place.mkdir()
    error = None
    try:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        model = random_model(configuration(f"preset:{whole.preset}"), device, torch.float32, 0)
        tokenizer = load_tokenizer("nano")
        loop.train_stage(
            model, tokenizer, stage, place / "stage", log=log, seed=0, workers=0 if small else 8, save_steps=0
        )
        if device == "cuda":
            told["memory_bytes"] = torch.cuda.max_memory_allocated()
    except (SaccadeError, RuntimeError) as failed:  # of which out of memory is one
        error = " ".join(f"{type(failed).__name__}: {failed}".split())[:400]
    model = None
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    names = ("step", "loss", "grad_norm", "seconds", "pictures_per_second", "tokens_per_second")
    steps = read_log(log).get(stage.name, []) if log.exists() else []
    return told | {"steps": [{one: line.get(one) for one in names} for line in steps], "error": error}


if __name__ == "__main__":
    sys.exit(main())
