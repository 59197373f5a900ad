"""lmms-eval's own command line asks nano, and gives the scores that are given here; run by `make test-lmms-eval`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_tasks import questions, write_questions

import saccade
from saccade.evaluate.benchmarks import benchmark
from saccade.evaluate.run import evaluate
from saccade.evaluate.world import Outcome, predict

toolkit = pytest.importorskip("lmms_eval", reason="lmms-eval has an environment of its own: make test-lmms-eval")

QUESTIONS = 24
ROUNDED = 5e-5  # scores of a record
# The shipped task on a local table, and one of the toolkit's simplest form, whose words nano was trained on.
TASKS = {
    "pope_local": """\
include: {shipped}/tasks/pope/pope.yaml
task: pope_local
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {folder}/pope/data/test-0.parquet}}}}
""",
    "world_local": """\
task: world_local
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {folder}/world.parquet}}}}
test_split: test
output_type: generate_until
doc_to_visual: image
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{until: ["e", "o"], temperature: 0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""",
}


def run_toolkit(folder: Path, *more: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Scores and answers, by task, of a run of the toolkit's command line."""
    command = [
        sys.executable, "-m", "lmms_eval", "eval", "--model", "saccade", "--model_args", "pretrained=nano",
        "--tasks", ",".join(TASKS), "--include_path", str(folder / "tasks"), "--batch_size", "5", "--log_samples",
        "--output_path", str(folder / "out"), *more,
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (folder / "out").rglob("*_results.json")
    scores = json.loads(results.read_text(encoding="utf-8"))["results"]
    answers = {}
    for task in TASKS:
        (samples,) = (folder / "out").rglob(f"*_samples_{task}.jsonl")
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        answers[task] = [row["filtered_resps"] for row in sorted(rows, key=lambda row: row["doc_id"])]
    return scores, answers


@pytest.mark.parametrize("more", [(), ("--force_simple",)], ids=["chat", "simple"])
def test_scores_and_answers_are_those_given_here(more: tuple[str, ...], tmp_path: Path) -> None:
    write_questions(tmp_path / "pope" / "data" / "test-0.parquet", questions("objects", QUESTIONS, "existence"))
    asked = questions("text", QUESTIONS)
    write_questions(tmp_path / "world.parquet", asked)
    (tmp_path / "tasks").mkdir()
    for task, text in TASKS.items():
        filled = text.format(shipped=Path(toolkit.__file__).parent, folder=tmp_path)
        (tmp_path / "tasks" / f"{task}.yaml").write_text(filled, encoding="utf-8")

    scores, answers = run_toolkit(tmp_path, *more)

    vlm = saccade.load()
    record = evaluate(vlm, benchmark("pope"), tmp_path / "pope", tmp_path / "record", protocol="flashsloth")
    assert answers["pope_local"] == [row["said"] for row in record.rows]
    for name in ("accuracy", "precision", "recall"):
        assert scores["pope_local"][f"pope_{name},none"] == pytest.approx(
            record.header["scores"][name]["value"], abs=ROUNDED
        )

    said = predict(vlm, asked)
    assert answers["world_local"] == said
    right = sum(Outcome(item, answer, "").right for item, answer in zip(asked, said, strict=True))
    assert 0 < right < QUESTIONS
    assert scores["world_local"]["exact_match,none"] == pytest.approx(right / QUESTIONS)
