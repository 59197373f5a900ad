"""The bundled model: small enough, as good as its card says, and the card made from the stored scores."""

import json
import sys
from pathlib import Path

import pytest

import saccade
from saccade.evaluate import evaluate_world
from saccade.train.recipes.nano_recipes import nano

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "docs" / "results"
sys.path.insert(0, str(REPO / "tools"))

import release_nano  # noqa: E402


@pytest.fixture(scope="module")
def vlm():
    return saccade.load()


def test_it_fits_the_package():
    assert sum(path.stat().st_size for path in (release_nano.ASSETS / "nano").iterdir()) <= release_nano.MOST_BYTES


def test_it_is_the_model_of_its_recipe(vlm):
    assert vlm.description == nano().description
    run = json.loads((RESULTS / "nano_run.json").read_text())
    assert run["parameters"] == vlm.model.num_parameters()


def test_a_sample_of_its_scores_comes_out_again(vlm):
    """A part of the frozen questions must land near the stored score: four standard deviations of so small a sample."""
    stored = json.loads((RESULTS / "nano_test.json").read_text())["families"]
    report = evaluate_world(vlm, tuple(stored), limit=72).to_dict()["families"]
    for family, scores in report.items():
        expected = stored[family]["accuracy"]
        spread = (expected * (1 - expected) / scores["n"]) ** 0.5
        assert abs(scores["accuracy"] - expected) <= 4 * spread + 0.01, family


def test_the_card_is_made_from_the_stored_scores():
    assert (release_nano.ASSETS / "nano" / "README.md").read_text() == release_nano.card("nano")
