"""The pointing score: 1 for a perfect pointer, 0 for one that does not heed the question, and a measurement that can be
repeated."""

import json
from typing import Any

import numpy as np
import pytest

from helpers_vlm import tiny_vlm
from saccade.config import PromptConfig
from saccade.data import scenes
from saccade.errors import ConfigError, DataError
from saccade.evaluate.pointing import NAMES, Aim, Look, PointingReport, evaluate_pointing, gains
from saccade.vlm import VLM


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture(scope="module")
def report(vlm: VLM) -> PointingReport:
    return evaluate_pointing(vlm, limit=4)


def looks(scene: int, kind: str, *masses: tuple[float, ...]) -> list[Look]:
    """Looks at a scene of which the first things are named in turn."""
    return [Look(Aim("objects", scene, kind, n, ""), row) for n, row in enumerate(masses)]


def score(*members: list[Look]) -> Any:
    return PointingReport("m", "test", tuple(look for group in members for look in group), {}).to_dict()["families"]


def test_a_gain_compares_a_thing_with_itself() -> None:
    found = gains(looks(0, "color", (0.6, 0.1, 0.2), (0.2, 0.5, 0.2)))
    np.testing.assert_allclose(found, [[0.6, 0.2], [0.5, 0.1]])
    three = gains(looks(0, "color", (0.6, 0.1, 0.0), (0.2, 0.5, 0.1), (0.4, 0.3, 0.2)))
    np.testing.assert_allclose(three, [[0.6, 0.3], [0.5, 0.2], [0.2, 0.05]])


def test_perfect_pointing_is_one_and_mere_saliency_nothing() -> None:
    perfect = [looks(n, "color", (1.0, 0.0), (0.0, 1.0)) for n in range(5)]
    salient = [looks(n, "color", (0.9, 0.1), (0.9, 0.1)) for n in range(5)]
    assert score(*perfect)["objects"]["mean"] == 1
    assert score(*perfect)["objects"]["interval"] == (1, 1)
    assert score(*salient)["objects"]["mean"] == 0
    assert score(*salient)["objects"]["named"] == 0.5


def test_every_scene_counts_once_and_types_are_told_apart() -> None:
    found = score(
        looks(0, "color", (0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5)),
        looks(0, "shape", (0.1, 0.0), (0.0, 0.1)),
        looks(7, "shape", (0.3, 0.3), (0.3, 0.3)),
    )["objects"]
    assert found["mean"] == 0.17
    assert found["n"] == 2
    assert found["questions"] == 7
    assert found["types"]["color"] == {**found["types"]["color"], "mean": 0.5, "n": 1, "questions": 3}
    assert found["types"]["shape"] == {**found["types"]["shape"], "mean": 0.05, "n": 2, "questions": 4}
    low, high = found["interval"]
    assert low == 0 < found["mean"] < high


def test_questions_of_a_scene_are_worded_alike_and_name_one_thing_each(report: PointingReport) -> None:
    assert len({look.aim.scene for look in report.looks}) == 4
    groups: dict[Any, list[Look]] = {}
    for look in report.looks:
        groups.setdefault((look.aim.scene, look.aim.type), []).append(look)
    for (scene, kind), members in groups.items():
        objects = scenes.sketch("objects", "test", scene).objects
        names = [NAMES[kind](objects[look.aim.named]) for look in members]
        assert len(set(names)) == len(members) > 1
        frames = {look.aim.question.lower().replace(name, "...") for look, name in zip(members, names, strict=True)}
        assert len(frames) == 1
        assert "..." in frames.pop()
        for name in names:
            assert sum(NAMES[kind](item) == name for item in objects) == 1


def test_masses_are_those_of_the_explanation(vlm: VLM, report: PointingReport) -> None:
    for look in report.looks[:3]:
        scene = scenes.render("objects", "test", look.aim.scene)
        made = vlm.explain(scene.image, look.aim.question, max_new_tokens=1)
        assert made.query_image is not None
        laid = made.to_map(made.query_image.mean(axis=0))
        expected = [laid[scene.instance_map == n + 1].sum() for n in range(len(scene.objects))]
        assert look.masses == pytest.approx(expected, rel=1e-4)
        assert sum(look.masses) < 1


def test_the_batch_size_changes_nothing_and_progress_ends(vlm: VLM, report: PointingReport) -> None:
    told: list[tuple[int, int]] = []
    again = evaluate_pointing(vlm, limit=4, batch_size=5, progress=lambda *now: told.append(now))
    assert [look.aim for look in again.looks] == [look.aim for look in report.looks]
    for one, other in zip(again.looks, report.looks, strict=True):
        assert one.masses == pytest.approx(other.masses, rel=1e-4)
    count = len(report.looks)
    assert told[-1] == (count, count)
    assert len(told) == -(-count // 5)


def test_the_report_is_plain_and_says_how_it_was_made(report: PointingReport) -> None:
    stored = json.loads(json.dumps(report.to_dict(samples=True)))
    assert stored["split"] == "test"
    assert stored["limit"] == 4
    assert len(stored["samples"]) == len(report.looks)
    assert stored["families"]["objects"]["n"] == 4
    assert "samples" not in report.to_dict()


def test_a_family_counts_once(vlm: VLM) -> None:
    once, twice = (evaluate_pointing(vlm, ("objects",) * times, limit=1).looks for times in (1, 2))
    assert [look.aim for look in once] == [look.aim for look in twice]


def test_what_cannot_point_is_refused(vlm: VLM) -> None:
    with pytest.raises(ConfigError, match="no embedded queries"):
        evaluate_pointing(tiny_vlm(query=None, query_token_id=None, prompt=PromptConfig()))
    with pytest.raises(DataError, match="'digits' shows no two shapes"):
        evaluate_pointing(vlm, ("digits",))
    with pytest.raises(DataError, match="'cats'"):
        evaluate_pointing(vlm, ("cats",))
    with pytest.raises(DataError, match="limit is 0"):
        evaluate_pointing(vlm, limit=0)
