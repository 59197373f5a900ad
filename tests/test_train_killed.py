"""A run that is killed: a checkpoint that was cut off is not taken up, and twenty kills change no weight."""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train_small
from saccade import presets
from saccade.train import loop
from saccade.train.checkpoints import WHOLE, newest_checkpoint
from saccade.train.run import run_recipe
from saccade.train.stages import Recipe

KILLS = 20
MODELS = [Path(stage) / "model" / "model.safetensors" for stage in ("0-tower", "1-asked")]


def recipe() -> Recipe:
    return train_small.on_the_world(None)


def train(out: Path) -> None:
    """Train in this process, a checkpoint after every step."""
    torch.set_num_threads(1)
    presets.PRESETS["small"] = train_small.small
    loop.LOGGING_STEPS = 1
    run_recipe(recipe(), out, workers=0, save_steps=1)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {f"{model}:{name}": value for model in MODELS for name, value in load_file(out / model).items()}


def test_a_checkpoint_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step in (2, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
    for step in (2, 9, 10):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_weight(tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")  # libraries are loaded once, not after every kill
    server.set_forkserver_preload(["train_small", "saccade.train.run"])

    def start(task: Callable[..., object], *given: object) -> multiprocessing.Process:
        process = server.Process(target=task, args=given)
        process.start()
        return process

    start(time.sleep, 0).join()  # the server is ready
    before = time.perf_counter()
    straight = start(train, tmp_path / "straight")
    straight.join()
    assert straight.exitcode == 0
    seconds = time.perf_counter() - before
    wanted = weights(tmp_path / "straight")
    dice, kills, ends = np.random.default_rng(20251121), 0, 0
    while kills < KILLS or not ends:
        out = tmp_path / f"killed-{ends}"
        process = start(train, out)
        process.join(dice.uniform(0, seconds / 4) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            continue
        assert process.exitcode == 0
        ends += 1
        found = weights(out)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        for line in (out / "log.jsonl").read_text().splitlines():
            json.loads(line)
        shutil.rmtree(out)
