"""The bundled models: small enough, as good as their cards say, and the cards made from the stored scores."""

import json
import sys
from pathlib import Path

import pytest

import saccade
from saccade.checkpoint import bundled_models
from saccade.evaluate import evaluate_world
from saccade.train.recipes import recipe

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "docs" / "results"
sys.path.insert(0, str(REPO / "tools"))

import release_nano  # noqa: E402


@pytest.fixture(scope="module", params=bundled_models())
def vlm(request):
    return saccade.load(request.param)


def test_together_they_fit_the_package():
    assert release_nano.total_bytes() <= release_nano.MOST_BYTES


def test_each_is_the_model_of_its_recipe(vlm):
    assert vlm.description == recipe(vlm.name).description
    run = json.loads((RESULTS / f"{vlm.name}_run.json").read_text())
    assert run["parameters"] == vlm.model.num_parameters()


def test_a_sample_of_its_scores_comes_out_again(vlm):
    """A part of the frozen questions must land near the stored score: four standard deviations of so small a sample."""
    stored = json.loads((RESULTS / f"{vlm.name}_test.json").read_text())["families"]
    report = evaluate_world(vlm, tuple(stored), limit=36).to_dict()["families"]
    for family, scores in report.items():
        expected = stored[family]["accuracy"]
        spread = (expected * (1 - expected) / scores["n"]) ** 0.5
        assert abs(scores["accuracy"] - expected) <= 4 * spread + 0.01, family


@pytest.mark.parametrize("name", bundled_models())
def test_a_card_is_made_from_the_stored_scores(name):
    assert (release_nano.ASSETS / name / "README.md").read_text() == release_nano.card(name)
