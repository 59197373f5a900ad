"""Studies of training: stages follow one another from a base that stays, goals are judged, intervals are paired."""

import json
import re
from copy import deepcopy
from dataclasses import replace

import pytest

import saccade
from saccade.ablate import STUDIES, cell
from saccade.ablate.paired import counts, interval, lead
from saccade.ablate.study import Course
from saccade.ablate.table import render
from saccade.evaluate.world import Outcome, items
from saccade.train.tasks import World
from saccade.vlm import VLM
from saccade.vlm.ledger import weights_hash
from test_ablate import made

STAGES, PREFERENCE, REASONING = (STUDIES[name] for name in ("stages", "preference", "reasoning"))


def marked(right: str, scenes: range | None = None) -> str:
    return " ".join(f"{scene}{mark}" for scene, mark in zip(scenes or range(len(right)), right, strict=True))


def test_a_lead_counts_points_or_errors_avoided():
    better, worse = {"a.x": marked("++++"), "b.y": marked("++")}, {"a.x": marked("+--+"), "b.y": marked("+-")}
    assert lead([better], [worse]) == pytest.approx(50.0)
    assert lead([better], [worse], ["a"]) == pytest.approx(50.0)
    assert lead([better, worse], [worse, worse], ["a", "b"], errors=True) == pytest.approx(50.0)
    assert lead([worse], [better], ["a"], errors=True) == 0.0, "the other makes no error"


def test_families_count_alike_and_questions_that_are_named_do():
    better, worse = {"a.x": marked("++++++++"), "b.y": marked("-+")}, {"a.x": marked("++++++++"), "b.y": marked("--")}
    assert lead([better], [worse]) == pytest.approx(25.0)
    assert lead([better], [worse], ["a", "b"]) == pytest.approx(10.0)


def test_the_interval_draws_scenes_whole():
    right, wrong = "+" * 30 + "-" * 30, "-" * 60
    apart = interval([{"a.x": marked(right)}], [{"a.x": marked(wrong)}])
    scenes = [scene // 10 for scene in range(60)]
    together = interval([{"a.x": marked(right, scenes)}], [{"a.x": marked(wrong, scenes)}])
    assert apart[0] < 50 < apart[1]
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    assert interval([{"a.x": marked(right)}], [{"a.x": marked("+" * 60)}], errors=True) == (0.0, 0.0)


def test_forms_are_named_by_how_they_begin():
    assert counts("preference.absent.pair", ["preference.absent"])
    assert counts("objects.color", ["objects"])
    assert not counts("preference.shape", ["preference.absent", "preference.color", "shape"])


def before_and_after(absent: float, rest: float) -> list[dict]:
    """A start that errs in 40 of 100 questions about absent things, and a model after it, from three seeds."""
    runs = []
    for seed in range(3):
        start, after = (
            made(
                name,
                seed,
                {"preference": {"absent.pair": hits, "color": 1.0, "shape": 1.0}, "objects": {"color": known}},
            )
            for name, hits, known in (("start", 0.6, 0.9), ("DPO", absent, rest))
        )
        runs.append(start | {"rows": start["rows"] | after["rows"]})
    return runs


@pytest.mark.parametrize(
    ("absent", "rest", "cut", "kept"),
    [(0.8, 0.9, "reached", "reached"), (0.62, 0.9, "missed", "reached"), (0.8, 0.8, "reached", "missed")],
)
def test_goals_are_reached_or_missed(absent, rest, cut, kept):
    small = replace(PREFERENCE, families=("preference", "objects"))
    page = render([(small, before_and_after(absent, rest))])
    (errors,) = re.findall(r"- \*DPO\* against \*start\* on both of these: .*", page)
    (others,) = re.findall(r"- \*DPO\* against \*start\* on all others: .*", page)
    assert f"here {100 * (absent - 0.6) / 0.4:+.1f} ± 0.0 % fewer errors (95 %: " in errors
    assert errors.endswith(f"goal: above +15. **{cut}**")
    assert others.endswith(f"goal: above -1. **{kept}**")
    assert PREFERENCE.note in page


def test_every_seed_draws_other_rows():
    stage = STAGES.course("Flash-VL").stages["Flash-VL 5: preferences"]
    firsts = [cell.of_seed(stage, seed).task.data[0].first for seed in range(3)]
    rows = stage.task.data[0].rows
    assert firsts == [0, rows, 2 * rows]
    captions = STAGES.course("FlashSloth").stages["FlashSloth 1: captions"]
    assert cell.of_seed(captions, 1) == captions
    sft, grpo = (stage.task.data[0] for stage in REASONING.course("SFT + GRPO").stages.values())
    assert all(isinstance(one, World) for one in (sft, grpo))
    assert sft.first + 3 * sft.rows <= grpo.first


def test_answers_are_told_question_by_question():
    asked = items("objects", "test", 5)
    outcomes = [Outcome(item, item.question.answer if n % 2 else "nothing", "nothing") for n, item in enumerate(asked)]
    told = cell.answers(outcomes)
    assert sum(marks.count("+") for marks in told.values()) == 2
    assert sum(len(marks.split()) for marks in told.values()) == 5
    assert told[f"objects.{asked[1].question.form}"].split()[-1][:-1].isdigit()


@pytest.fixture(scope="module")
def base():
    return saccade.load(dtype="float32")


def shortened(course: Course) -> Course:
    """The same stages of one step of two rows each."""
    stages = {}
    for row, stage in course.stages.items():
        fields = {"generations": 2} if stage.task.kind == "problems" else {}
        data = tuple(one.model_copy(update={"rows": 2}) for one in getattr(stage.task, "data", ()))
        task = stage.task.model_copy(update=fields | ({"data": data} if data else {}))
        stages[row] = stage.model_copy(update={"steps": 1, "batch": 2, "task": task})
    return replace(course, stages=stages)


def short(known):
    """The study with one step a stage, and two questions a family."""
    return replace(known, variants={name: shortened(known.course(name)) for name in known.variants}, questions=2)


@pytest.mark.parametrize(
    ("known", "variant"),
    [(REASONING, "SFT + GRPO"), pytest.param(STAGES, "Flash-VL", marks=pytest.mark.slow)],
)
def test_a_cell_scores_every_stage_and_leaves_the_base(known, variant, base, tmp_path):
    pytest.importorskip("trl")
    before = weights_hash(base.model)
    done = cell.run_cell(short(known), variant, 1, base, tmp_path)
    assert weights_hash(base.model) == before
    assert tuple(done["rows"]) == known.course(variant).rows
    assert json.dumps(done)
    for row in done["rows"].values():
        assert set(row["families"]) == set(known.families)
    assert done["rows"][known.course(variant).rows[-1]]["steps"] == 1


def test_the_base_is_a_setting_as_far_as_courses_start_from_it(base):
    pytest.importorskip("trl")
    other = VLM(deepcopy(base.model), base.processor, base.name)
    other.model.config.prompt = base.model.config.prompt.model_copy(update={"system": "In a word."})
    known, moved = cell.settings(REASONING, base), cell.settings(REASONING, other)
    assert known["weights"] == weights_hash(base.model)
    assert [name for name in known if known[name] != moved[name]] == ["variant SFT + GRPO", "variant GRPO"]
    assert "weights" not in cell.settings(STAGES, base)
    assert cell.settings(STAGES, base) == cell.settings(STAGES, other)
