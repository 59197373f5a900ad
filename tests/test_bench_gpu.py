"""The bench of an accelerator, whole: on small models here, and with its targets where there is one."""

import json
import sys
from pathlib import Path

import pytest
import torch

from helpers_vlm import tiny_vlm
from saccade.bench import ceilings
from saccade.bench.engined import Engined, room_for
from saccade.bench.feeds import OwnFeed
from saccade.bench.report import read_result
from saccade.bench.subjects import Generating
from saccade.bench.tasks import Ask, picture

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import gpu_bench


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.READ_BYTES, "cpu", 1 << 16)
    monkeypatch.setitem(ceilings.SQUARES, "cpu", (32,))
    monkeypatch.setattr(ceilings, "LEAST_SECONDS", 1e-5)


@pytest.mark.usefixtures("quick")
def test_parts_leave_their_files_and_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = gpu_bench.Part("broken", ("--model", "preset:nothing"), 0.1)
    monkeypatch.setattr(gpu_bench, "SMALL", (broken, *gpu_bench.SMALL))
    assert gpu_bench.main(["--small", "--device", "cpu", "--out", str(tmp_path)]) == 1
    summary = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["state"] for row in summary["parts"]] == ["failed", "done", "done"]
    assert "no preset" in summary["parts"][0]["error"]
    assert {file.name for file in tmp_path.iterdir()} == {
        "flashvl_static.json",
        "table1.json",
        "gpu.json",
        "pareto.png",
    }
    result = read_result(tmp_path / "flashvl_static.json")
    assert result["command"].startswith("saccade bench --model preset:nano_flashvl_static --new-tokens 3")
    assert [target["name"] for target in summary["targets"]] == [target["name"] for target in result["targets"]]
    assert len([target for target in summary["targets"] if not target["name"].endswith(", raised")]) == 3


def test_parts_without_time_are_left_out(tmp_path: Path) -> None:
    assert gpu_bench.main(["--small", "--device", "cpu", "--out", str(tmp_path), "--seconds", "1"]) == 0
    summary = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["state"] for row in summary["parts"]] == ["left out", "left out"]
    assert summary["targets"] == []


def test_the_files_are_eight_at_most() -> None:
    assert len({part.name for part in gpu_bench.PARTS}) == len(gpu_bench.PARTS) <= 6
    assert gpu_bench.COMPARISON in {part.name for part in gpu_bench.PARTS}


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 3])
def test_the_engine_is_timed_on_an_accelerator(rows: int) -> None:
    model = tiny_vlm().model.to("cuda", torch.bfloat16)
    ask = Ask(60, 40, 20)
    engine = Engined(Generating("tiny", model, OwnFeed(model.config)), room_for(model.config, [ask], 9, rows))
    assert "path graphs" in engine.way
    prepared = engine.prepare([picture(ask.width, ask.height, seed) for seed in range(rows)], ask.text_tokens)
    for _ in range(2):  # the first records
        timeline = engine.generate(prepared, 9)
        assert len(timeline.tokens) == 9
        assert 0 < timeline.tokens[0] <= timeline.tokens[-1]
    assert engine.second_question(picture(ask.width, ask.height, 0), ask.text_tokens) > 0
