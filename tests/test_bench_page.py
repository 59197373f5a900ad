"""docs/speed.md says what the files say, and nothing where there is none."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import gpu_bench
import write_speed
from saccade.bench.report import Target

PAGE = (
    "Words.\n<!-- verdicts: cpu -->\nold\n<!-- end -->\n<!-- results: cpu/one -->\n<!-- end -->\n"
    "<!-- results: cpu/two -->\nold\n<!-- end -->\n<!-- results: gpu/three -->\n<!-- end -->\nMore words.\n"
)
MADE_WITH = {
    "command": "saccade bench", "machine": "a machine", "device": "cpu", "threads": 1, "dtype": "float32", "torch": "2",
    "transformers": "5", "commit": "abc", "seconds": 9.0,
}  # fmt: skip


def test_the_page_is_what_the_command_writes() -> None:
    page = write_speed.PAGE.read_text(encoding="utf-8")
    assert write_speed.render(page, write_speed.RESULTS) == page


def test_the_page_expects_what_the_accelerator_bench_writes() -> None:
    marked = write_speed.MARKED.findall(write_speed.PAGE.read_text(encoding="utf-8"))
    expected = {name for _, kind, name, _ in marked if kind == "results" and name.startswith("gpu/")}
    assert expected == {f"gpu/{part.name}" for part in gpu_bench.PARTS}


def test_tables_come_from_files(tmp_path: Path) -> None:
    targets = [Target("something", 0.5, 0.7).to_dict()]
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "one.json").write_text(json.dumps({"bench": "x", **MADE_WITH, "cut": True, "targets": targets}))
    page = write_speed.render(PAGE, tmp_path)
    assert "| cpu/one | something | 0.5 | 0.7 | – | ratio | met |\n| cpu/two | not yet measured |" in page
    assert "Cut short after 9 seconds" in page
    assert "(plots/cpu_one.png)" in page
    assert page.count(write_speed.UNKNOWN) == 2
    assert "old" not in page
    assert page.startswith("Words.")
    assert page.endswith("More words.\n")
    assert write_speed.render(page, tmp_path) == page
