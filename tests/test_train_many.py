"""Training in several processes: the same weights as in one, a clear refusal, and one writer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("train_two_steps.py")
SOURCE = SCRIPT.parent.parent / "src"
WEIGHTS = Path("1-asked") / "model" / "model.safetensors"


def run(out: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, *launcher, str(SCRIPT), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    for processes in (1, 2):
        done = run(tmp_path / str(processes), processes)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / str(processes) / WEIGHTS) for processes in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)
    logs = [(tmp_path / str(processes) / "run.json").read_text() for processes in (1, 2)]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_pictures_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, 3)
    assert done.returncode != 0
    assert "3 processes cannot divide" in done.stderr
