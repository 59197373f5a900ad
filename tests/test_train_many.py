"""Training in several processes: what one process trains, stopped and resumed together, one writer, a clear refusal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("train_small.py")
SOURCE = SCRIPT.parent.parent / "src"
TOWER, LAST = (Path(stage) / "model" / "model.safetensors" for stage in ("0-tower", "1-asked"))

pytestmark = pytest.mark.slow


def run(out: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, *(many if processes > 1 else []), str(SCRIPT), str(out), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    done = run(out, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_two_processes_train_what_one_does(two: Path, tmp_path: Path) -> None:
    done = run(tmp_path, 1)
    assert done.returncode == 0, done.stderr[-2000:]
    one, both = load_file(tmp_path / TOWER), load_file(two / TOWER)
    assert one.keys() == both.keys()
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=0, atol=1e-5, msg=name)
    (alone,), (shared,) = logged(tmp_path), logged(two)
    assert shared["step"] == alone["step"] == 20
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert shared["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-2)


def test_a_signal_to_one_process_stops_both_and_the_run_resumes_exactly(two: Path, tmp_path: Path) -> None:
    stopped = run(tmp_path, 2, "7")
    assert stopped.returncode != 0
    assert (tmp_path / "1-asked" / "checkpoint-7").is_dir()
    assert not (tmp_path / LAST).exists()
    done = run(tmp_path, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    resumed, straight = load_file(tmp_path / LAST), load_file(two / LAST)
    for name, value in straight.items():
        assert torch.equal(resumed[name], value), name


def test_pictures_that_cannot_be_divided_are_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run(tmp_path / "run", 3)
    assert done.returncode != 0
    assert "3 processes cannot divide" in done.stderr
    assert not (tmp_path / "run").exists()
