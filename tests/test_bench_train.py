"""What training costs: plans against what is measured, the bill of a recipe, the bench of steps, all of it on a GPU."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import small
from saccade import presets
from saccade.bench.exercises import Exercise, fed_batch, own_batch
from saccade.bench.feeds import OwnFeed
from saccade.bench.recipe_plan import Run, plan_recipe, steps_of
from saccade.bench.skeleton import random_model
from saccade.bench.tasks import picture
from saccade.bench.traced import loss_at_end, trace_step
from saccade.bench.training import PRETRAINING, TUNING, Steps, learners, measure_training
from saccade.bench.training import steps_of as bench_steps_of
from saccade.cli import app
from saccade.errors import ConfigError
from saccade.train.recipes import recipe
from saccade.train.stages import Group, Lora, Recipe, Stage
from saccade.train.tasks import Patches, Preferences, Problems, Questions, Tuning, World
from saccade.train.trainer import assign_groups

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

CPU = torch.device("cpu")
FAMILIES = {"objects": 1.0}
TINY = small.config(num_layers=2, before_layers=(0, 2))
LEARNS = "compressor|projector|language_model|lm_head|query"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of the smallest model."""
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: small.config(num_layers=2, before_layers=(0, 2)))


def traced(config, exercise, pattern: str = LEARNS, *, checkpointing: bool = False):
    def prepare(model):
        assign_groups(model, (Group(pattern=pattern, lr=1e-3),))
        return model

    batch = own_batch(config, exercise, 1, exercise.rows)

    def loss(model, without_content):
        return loss_at_end(model, without_content(batch), exercise.trained_tokens)

    return trace_step(config, prepare, loss, checkpointing=checkpointing, dtype=torch.float32)


def test_a_batch_has_its_rounds_each_with_queries_of_its_own() -> None:
    config = TINY
    exercise = Exercise("x", rows=3, rounds=2, text_tokens=20)
    ours = own_batch(config, exercise, 1, 3)
    fed = fed_batch(OwnFeed(config), config, exercise, picture(320, 240, 0), CPU)
    queries = config.query.num_queries
    assert ours["input_ids"].shape == (3, 2 * (20 + queries) + config.tokens_per_view)
    for name in ("input_ids", "mm_token_type_ids", "attention_mask"):
        assert torch.equal(ours[name], fed[name]), name
    assert (ours["input_ids"] == config.query_token_id).sum() == 3 * 2 * queries
    assert len(ours["mm_token_type_ids"].unique()) == 6, "text, picture, and of two rounds a question and its queries"
    model = random_model(config, "cpu", torch.float32, 0)
    assert loss_at_end(model, ours, exercise.trained_tokens).isfinite()


def test_flops_grow_with_what_is_trained_and_what_is_computed_again() -> None:
    exercise = Exercise("x", rows=2, rounds=1, text_tokens=16)
    adapter, most = traced(TINY, exercise, "compressor|projector"), traced(TINY, exercise)
    again = traced(TINY, exercise, checkpointing=True)
    assert adapter.trained < most.trained < most.parameters
    assert adapter.parameters == most.parameters
    assert adapter.flops < most.flops < again.flops


def test_activations_computed_again_take_less_than_those_kept() -> None:
    kept, again = (traced(TINY, Exercise("x", 8, 1, 64), checkpointing=way) for way in (False, True))
    assert again.activation_bytes < kept.activation_bytes
    twice = traced(TINY, Exercise("x", rows=16, rounds=1, text_tokens=64))
    assert twice.activation_bytes == pytest.approx(2 * kept.activation_bytes, rel=0.1)


ONE_STEP = Exercise("x", rows=32, rounds=1, text_tokens=24)


def peak_of_a_step() -> int:
    """Most bytes that a step of nano holds at once.

    By torch's allocator: what is resident depends on what the process gave back before.
    """
    config = presets.nano()
    model = random_model(config, "cpu", torch.float32, 0).train()
    assign_groups(model, (Group(pattern=LEARNS, lr=1e-3),))
    batch = own_batch(config, ONE_STEP, 1, ONE_STEP.rows)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as told:
        loss_at_end(model, batch, ONE_STEP.trained_tokens).backward()
    changes = [event for event in told.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))


def test_what_is_planned_is_what_is_measured() -> None:
    cost = traced(presets.nano(), ONE_STEP)
    planned = cost.activation_bytes + 4 * cost.trained
    assert 0.7 * planned < peak_of_a_step() < 1.3 * planned


def stage(task, **changes) -> Stage:
    fields = {"name": "only", "task": task, "groups": (Group(pattern=LEARNS, lr=1e-3),), "steps": 6, "batch": 4}
    return Stage(**(fields | changes))


def planned(one: Stage, **run) -> dict:
    made = Recipe(name="mine", preset="tiny", tokenizer="nano", stages=(one,))
    return plan_recipe(made, Run((320, 240), 24, **run))["stages"][0]


def test_a_plan_of_a_stage_adds_up() -> None:
    asked = stage(Questions(families=FAMILIES, questions=4, turns=2), micro_batch=2)
    alone = planned(asked, rate=1e12)
    assert alone["at_once"] == alone["accumulated"] == 2
    assert alone["bytes"] == {
        "weights": 4 * alone["parameters"],
        "gradients": 4 * alone["trained"],
        "optimizer": 8 * alone["trained"],
    }
    assert alone["bytes_at_most"]["kept"] == sum(alone["bytes"].values()) + alone["activation_bytes"]["kept"]
    config = TINY
    row = 2 * (24 + config.query.num_queries) + config.tokens_per_view
    assert alone["tokens_per_step"] == 4 * 2 * row, "two conversations a picture"
    assert alone["flops"] == 6 * alone["flops_per_step"]
    assert alone["hours"] == pytest.approx(alone["flops"] / 1e12 / 3600)
    shared = planned(asked, rate=1e12, processes=2, sharded=True)
    assert shared["bytes"]["weights"] == alone["bytes"]["weights"] // 2
    assert shared["flops"] == alone["flops"]
    assert shared["hours"] == pytest.approx(alone["hours"] / 2)


@pytest.mark.slow  # six traces, two seconds each
def test_adapters_and_patches_are_planned() -> None:
    task = Tuning(data=(World(families=FAMILIES, rows=10),), max_length=512)
    whole, lora = (
        planned(stage(task, groups=(Group(pattern="language_model", lr=1e-3, lora=way),)))
        for way in (None, Lora(rank=1))
    )
    assert 0 < lora["trained"] < whole["trained"] / 2
    assert lora["parameters"] == whole["parameters"] + lora["trained"]
    patches = planned(stage(Patches(families=FAMILIES), groups=(Group(pattern="vision_tower|heads", lr=1e-3),)))
    assert patches["tokens_per_step"] == 0
    assert patches["trained"] == patches["parameters"], "there is nothing but the tower and its heads"


def test_what_training_refuses_to_divide_is_not_planned_divided() -> None:
    task = Preferences(data=(World(families=FAMILIES, rows=10),), max_length=512)
    with pytest.raises(ConfigError, match="leave --sharded out"):
        planned(stage(task), processes=2, sharded=True)


def test_one_process_has_nobody_to_share_with() -> None:
    with pytest.raises(ConfigError, match="say --processes too"):
        planned(stage(Questions(families={"objects": 1.0})), sharded=True)


def test_answers_to_a_problem_share_its_picture_and_what_is_trained_has_a_copy() -> None:
    task = Problems(data=(World(families=FAMILIES, rows=10),), max_length=512, max_new_tokens=8, generations=3)
    one = planned(stage(task, groups=(Group(pattern="language_model", lr=1e-3),), micro_batch=2))
    assert one["tokens_per_step"] == 4 * 3 * (24 + TINY.query.num_queries + TINY.tokens_per_view)
    assert one["bytes"]["reference"] == 4 * one["trained"] < one["bytes"]["weights"]


def test_steps_are_counted_from_rows_where_they_are_known(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"caption": "a"}\n' * 5)
    task = Tuning(data=({"path": str(rows), "kind": "captions"}, World(families=FAMILIES, rows=4)), max_length=64)
    assert steps_of(stage(task, steps=None, epochs=2), tmp_path) == 5
    assert steps_of(stage(task, steps=None, epochs=0.5, batch=1), tmp_path) == 4, "half of nine rows, as in training"
    missing = Tuning(data=({"path": str(tmp_path / "none.jsonl"), "kind": "captions"},), max_length=64)
    assert steps_of(stage(missing, steps=None, epochs=2), tmp_path) is None
    assert steps_of(recipe("flashsloth").stages[0], tmp_path) == 2181, "558,128 captions, 256 at a time"


def test_the_plan_of_a_recipe_is_a_table_or_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.train import recipes

    mine = Recipe(name="mine", preset="tiny", tokenizer="nano", stages=(stage(Questions(families=FAMILIES)),))
    monkeypatch.setitem(recipes.RECIPES, "mine", lambda: mine)
    words = ["plan", "mine", "--picture", "320x240", "--text", "24"]
    bill = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert bill["recipe"] == "mine"
    assert bill["stages"][0]["hours"] is None
    more = ["--set", "stages.0.steps=12", "--json"]
    assert json.loads(CliRunner().invoke(app, [*words, *more]).stdout)["stages"][0]["steps"] == 12
    assert "GB a process" in CliRunner().invoke(app, [*words, "--rate", "1"]).stdout
    wrong = CliRunner().invoke(app, [*words, "--measure"])
    assert wrong.exit_code == 1
    assert "no use for --measure" in " ".join(wrong.output.split())
    other = CliRunner().invoke(app, ["plan", "--model", "nano", "--rate", "1"])
    assert "no use for --rate" in " ".join(other.output.split())
    unheard = CliRunner().invoke(app, ["plan", "--set", "stages.0.steps=12"])
    assert "no use for --set" in " ".join(unheard.output.split())


def test_too_short_a_text_is_refused() -> None:
    mine = Recipe(name="mine", preset="tiny", tokenizer="nano", stages=(stage(Questions(families=FAMILIES)),))
    with pytest.raises(ConfigError, match="too few"):
        plan_recipe(mine, Run((320, 240), 3))


def test_what_does_not_fit_is_planned_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.bench.training.free_bytes", lambda device: 1 << 20)
    found, told = learners(["preset:tiny"], []), []
    rows = measure_training(found, CPU, torch.float32, Steps(1, quick=True), lambda: told.append(0))
    assert [row["exercise"] for row in rows] == [PRETRAINING.name, TUNING.name]
    assert len(told) == bench_steps_of(found, Steps(1))
    assert all(row["seconds"] is None and row["planned_bytes"] > 1 << 20 for row in rows)


def test_the_bench_of_training_leaves_json_tables_and_a_picture(tmp_path: Path, monkeypatch) -> None:
    out, plot = tmp_path / "train.json", tmp_path / "train.png"
    words = ["bench", "train", "--quick", "--device", "cpu", "--out", str(out), "--plot", str(plot)]
    done = CliRunner().invoke(app, [*words, "--model", "preset:tiny", "--peer", "mobilevlm-v2-3b"])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    rows = {(row["subject"], row["exercise"]): row for row in result["exercises"]}
    assert rows.keys() == {(name, one) for name in ("tiny", "mobilevlm-v2-3b") for one in ("pretraining", "tuning")}
    ours, theirs = rows["tiny", "pretraining"], rows["mobilevlm-v2-3b", "pretraining"]
    assert ours["rows"] == 8
    assert ours["samples_per_second"]["median"] > 0
    assert ours["trained"] < rows["tiny", "tuning"]["trained"]
    assert theirs["trained"] == rows["mobilevlm-v2-3b", "tuning"]["trained"], "its pretraining trains the decoder too"
    assert "| pretraining, 8 rows: tiny |" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    result["exercises"][0] |= {"seconds": None, "samples_per_second": None, "memory_bytes": None}
    out.write_text(json.dumps(result))
    again = CliRunner().invoke(app, ["bench", "train", "--from", str(out), "--plot", str(plot)])
    assert "does not fit" in again.stdout


@pytest.mark.slow
def test_the_whole_of_a_gpu_in_small(tmp_path: Path) -> None:
    import gpu_train

    assert gpu_train.main(["--small", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "gpu_train.json").read_text())["stages"]
    assert [(row["recipe"], row["stage"]) for row in told] == [
        ("flashsloth", "captions"), ("flashsloth", "tuning"),
        ("flashvl_static", "captions"), ("flashvl_static", "instructions"),
    ]  # fmt: skip
    assert all(row["error"] is None and len(row["steps"]) == 2 for row in told)
    assert {file.name for file in tmp_path.iterdir()} == {"gpu_train.json", "train.json", "train.png"}
