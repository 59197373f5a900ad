"""Release a model of nano's size: a run's weights into the package, scores into docs/results, and the card from both.

saccade train run nano --out runs/nano
python tools/release_nano.py nano --run runs/nano   # weights; commit them, so that scores name a commit that has them
python tools/release_nano.py nano --score           # scores and card of the weights that are in the package
python tools/release_nano.py nano                   # the card alone, from the scores that are there
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from saccade.checkpoint import bundled_models
from saccade.checkpoint.files import INDEX_FILE, WHOLE_FILE
from saccade.checkpoint.sharing import share
from saccade.data import scenes
from saccade.evaluate.provenance import machine
from saccade.train.recipes import recipe
from saccade.vlm import VLM, load

REPO = Path(__file__).resolve().parents[1]
ASSETS = REPO / "src" / "saccade" / "assets"
RESULTS = REPO / "docs" / "results"
SPLITS = ("test", "shifted")
# All that the package brings along besides code.
MOST_BYTES = 24_000_000
# Whose tower a model shows; it is stored once, in its owner's folder. A model that trained its own is not named here.
TOWERS = {"nano": "nano", "nano_flashvl_iss": "nano"}
TOWER = "model.vision_tower"

SHAPES = {
    "nano": "A FlashSloth-shaped model of {parameters:,} parameters: a picture in 9 visual tokens and 9 queries.",
    "nano_hd": (
        "Nano on a thumbnail and four tiles: {parameters:,} parameters, a picture in 45 visual tokens and 9 queries."
    ),
    "nano_flashvl_iss": (
        "A Flash-VL-shaped model of {parameters:,} parameters, nano's tower included: a picture in one view, or in a "
        "thumbnail and up to four tiles, stitched without a seam, of 49 visual tokens each."
    ),
}
CARD = """# {name}

{shape}
It ships with the package, {description}. It was trained on pictures that the
package renders, and never saw a photograph. Asked about anything else it will still answer, wrongly. The tables below
name the kinds of questions that are scored; it was also taught to say where a thing is, to describe a picture, and to
answer a few turns without one.{start}

## Training

- Data: the rendered world, version {world}, training split; handwritten digits are rows 0 to 1346 of the UCI set.
- Command: `saccade train run {name} --out runs/{name}`, then `python tools/release_nano.py {name} --run runs/{name}`
  and, once that is committed, `python tools/release_nano.py {name} --score`.
- Stages: {stages}; recipe and code as of commit {commit}.{note}
- Machine and time: {machine}; {minutes:.0f} minutes, beside other work.

## Accuracy

Greedy answers, exact match, on frozen questions whose answers are balanced. *Blank* is the same model asked about the
same questions with a gray picture. The interval is a bootstrap over pictures, 95 %. *Shifted* has fonts, stroke widths,
shades and phrasings that training never showed. Between rounds of training the scores on *test* were looked at, and
later rounds chosen with them in view; those on *shifted* were not.

{tables}

Files: `docs/results/{name}_test.json`, `docs/results/{name}_shifted.json`; command `saccade eval --model {name} --json
--families {families} --split test`, and the same with `--split shifted`.
"""


def released() -> list[str]:
    """The models that are in the package and were scored, in the order of SHAPES."""
    scored = (name for name in SHAPES if all((RESULTS / f"{name}_{split}.json").is_file() for split in SPLITS))
    return [name for name in scored if name in bundled_models()]


def table(report: dict[str, Any]) -> str:
    """A Markdown table of one report."""
    lines = ["| family | type | accuracy | blank | n |", "|---|---|---|---|---|"]
    for family, scores in report["families"].items():
        low, high = scores["interval"]
        lines.append(
            f"| **{family}** | all | **{scores['accuracy']:.1%}** ({low:.1%} to {high:.1%}) "
            f"| {scores['blank_accuracy']:.1%} | {scores['n']} |"
        )
        for kind, score in scores["types"].items():
            lines.append(f"| | {kind} | {score['accuracy']:.1%} | {score['blank_accuracy']:.1%} | {score['n']} |")
    return "\n".join(lines)


def card(name: str) -> str:
    """The card's text, from the recipe and the stored scores."""
    run = json.loads((RESULTS / f"{name}_run.json").read_text())
    reports = {split: json.loads((RESULTS / f"{name}_{split}.json").read_text()) for split in SPLITS}
    return CARD.format(
        name=name,
        start=started_from(name),
        description=json.loads((ASSETS / name / "config.json").read_text())["description"],
        shape=SHAPES[name].format(parameters=run["parameters"]),
        families=",".join(reports["test"]["families"]),
        world=reports["test"]["world"],
        stages=", ".join(
            f"{stage['name']} ({stage['steps']} steps of {stage['batch']} pictures)" for stage in run["stages"]
        ),
        commit=run["commit"],
        note=f" {run['note']}" if run.get("note") else "",
        machine=run["machine"],
        minutes=sum(run["minutes"].values()),
        tables="\n\n".join(f"### {split}\n\n{table(report)}" for split, report in reports.items()),
    )


def taught(name: str) -> tuple[str, ...]:
    """The families that a model was trained on, in the world's order, those of a base that it goes on from too."""
    trained = recipe(name)
    known = set(trained.families)
    if trained.whole_base:
        known |= set(taught(trained.whole_base))
    return tuple(family for family in scenes.FAMILIES if family in known)


def started_from(name: str) -> str:
    """What the card says of a model that goes on from another one."""
    trained = recipe(name)
    if not trained.whole_base:
        return ""
    own = ", ".join(family for family in scenes.FAMILIES if family in trained.families)
    return f" It went on from {trained.base} with pictures of {own} alone: what it forgot of the rest is in the tables."


def minutes(log: Path) -> dict[str, float]:
    """Minutes of each stage, from the seconds between its logged steps."""
    spent: dict[str, float] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        spent[line["stage"]] = spent.get(line["stage"], 0.0) + line["seconds"] / 60
    return {stage: round(value, 1) for stage, value in spent.items()}


def store(vlm: VLM, name: str) -> None:
    """Write a model to its folder in the package; a tower that it has from another model stays in that one's."""
    folder = ASSETS / name
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    if name in TOWERS:
        share(folder, TOWER, None if TOWERS[name] == name else ASSETS / TOWERS[name])
    tidy(folder)
    for path in filter(Path.is_file, folder.iterdir()):
        path.chmod(0o644)  # safetensors keeps a new file to its owner


def tidy(folder: Path) -> None:
    """Remove files of weights that neither their own model nor another one lists any longer."""
    listed = {
        (index.parent / file).resolve()
        for index in ASSETS.glob(f"*/{INDEX_FILE}")
        for file in json.loads(index.read_text())["weight_map"].values()
    }
    for path in folder.glob("*.safetensors"):
        if path.name != WHOLE_FILE and path.resolve() not in listed:
            path.unlink()


def total_bytes() -> int:
    """Bytes of all models and pictures in the package."""
    return sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file())


def release(name: str, run: Path, commit: str, note: str) -> None:
    """Cast the run's last weights to bfloat16, and store them in the package."""
    trained = recipe(name)
    source = run / f"{len(trained.stages) - 1}-{trained.stages[-1].name}" / "model"
    vlm = load(source, dtype=torch.bfloat16)
    vlm.model.config.description = trained.description
    store(vlm, name)
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "log.jsonl", RESULTS / f"{name}_log.jsonl")
    facts = {
        "parameters": vlm.model.num_parameters(),
        "machine": machine(),
        "minutes": minutes(run / "log.jsonl"),
        "stages": json.loads((run / "run.json").read_text())["recipe"]["stages"],
        "commit": commit,
        "note": note,
    }
    (RESULTS / f"{name}_run.json").write_text(json.dumps(facts, indent=1) + "\n")


def score(name: str) -> None:
    """Score a model of the package on all that it was taught."""
    from saccade.evaluate import evaluate_world

    vlm = load(name)
    # All of them before the first is written, which would make the checkout that they name a changed one.
    reports = {split: evaluate_world(vlm, taught(name), split=split).to_dict() for split in SPLITS}
    for split, report in reports.items():
        (RESULTS / f"{name}_{split}.json").write_text(json.dumps(report, indent=1) + "\n")
        print(table(report))


def main() -> None:
    """Release a run, or write the card again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SHAPES, help="a recipe")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", type=Path, help="folder of a finished `saccade train run NAME`")
    what.add_argument("--score", action="store_true", help="score what is in the package, once it is committed")
    parser.add_argument("--commit", help="commit whose code trained it (default: the one that is checked out)")
    parser.add_argument("--note", default="", help="what the card says about how the run departed from its recipe")
    arguments = parser.parse_args()
    if arguments.run is not None:
        here = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=REPO, text=True).strip()
        release(arguments.name, arguments.run, arguments.commit or here, arguments.note)
    if arguments.score:
        score(arguments.name)
    if arguments.run is None:
        (ASSETS / arguments.name / "README.md").write_text(card(arguments.name))
    if total_bytes() > MOST_BYTES:
        raise SystemExit(
            f"{ASSETS} holds {total_bytes():,} bytes, more than {MOST_BYTES:,}: make a model smaller, or release those "
            "again that still list a tower of before"
        )


if __name__ == "__main__":
    main()
