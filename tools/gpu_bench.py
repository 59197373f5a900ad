"""Everything that is to be known of the speed of one accelerator, in eight minutes and eight files.

    python tools/gpu_bench.py [--out runs/gpu-bench] [--seconds 480] [--small] [--device cuda]

Runs `saccade bench` several times over in this process, models and peers with random weights built on the device; no
network, and nothing beyond what the package itself needs. The files go to the folder that the variable OUT names, or to
runs/gpu-bench: a JSON file per part, written as soon as it is done, `gpu.json` with what became of every part and all
targets with their verdicts, and the picture of the comparison. A part that is slow begins no more rounds once its
seconds are spent; one for which no time is left is left out; one that fails does not keep the others from running.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from saccade.bench.draw import draw
from saccade.bench.report import read_result, target_table
from saccade.cli import app
from saccade.errors import SaccadeError
from saccade.evaluate.provenance import made_with

SECONDS = 480.0
LEAST = 15.0  # seconds under which no part is begun: opening the models takes most of them
COMPARISON = "table1"


@dataclass(frozen=True)
class Part:
    """A call of `saccade bench`.

    Attributes:
        name: Of its file.
        words: Of the command line.
        share: Its part of the time, measured against the other parts'.
    """

    name: str
    words: tuple[str, ...]
    share: float


MANY = ("--new-tokens", "128", "--batches", "64")
FEW = ("--new-tokens", "16", "--batches", "1")
PICTURE = ("--picture", "1024x768")  # four tiles and a thumbnail where pictures are cut

# Those that hold the most targets come first.
PARTS = (
    Part("flashvl_static", ("--model", "preset:flashvl_static", *PICTURE, *MANY), 1.3),
    Part("flashsloth", ("--model", "preset:flashsloth", *PICTURE, *MANY), 1.3),
    Part("flashvl_iss", ("--model", "preset:flashvl_iss", *PICTURE, *FEW), 0.4),
    Part("flashsloth_hd", ("--model", "preset:flashsloth_hd", *PICTURE, *FEW), 0.4),
    Part(COMPARISON, ("table1", "--pictures", "1"), 0.9),
    Part("flashvl", ("flashvl", "--pictures", "1", "--new-tokens", "16"), 0.9),
)
NANO = ("--new-tokens", "3", "--batches", "1,2")
SMALL = (
    Part("flashvl_static", ("--model", "preset:nano_flashvl_static", *NANO), 1.0),
    Part(COMPARISON, ("table1", "--model", "preset:nano", "--peer", "llava-1.5-7b", "--pictures", "1", "--small"), 1.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    end = perf_counter() + options.seconds
    parts = SMALL if options.small else PARTS
    told: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        left = end - perf_counter()
        seconds = left * part.share / sum(other.share for other in parts[number:])
        told.append(run(part, out, options.device, seconds) if seconds >= LEAST else left_out(part))
        keep(told, out)
    plot(out)
    summary = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    print(target_table(summary["targets"]))
    print(json.dumps(summary))
    return int(any(row["error"] for row in told))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu-bench"))
    found.add_argument("--seconds", type=float, default=SECONDS, help="for everything together")
    found.add_argument("--small", action="store_true", help="small models, to try the command")
    found.add_argument("--device", default="cuda")
    return found


def run(part: Part, out: Path, device: str, seconds: float) -> dict[str, Any]:
    """Run a part, and say what became of it."""
    file = out / f"{part.name}.json"
    file.unlink(missing_ok=True)
    budget = max(1, int(seconds - LEAST / 2))
    words = ["bench", *part.words, "--device", device, "--seconds", str(budget), "--out", str(file)]
    errors = io.StringIO()
    start = perf_counter()
    with as_command(words), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = app(words, standalone_mode=False)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    state = "failed" if code else "cut short" if read_result(file)["cut"] else "done"
    error = " ".join(errors.getvalue().split()) if code else None
    return said(part, state, perf_counter() - start, error)


def left_out(part: Part) -> dict[str, Any]:
    return said(part, "left out", 0.0, None)


def said(part: Part, state: str, seconds: float, error: str | None) -> dict[str, Any]:
    print(f"{part.name}: {state}, {seconds:.0f} s {error or ''}", flush=True)
    return {"part": part.name, "state": state, "seconds": round(seconds, 1), "error": error}


@contextlib.contextmanager
def as_command(words: Sequence[str]) -> Iterator[None]:
    """Let a result say the command that makes it again."""
    before = sys.argv
    sys.argv = ["saccade", *words]
    try:
        yield
    finally:
        sys.argv = before


def keep(told: Sequence[dict[str, Any]], out: Path) -> None:
    """Write what is known so far."""
    made = [row["part"] for row in told if row["state"] in ("done", "cut short")]
    targets = [target for name in made for target in read_result(out / f"{name}.json")["targets"]]
    summary = {"bench": "gpu", **made_with(), "parts": list(told), "targets": targets}
    (out / "gpu.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def plot(out: Path) -> None:
    """Draw the comparison, if it came that far and there is something to draw with."""
    file = out / f"{COMPARISON}.json"
    if not file.exists():
        return
    try:
        draw(read_result(file), out / "pareto.png")
    except SaccadeError as error:
        print(f"no picture: {error}")


if __name__ == "__main__":
    sys.exit(main())
