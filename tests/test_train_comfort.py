"""What a person has of a run: a folder that describes itself, a log with speeds, curves, event files."""

import json
import sys
from pathlib import Path

import pytest

from saccade import load
from saccade.data.scenes import WORLD_VERSION
from saccade.errors import ConfigError, SaccadeWarning
from saccade.train import loop
from saccade.train.curves import draw_curves, read_log
from saccade.train.describe import END, fingerprint
from saccade.train.run import run_recipe
from saccade.train.stages import Recipe
from saccade.train.start import load_tokenizer
from test_train import small_model, stage
from train_small import on_the_world


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step each of patches and of questions, started twice."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("saccade.presets").presets.PRESETS, "nano", lambda: small_model().config)
        patch.setattr(loop, "LOGGING_STEPS", 1)
        patch.setattr(sys, "argv", ["/somewhere/saccade/__main__.py", "train", "run", "mine"])
        stages = (stage("patches", steps=1), stage("questions", steps=2))
        recipe = Recipe(name="mine", preset="nano", tokenizer="nano", description="a test", stages=stages)
        for tensorboard in (True, False):
            run_recipe(recipe, out, workers=0, tensorboard=tensorboard)
    return out


def test_a_run_says_what_it_was_made_with(run: Path) -> None:
    told = json.loads((run / "run.json").read_text())
    assert told["recipe"]["name"] == "mine"
    first, again = told["runs"]
    assert first["command"] == "saccade train run mine"
    assert {"machine", "torch", "transformers", "commit", "python", "libraries", "started"} <= first.keys()
    assert first["processes"] == 1
    assert first["stages"].keys() == {"patches", "questions"}
    questions = first["stages"]["questions"]
    assert first["started"] <= questions["started"] <= questions["ended"]
    assert questions["data"] == [{"world": WORLD_VERSION, "families": {"objects": 0.6, "digits": 0.4}}]
    assert again["stages"] == {}


def test_the_readme_of_a_run_says_how_to_load_it(run: Path) -> None:
    text = (run / "README.md").read_text()
    assert f"--model {run / '1-questions' / 'model'}" in text
    assert "| `0-patches` | patches | 1 steps | 3 |" in text
    assert load(str(run / "1-questions" / "model")).model.config.description == "a test"


def test_a_log_has_speeds_and_no_tokens_where_there_are_none(run: Path) -> None:
    log = read_log(run / "log.jsonl")
    assert [line["step"] for line in log["questions"]] == [1, 2]
    assert all(line["tokens_per_second"] > line["pictures_per_second"] > 0 for line in log["questions"])
    assert "tokens_per_second" not in log["patches"][0]


def test_curves_and_event_files_are_there(run: Path) -> None:
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(run.glob("*-*/runs/*/events.out.tfevents.*"))) == 2


def test_a_log_of_a_killed_run_is_read_and_its_half_line_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"stage": "a", "step": step, "loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (2, 2.5))]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "a", "st')
    assert [line["loss"] for line in read_log(log)["a"]] == [3.0, 2.5]
    from saccade.train.progress import _drop_half_line

    _drop_half_line(log)
    assert log.read_text().splitlines() == [json.dumps(line) for line in lines]


def test_without_matplotlib_curves_are_not_drawn_and_it_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(SaccadeWarning, match="pip install matplotlib"):
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")


def test_without_tensorboard_event_files_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "is_tensorboard_available", lambda: False)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        loop.train_stage(
            small_model(),
            load_tokenizer("nano"),
            on_the_world(None).stages[0],
            tmp_path,
            log=tmp_path / "log",
            seed=0,
            tensorboard=True,
        )


def test_a_fingerprint_sees_what_changed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(3 * END))
    (tmp_path / "b.tar").write_bytes(b"b")
    before = fingerprint(str(tmp_path))
    assert before["files"] == 2
    assert before["bytes"] == 3 * END + 1
    assert fingerprint(f"{tmp_path}/*.tar")["sha256"] == before["sha256"]
    assert fingerprint(f"{tmp_path.parent}/**/{tmp_path.name}/*.tar")["sha256"] == before["sha256"]
    (tmp_path / "a.tar").write_bytes(bytes(3 * END - 1) + b"x")
    assert fingerprint(str(tmp_path))["sha256"] != before["sha256"]
    assert fingerprint("hf:owner/name") == {"path": "hf:owner/name"}
