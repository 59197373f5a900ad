"""`saccade explain` and `saccade eval --pointing`: the answer on stdout, files where they were asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers_vlm import picture, tiny_vlm
from saccade.cli import app
from saccade.vlm import load


def saccade(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model and a picture."""
    vlm = tiny_vlm()
    path = tmp_path_factory.mktemp("model")
    vlm.model.save_pretrained(path)
    vlm.processor.save_pretrained(path)
    picture(1).save(path / "photo.png")
    return path


def test_explain_writes_the_drawing_and_the_arrays(folder: Path, tmp_path: Path) -> None:
    drawing, arrays = tmp_path / "new" / "drawing.png", tmp_path / "weights"
    command = ("explain", folder / "photo.png", "Why?", "--model", folder, "--max-new-tokens", 4, "--out", drawing)
    expected = load(folder).explain(folder / "photo.png", "Why?", max_new_tokens=4)
    told = saccade(*command)
    assert (told.exit_code, told.stdout) == (0, expected.answer + "\n")
    assert str(drawing) in told.stderr
    with Image.open(drawing) as drawn:
        assert drawn.format == "PNG"
    stored = json.loads(saccade(*command, "--arrays", arrays, "--json").stdout)
    assert stored["answer"] == expected.answer
    assert stored["files"] == [str(drawing), str(arrays)]
    with np.load(arrays) as kept:
        assert kept.files == list(expected.arrays())
        np.testing.assert_array_equal(kept["query_image"], expected.query_image)


def test_what_is_to_be_said_about_a_picture_is_told(folder: Path, tmp_path: Path) -> None:
    moving = tmp_path / "moving.gif"
    picture(1).save(moving, save_all=True, append_images=[picture(2)])
    command = ("explain", moving, "Why?", "--model", folder, "--max-new-tokens", 1, "--out", tmp_path / "drawing.png")
    told = saccade(*command)
    assert told.exit_code == 0
    assert [line.startswith("note: ") for line in told.stderr.splitlines()] == [True, False]
    quiet = saccade(*command, "--json")
    assert (len(json.loads(quiet.stdout)["warnings"]), quiet.stderr) == (1, "")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("--out", "folder.png"), "folder.png is a folder"),
        (("--out", "drawing.jpg"), "drawing.png"),
        (("--out", "drawing"), "drawing.png"),
        (("--arrays", "folder.png"), "folder.png is a folder"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    refused = saccade("explain", "photo.png", "Why?", "--model", tmp_path / "no-model", *names)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert complaint in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_missing_picture_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawing.png"
    refused = saccade("explain", "nowhere.png", "Why?", "--model", folder, "--out", out)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "there is no picture file 'nowhere.png'" in refused.stderr
    assert not out.exists()


def test_pointing_prints_a_table_or_json_and_keeps_every_question(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = ("eval", "--pointing", "--model", folder, "--limit", 2, "--out", out)
    table = saccade(*command)
    assert table.exit_code == 0
    for word in ("objects", "color", "scenes"):
        assert word in table.stdout
    printed = json.loads(saccade(*command, "--json").stdout)
    assert printed["families"]["objects"]["n"] == 2
    stored = json.loads(out.read_text())
    assert len(stored.pop("samples")) == printed["families"]["objects"]["questions"]
    assert stored == printed
