"""Weights divided among processes: the same training, checkpoints in parts, and an ordinary folder at the end."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from saccade import load
from saccade.cli import app
from saccade.errors import ConfigError
from saccade.train.processes import join_processes
from saccade.train.sharding import PARTS
from saccade.train.tasks import Preferences, World
from test_train_many import LAST, TOWER, assert_same, assert_same_log, one, trained  # noqa: F401 (a fixture)
from train_small import on_the_world, train

slow = pytest.mark.slow
OPTIONS = ("--sharded", "--micro", "1")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("sharded"), 2, *OPTIONS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped")
    done = train(out, 2, *OPTIONS, "--stop", "7")
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr, done.stderr[-3000:]
    return out


@slow
def test_divided_weights_and_steps_in_parts_train_what_one_process_does(one: Path, sharded: Path) -> None:  # noqa: F811
    assert_same(sharded, one, TOWER, 1e-5)
    assert_same(sharded, one, LAST, 5e-5)
    assert_same_log(sharded, one)


@slow
def test_the_trained_folder_is_an_ordinary_one_that_answers(one: Path, sharded: Path) -> None:  # noqa: F811
    assert not list((sharded / LAST).parent.glob(f"**/{PARTS}"))
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    answers = [
        load(str((out / LAST).parent)).ask(picture, "what is this?", max_new_tokens=3).text for out in (sharded, one)
    ]
    assert answers[0] == answers[1] != ""


@slow
def test_every_process_writes_its_part_and_the_run_resumes_exactly(
    stopped: Path, sharded: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    written = {file.name for file in (out / "1-asked" / "checkpoint-7" / PARTS).iterdir()}
    assert written == {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert_same(trained(out, 2, *OPTIONS), sharded, LAST, 0)


@slow
def test_another_number_of_processes_goes_on_where_two_stopped(stopped: Path, sharded: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    assert_same(trained(out, 1, *OPTIONS), sharded, LAST, 5e-5)


@slow
def test_a_run_does_not_change_between_divided_and_whole(stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    done = train(out, 2, "--micro", "1")
    assert done.returncode != 0
    assert "was written with --sharded" in done.stderr


def test_one_process_has_nobody_to_share_with(tmp_path):
    done = CliRunner().invoke(app, ["train", "run", "nano", "--out", str(tmp_path / "run"), "--sharded"])
    assert done.exit_code == 1
    assert "there is one: start several with torchrun" in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()


def test_stages_that_ask_the_model_as_it_was_are_not_sharded(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    tower, _ = on_the_world(None).stages
    task = Preferences(data=(World(families={"preference": 1}, rows=4),), max_length=64)
    with pytest.raises(ConfigError, match=r"stage tower \(preferences\) also asks the model as it was"):
        join_processes([tower.model_copy(update={"task": task})], sharded=True)


def test_sharding_is_left_to_the_run(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="say --sharded instead"):
        join_processes(on_the_world(None).stages)


def test_a_sharded_model_is_not_compiled():
    with pytest.raises(ConfigError, match="not compiled"):
        join_processes(on_the_world(None).stages, sharded=True, compiled=True)


def test_patches_are_taken_at_once():
    tower, _ = on_the_world(None).stages
    with pytest.raises(ConfigError, match="takes its step at once"):
        join_processes([tower.model_copy(update={"micro_batch": 2})])
