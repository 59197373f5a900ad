"""VLMEvalKit's own command line asks nano, and gives the score that is given here; run by `make test-vlmevalkit`."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from local_tasks import OPTIONS, questions, write_choices

import saccade
from saccade.evaluate.benchmarks import benchmark
from saccade.evaluate.run import evaluate

pytest.importorskip("vlmeval", reason="VLMEvalKit has an environment of its own: make test-vlmevalkit")

NAME = "WORLD_COLOR"
QUESTIONS = 24
ROUNDED = 5e-5  # scores of a record


def cells(file: Path, column: str) -> list[str]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ","))
    return [row[column] for row in rows]


def test_score_and_answers_are_those_given_here(tmp_path: Path) -> None:
    file = tmp_path / "LMUData" / f"{NAME}.tsv"
    write_choices(file, questions("objects", QUESTIONS, "color", OPTIONS.values()))
    command = [
        sys.executable, "-m", "saccade.evaluate.bridges.vlmevalkit", "--model", "small=nano", "--prompts", "FlashVL",
        "--data", NAME, "--judge", "exact_matching", "--api-nproc", "5", "--work-dir", str(tmp_path / "out"),
    ]  # fmt: skip
    places = {"LMUData": str(tmp_path / "LMUData"), "HF_HOME": str(tmp_path / "hub")}
    forms = {"HF_HUB_OFFLINE": "1", "PRED_FORMAT": "tsv", "EVAL_FORMAT": "csv"}
    done = subprocess.run(command, env=os.environ | places | forms, capture_output=True, text=True, check=False)
    out = tmp_path / "out" / "small"
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / f"small_{NAME}.tsv").exists(), done.stderr[-3000:]

    record = evaluate(saccade.load(), benchmark("mmbench"), file, tmp_path / "record", protocol="flashvl")
    assert cells(out / f"small_{NAME}.tsv", "prediction") == [row["said"] for row in record.rows]
    (score,) = cells(out / f"small_{NAME}_acc.csv", "Overall")
    assert 0 < float(score) < 1
    assert float(score) == pytest.approx(record.header["scores"]["accuracy"]["value"], abs=ROUNDED)
