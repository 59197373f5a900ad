"""The page on finetuning, run line by line: small in seconds, at full size when slow tests are asked for."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saccade.cli import app
from test_readme import REPO, blocks, commands

PAGE = (REPO / "docs" / "finetune.md").read_text(encoding="utf-8")


def follow(page: str, more: tuple[str, ...] = ()) -> float:
    """Run the page's blocks in order, `more` words behind the training; return the share of right answers."""
    for block in blocks(page):
        if block.language in ("python", "py"):  # "py" needs what the lines before it made, so it cannot be run alone
            exec(compile(block.text, f"finetune.md:{block.line}", "exec"), {})
        for words in commands(block.text) if block.language == "bash" else []:
            assert words[0] == "saccade"
            done = CliRunner().invoke(app, [*words[1:], *(more if words[1:3] == ["train", "run"] else ())])
            assert done.exit_code == 0, f"{words}: {done.output}"
    given, wanted = (
        [json.loads(line) for line in Path(name).read_text().splitlines()]
        for name in ("answers.jsonl", "held_out.jsonl")
    )
    answers = {f"held_out/{row['image']}": row["answer"].strip() for row in given}
    assert answers.keys() == {row["image"] for row in wanted}
    return sum(answers[row["image"]] == row["conversations"][1]["value"] for row in wanted) / len(wanted)


def test_every_line_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = PAGE.replace('"clocks", 500', '"clocks", 12').replace('"held_out", 120', '"held_out", 12')
    assert small.count(", 12, seed") == 2
    few = {"steps": "2", "epochs": "null", "batch": "4"}
    assert follow(small, tuple(f"--set=stages.tuning.{name}={value}" for name, value in few.items())) <= 1


@pytest.mark.slow
def test_nano_learns_to_read_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert follow(PAGE) >= 0.8
