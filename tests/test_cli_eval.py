"""`saccade eval` with a set: a record, its table and its JSON; and two records compared."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from helpers_vlm import tiny_vlm
from saccade.cli import app
from saccade.evaluate.records import load_record


def saccade(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two saved models."""
    folders = []
    for seed in range(2):
        vlm = tiny_vlm(seed)
        folders.append(tmp_path_factory.mktemp("model"))
        vlm.model.save_pretrained(folders[-1])
        vlm.processor.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def records(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A record of each, of the same questions."""
    folders = [tmp_path_factory.mktemp("records") / "record" for _ in models]
    for model, folder in zip(models, folders, strict=True):
        made = saccade("eval", "world", "--families", "digits", "--limit", 3, "--model", model, "--out", folder)
        assert made.exit_code == 0, made.output
        assert "blanked" in made.stdout
        assert str(folder) in made.stdout.replace("\n", "")
    return folders


def test_a_set_becomes_a_record(models: list[Path], records: list[Path]) -> None:
    record = load_record(records[0])
    command = ("eval", "world", "test", "--model", models[0], "--out", records[0])
    again = saccade(*command, "--families", "digits", "--limit", 3, "--json")
    assert again.exit_code == 0
    assert "samples were asked already" in again.stderr
    printed = json.loads(again.stdout)
    assert printed == load_record(records[0]).header
    assert printed["scores"] == record.header["scores"]
    assert printed["origin"]["model"] == str(models[0])
    repeated = printed["origin"]["command"].split()
    assert repeated[:4] == ["saccade", "eval", "world", "test"]
    assert repeated[repeated.index("--limit") :][:2] == ["--limit", "3"]
    refused = saccade(*command, "--families", "digits", "--limit", 2)
    assert refused.exit_code == 1
    assert "belongs to a run with" in refused.stderr


def test_two_records_are_compared(records: list[Path]) -> None:
    table = saccade("eval", "diff", *records)
    assert table.exit_code == 0, table.output
    for words in ("What differs", "model.weights", "B less A", "samples flipped"):
        assert words in table.stdout
    found = json.loads(saccade("eval", "diff", *records, "--json").stdout)
    assert [change["name"] for change in found["changes"]] == ["model.weights"]
    assert found["both"] == len(load_record(records[0]).rows)
    same = saccade("eval", "diff", records[0], records[0])
    assert "under the same conditions" in same.stdout
    assert "0 samples flipped" in same.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nothing", "."), "there is no set 'nothing': choose one of world, pope"),
        (("pope",), "say where the local copy of POPE is"),
        (("pope", ".", "--families", "digits"), "--families is about the rendered world"),
        (("world", "exam"), "split 'exam' is not one of"),
        (("world", "--split", "val"), "--split is about the report"),
        (("world", "--pointing"), "--pointing is about the report"),
    ],
)
def test_a_set_that_cannot_be_asked_is_refused(
    words: tuple[str, ...], told: str, models: list[Path], tmp_path: Path
) -> None:
    result = saccade("eval", *words, "--model", models[0], "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert told in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("world",), "name its folder with --out"),
        (("--protocol", "paper"), "--protocol is about a public set"),
        (("--skip-bad",), "--skip-bad is about a public set"),
        (("pope", "nowhere", "--out", "out", "--model", "no-model"), "there is no nowhere: fetch POPE"),
        (("diff", "nowhere", "nowhere"), "nowhere holds no record"),
    ],
)
def test_options_and_folders_that_make_no_sense_are_told(words: tuple[str, ...], told: str) -> None:
    result = saccade("eval", *words)
    assert result.exit_code == 1
    assert told in result.stderr


def test_help_shows_both_ways_and_the_words() -> None:
    shown = saccade("eval", "--help").stdout
    for words in ("[SET] [PATH]", "--skip-bad", "--pointing", "diff"):
        assert words in shown
    assert "Folder of a record" in saccade("eval", "diff", "--help").stdout
    assert saccade("eval", "world", "test", "more").exit_code == 2
