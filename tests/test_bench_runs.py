"""Measuring: rounds, subjects, peers, and the reports and plots made from what was kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from typer.testing import CliRunner

from saccade.bench import ceilings, mmmu, opening, table1
from saccade.bench.compare import Settings, compare, over, runs_of
from saccade.bench.draw import draw
from saccade.bench.opening import open_subjects
from saccade.bench.peers import PEERS, peer
from saccade.bench.report import Target, markdown, read_result
from saccade.bench.rounds import interleaved, percentiles, ratio, significant, spread
from saccade.bench.skeleton import parameters, random_model
from saccade.bench.subjects import Pixels, Prepared, Timeline, Weights
from saccade.bench.tasks import Ask, Task, encoded, picture
from saccade.cli import app
from saccade.errors import ConfigError
from saccade.image import open_image

CPU = torch.device("cpu")
# Billions of parameters, the published ones where they count the same parts.
SIZES = {
    "llava-1.5-7b": 7.06,
    "imp-v1-3b": 3.19,
    "qwen2-vl-2b": 2.21,
    "internvl2-2b": 2.21,
    "internvl2-2b-6-tiles": 2.21,
    "mobilevlm-v2-1.7b": 1.66,
    "mobilevlm-v2-3b": 3.0,
    "aquila-vl-2b": 1.95,
}
# Visual tokens of a picture of 300 x 150 pixels.
TOKENS = {
    "llava-1.5-7b": 576,
    "imp-v1-3b": 729,
    "qwen2-vl-2b": 11 * 5,
    "internvl2-2b": 3 * 256,
    "internvl2-2b-6-tiles": 3 * 256,
    "mobilevlm-v2-1.7b": 144,
    "mobilevlm-v2-3b": 144,
    "aquila-vl-2b": 729 + 13 * (27 + 1),
}


class Clockwork:
    """A subject whose tokens come when it is told they come."""

    way = "as it is told"
    device = CPU
    weights = Weights(total=1000, step=600)
    held = 0

    def __init__(self, name: str, first: float) -> None:
        self.name = name
        self.first = first

    def prepare(self, pictures: Sequence[Pixels], text_tokens: int) -> Prepared:
        return Prepared({}, text_tokens + 9, 7, 2)

    def generate(self, prepared: Prepared, new_tokens: int, *, watched: bool = False) -> Timeline:
        return Timeline(tuple(self.first + step for step in range(new_tokens)), {})

    def count(self, prepared: Prepared) -> int:
        return 100 * prepared.prompt_tokens


def test_rounds_go_forwards_and_backwards_by_turns() -> None:
    ran: list[str] = []

    def run(name: str) -> int:
        ran.append(name)
        return len(ran)

    found = interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3, warm_up=1)
    assert "".join(ran) == "ba" + "ab" + "ba" + "ab"
    assert found == {"a": [3, 6, 7], "b": [4, 5, 8]}


def test_spreads_and_ratios_are_those_of_rounds() -> None:
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.least, found.lower, found.median, found.upper, found.most, found.count) == (1, 2, 3, 4, 5, 5)
    # A machine that is ten times slower for one round leaves the ratio as it is.
    assert ratio([2.0, 20.0, 2.0], [4.0, 40.0, 4.0]).median == 0.5
    assert percentiles([float(n) for n in range(101)]) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert significant(0.00012345678) == 0.000123457
    for wrong in (lambda: spread([]), lambda: ratio([1.0], [1.0, 2.0])):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(ConfigError, match="too few"):
        Settings(new_tokens=1, rounds=4)


def test_a_comparison_says_when_tokens_came() -> None:
    task = Task("two", (Ask(30, 20, 11), Ask(20, 30, 13)))
    subjects = [Clockwork("slow", 4.0), Clockwork("fast", 1.0)]
    settings, told = Settings(new_tokens=4), list[str]()
    slow, fast = compare(subjects, task, settings, told.append)
    assert len(told) == runs_of([task], 2, settings)
    assert fast["ttft"]["median"] == pytest.approx(1.0, abs=0.1)  # preparing takes next to nothing
    assert slow["tpot"]["median"] == 1.0
    assert slow["tokens_per_second"]["median"] == pytest.approx(4 / 7, rel=0.05)
    assert slow["samples_per_second"]["median"] == pytest.approx(1 / 7, rel=0.05)
    assert (fast["visual_tokens"], fast["query_tokens"], fast["prompt_tokens"]) == (7, 2, 21)
    assert (fast["flops"], fast["macs"]) == (2100, 1050)
    assert len(fast["samples"]) == 2 * settings.rounds
    found = over([slow, fast], "slow", "fast")
    assert found is not None
    assert found["median"] == pytest.approx(4.0, rel=0.1)
    assert over([slow, fast], "slow", "neither") is None


@pytest.mark.parametrize("name", PEERS)
def test_peers_have_the_published_size(name: str) -> None:
    assert parameters(peer(name).configuration()) / 1e9 == pytest.approx(SIZES[name], rel=0.005)


@pytest.mark.parametrize("name", PEERS)
def test_peers_answer_with_the_length_that_is_asked_for(name: str) -> None:
    subject = peer(name).open(name, "cpu", torch.float32, seed=0, small=True)
    prepared = subject.prepare([picture(300, 150, seed=0)], text_tokens=21)
    timeline = subject.generate(prepared, new_tokens=3, watched=True)
    assert prepared.visual_tokens == TOKENS[name]
    assert prepared.prompt_tokens == 21 + TOKENS[name]
    assert len(timeline.tokens) == 3
    assert 0 < timeline.stages["vision"] < timeline.tokens[0] < timeline.tokens[1] < timeline.tokens[2]
    assert 0 < subject.weights.step < subject.weights.total


@pytest.mark.parametrize("size", [(1300, 1250), (700, 300), (301, 700)])
def test_packed_tiles_are_counted_as_the_model_packs_them(size: tuple[int, int]) -> None:
    entry = PEERS["aquila-vl-2b"]
    config = entry.configuration(small=True)
    config.vision_config.num_hidden_layers = 1
    model, feed = random_model(config, "cpu", torch.float32, seed=0), entry.feed(config)
    prepared = feed([picture(*size, seed=0)], 21, CPU, torch.float32)
    inputs = {name: prepared.inputs[name] for name in ("pixel_values", "image_sizes")}
    with torch.inference_mode():
        features = model.model.get_image_features(**inputs).pooler_output
    assert prepared.visual_tokens == sum(len(picture) for picture in features)


def test_subjects_that_do_not_fit_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "free_bytes", lambda _: 10**9)
    with pytest.raises(ConfigError, match=r"take 14\.1 GB, but 1\.0 GB are free"):
        open_subjects([], ["llava-1.5-7b"], "cpu", torch.bfloat16, seed=0)
    for models, peers in ([], []), ([], ["nobody"]), (["nano", "nano"], []):
        with pytest.raises(ConfigError):
            open_subjects(models, peers, "cpu", torch.float32, seed=0)


@pytest.mark.parametrize("task", table1.TASKS, ids=lambda task: task.name)
def test_table1_sizes_give_the_published_means(task: Task) -> None:
    sides = [smart_resize(ask.height, ask.width) for ask in task.asks]
    tiles = [
        int(np.prod(get_optimal_tiled_canvas((ask.height, ask.width), (448, 448), 1, table1.MOST_TILES)))
        for ask in task.asks
    ]
    published = table1.PUBLISHED[task.name]
    assert np.mean([height * width / 28**2 for height, width in sides]) == pytest.approx(published.qwen2_vl, rel=0.003)
    views = [count + (count > 1) for count in tiles]
    assert 256 * np.mean(views) == pytest.approx(published.internvl2, rel=0.003)


def test_lists_hold_each_task_once() -> None:
    for tasks in table1.TASKS, mmmu.TASKS:
        assert len({task.name for task in tasks}) == len(tasks)
    assert table1.PUBLISHED.keys() == {task.name for task in table1.TASKS}


def test_pictures_are_repeatable_and_decode() -> None:
    shown = picture(40, 30, seed=1)
    assert shown.shape == (30, 40, 3)
    assert np.array_equal(shown, picture(40, 30, seed=1))
    assert not np.array_equal(shown, picture(40, 30, seed=2))
    assert open_image(encoded(shown), max_pixels=1200).size == (40, 30)


def test_targets_have_a_verdict() -> None:
    assert Target("ratio", 0.2, 0.2).to_dict()["met"]
    assert not Target("rate", 0.7, 0.8, "share", at_most=False).to_dict()["met"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results of both kinds, run on a machine whose ceilings are measured in no time."""
    folder = tmp_path_factory.mktemp("results")
    files = {"model": folder / "model.json", "table1": folder / "table1.json"}
    common = ["--dtype", "float32", "--warm-up", "0", "--model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ceilings.READ_BYTES, "cpu", 1 << 16)
        patch.setitem(ceilings.SQUARES, "cpu", (32,))
        patch.setattr(ceilings, "LEAST_SECONDS", 1e-5)
        runs = {
            "model": [*common, "nano", "--new-tokens", "3", "--batches", "1,2", "--plot", folder / "model.png"],
            "table1": ["table1", *common, "nano", "--peer", "none", "--pictures", "1", "--markdown", folder / "t.md"],
        }
        for kind, words in runs.items():
            result = CliRunner().invoke(app, ["bench", *map(str, words), "--out", str(files[kind])])
            assert result.exit_code == 0, result.stderr
            assert json.loads(result.stdout.splitlines()[-1]) == read_result(files[kind])
    assert (folder / "model.png").stat().st_size > 1000
    assert (folder / "t.md").read_text().rstrip() in result.stdout
    return files


def test_a_result_says_what_it_was_made_with(kept: dict[str, Path]) -> None:
    result = read_result(kept["model"])
    assert result.keys() >= {"command", "machine", "torch", "transformers", "commit", "seed", "rounds", "targets"}
    assert [way["subject"] for way in result["ways"]] == ["nano", "nano, engine"]
    for way in result["ways"]:
        assert [stage["name"] for stage in way["stages"]][-2:] == ["first token", "per token"]
        assert result["flops"] == way["counted_flops"] == 2 * result["macs"]
        seconds = {stage["name"]: stage["seconds"]["median"] for stage in way["stages"]}
        assert seconds["per token"] < seconds["first token"]
        assert min(seconds.values()) > 0
    engine = result["ways"][1]
    assert engine["second_question"]["count"] == result["rounds"] == 5
    assert 0 < engine["second_question_flops"] < engine["counted_flops"] / 2
    least = {row["batch"]: row["least_seconds"] for row in result["batches"]}
    assert least[1] < least[2] <= 2 * least[1]
    assert not result["cut"]
    assert [(row["subject"], row["batch"]) for row in result["batches"]] == [
        ("nano", 1),
        ("nano, engine", 1),
        ("nano", 2),
        ("nano, engine", 2),
    ]
    assert len([target for target in result["targets"] if not target["name"].endswith(", raised")]) == 3


def test_tables_are_made_from_the_file_alone(kept: dict[str, Path], tmp_path: Path) -> None:
    for file in kept.values():
        result = CliRunner().invoke(app, ["bench", "--from", str(file), "--plot", str(tmp_path / "again.png")])
        assert result.stdout.startswith(markdown(read_result(file)))
        assert (tmp_path / "again.png").exists()
    result = read_result(kept["table1"])
    assert [row["task"] for row in result["rows"][::2]] == [task.name for task in table1.TASKS]
    assert [row["subject"] for row in result["rows"][:2]] == ["nano", "nano, engine"]
    result["targets"] = [Target("something", 3.0, 2.0).to_dict(), Target("another", 3.0, None).to_dict()]
    assert "| something | 3 | 2 | – | ratio | missed |\n| another | 3 | – | – | ratio | told alone |" in markdown(
        result
    )
    with pytest.raises(ConfigError, match="no plot"):
        draw({"bench": "nothing"}, tmp_path / "nothing.png")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "missing.json"], "cannot be read"),
        (["--rounds", "2"], "too few"),
        (["--batches", "1,none"], "--batches"),
        (["--model", "nano", "table1"], "write it behind"),
        (["table1", "--model", "none", "--peer", "none"], "nothing to measure"),
        (["flashvl", "--model", "none", "--peer", "nobody"], "no peer"),
    ],
)
def test_a_bench_that_cannot_run_is_one_sentence(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["bench", *words])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.gpu
def test_a_plan_bounds_the_memory_of_an_accelerator() -> None:
    from saccade.bench.count import Analysis, Workload
    from saccade.bench.memory import peak_memory
    from saccade.bench.opening import open_own
    from saccade.presets import preset

    subject = open_own("preset:flashvl_static", "cuda", torch.bfloat16, seed=0)
    analysis, work = Analysis(preset("flashvl_static")), Workload(views=1, text_tokens=48, batch=4)
    prepared: Any = subject.prepare([picture(640, 480, seed=0)] * 4, text_tokens=48)
    with peak_memory(subject.device) as peak:
        subject.generate(prepared, new_tokens=2)
    cache = 4 * (prepared.prompt_tokens + 2) * analysis.kv_elements
    assert peak.working is not None
    assert peak.working <= 2 * (analysis.activations(work) + cache) + 64e6
