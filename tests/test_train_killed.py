"""A run that is killed: a checkpoint that was cut off is not taken up, and twenty kills change no weight."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train_small
from killing import killed_and_repeated, seconds_of, server
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
    start = server(("train_small", "saccade.train.run"))
    seconds = seconds_of(start(train, tmp_path / "straight"))
    wanted = weights(tmp_path / "straight")
    for out in killed_and_repeated(start, train, tmp_path, KILLS, seconds / 4):
        found = weights(out)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        for line in (out / "log.jsonl").read_text().splitlines():
            json.loads(line)
        shutil.rmtree(out)
