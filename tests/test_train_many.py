"""Training in several processes: what one process trains, stopped and resumed together, one writer, a clear refusal."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train_small import logged, train

TOWER, LAST = (Path(stage) / "model" / "model.safetensors" for stage in ("0-tower", "1-asked"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("one"), 0)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("two"), 2)


def trained(out: Path, processes: int, *options: str) -> Path:
    done = train(out, processes, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def assert_same(run: Path, other: Path, weights: Path, atol: float) -> None:
    found, expected = load_file(run / weights), load_file(other / weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda told, name=name: f"{name}: {told}")


def assert_same_log(run: Path, other: Path) -> None:
    lines = [[(line["stage"], line["step"]) for line in logged(out)] for out in (run, other)]
    assert lines[0] == lines[1]
    assert lines[0]
    for found, expected in zip(logged(run), logged(other), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_two_processes_train_what_one_does(one: Path, two: Path) -> None:
    assert_same(two, one, TOWER, 1e-5)
    assert_same(two, one, LAST, 5e-5)
    assert_same_log(two, one)


@pytest.mark.parametrize("sharded", [False, True])
def test_rows_of_any_length_and_without_pictures_weigh_the_same_however_they_are_divided(
    rows: Path, whole_rows: Path, tmp_path: Path, sharded: bool
) -> None:
    """A step's loss is the mean over its trained tokens, wherever its rows are; some process often has no picture."""
    options = ["--rows", str(rows), "--micro", "1", *(["--sharded"] if sharded else [])]
    run = trained(tmp_path / "run", 2, *options)
    assert_same_log(run, whole_rows)
    for weights in ("0-whole/model/model.safetensors", "1-adapted/model/model.safetensors"):
        assert_same(run, whole_rows, Path(weights), 5e-5)


@pytest.fixture(scope="module")
def whole_rows(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("rows-in-one"), 0, "--rows", str(rows))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows, which steps of four do not divide; six without a picture, answers of one word and of forty."""
    folder, dice = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    lines = []
    for number in range(10):
        answer = "yes" if number % 2 else " ".join(["two red circles"] * 13)
        picture = {}
        if number % 5 < 2:
            Image.fromarray(dice.integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            picture = {"image": f"{number}.png"}
        mark = "<image>\n" if picture else ""
        talk = [{"from": "human", "value": f"{mark}what is number {number}?"}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"id": str(number), "conversations": talk, **picture}))
    file = folder / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_signal_to_one_process_stops_both_and_the_run_resumes_exactly(two: Path, tmp_path: Path) -> None:
    stopped = train(tmp_path, 2, "--stop", "7")
    assert stopped.returncode != 0
    assert (tmp_path / "1-asked" / "checkpoint-7").is_dir()
    assert not (tmp_path / LAST).exists()
    assert_same(trained(tmp_path, 2), two, LAST, 0)


def test_pictures_that_cannot_be_divided_are_refused_before_anything_runs(tmp_path: Path) -> None:
    done = train(tmp_path / "run", 3)
    assert done.returncode != 0
    assert "3 processes cannot divide" in done.stderr
    assert not (tmp_path / "run").exists()
