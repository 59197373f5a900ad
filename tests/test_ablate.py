"""Ablations: variants are valid models, patches are computed once, the queue resumes, verdicts follow the runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import saccade
from saccade.ablate import STUDIES, cell, queue, study
from saccade.ablate.queue import run_studies
from saccade.ablate.studies import Claim
from saccade.ablate.table import differences, render, size_score, verdict
from saccade.data.collate import Sample
from saccade.errors import ConfigError, DataError
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import nano
from saccade.train.questions import Encoder, QuestionDataset
from saccade.train.run import load_tokenizer

TABLE3 = STUDIES["table3"]


def result(variant: str, seed: int, accuracy: float) -> dict:
    family = {"accuracy": accuracy, "n": 500}
    sizes = {"visual_tokens": 9, "queries": 9}
    return {"variant": variant, "seed": seed, "families": {"objects": family, "digits": family}, **sizes}


def test_sizes_are_scored_apart():
    forms = {
        "word.large": {"accuracy": 1.0, "n": 30}, "number.large": {"accuracy": 0.0, "n": 10},
        "word.small": {"accuracy": 0.25, "n": 4},
    }  # fmt: skip
    read = {"families": {"text": {"accuracy": 0.5, "n": 44, "forms": forms}}}
    assert size_score(read, "large") == pytest.approx(75.0)
    assert size_score(read, "small") == pytest.approx(25.0)


@pytest.mark.parametrize("name", STUDIES)
def test_variants_are_models_and_blocks_name_them(name):
    for build in STUDIES[name].variants.values():
        build().check()
    for block in STUDIES[name].blocks:
        named = set(block.variants) | {side for claim in block.claims for side in (claim.better, claim.worse)}
        assert named <= set(STUDIES[name].variants)


def test_variants_differ_where_their_names_say():
    assert TABLE3.variants["SAP"]().query is None
    assert TABLE3.variants["no compression"]().tokens_per_view == nano().patches_per_view
    assert TABLE3.variants["12 queries"]().prompt.num_queries == 12
    assert TABLE3.variants["random"]().query.init == "random"


def test_unknown_study_names_the_known():
    with pytest.raises(ConfigError, match="table3"):
        study("table33")


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ([2.0, 3.0, 2.5], "same direction"),
        ([-2.0, -3.0, -2.5], "opposite"),
        ([2.0, -1.0, 2.5], "within noise"),
        ([0.1, 5.0, 0.1], "within noise"),
        ([2.0], "too few runs"),
    ],
)
def test_verdicts(ahead, expected):
    assert verdict(ahead) == expected


def test_differences_pair_seeds():
    runs = [result("SAP", 0, 0.5), result("SAP", 1, 0.6), result("average", 1, 0.5), result("average", 2, 0.1)]
    assert differences(Claim("SAP", "average"), runs) == pytest.approx([10.0])


def test_page_shows_means_spread_and_the_papers_figures():
    runs = [
        result(name, seed, 0.5 + 0.1 * (name == "SAP") + 0.01 * seed)
        for name in ("SAP", "average")
        for seed in range(3)
    ]
    page = render([(TABLE3, runs)])
    assert "| SAP | 9 + 9 | 61.0 ± 1.0 | 61.0 ± 1.0 | 61.0 ± 1.0 | 60.2 | 86.4 | 1444.8 | 63.9 |" in page
    assert "+10.0 ± 0.0 points, in 3 of 3 runs" in page
    assert "**same direction**" in page
    assert "EmbQ* ahead" not in page, "a claim without runs is left out"


def test_cached_patches_give_the_loss_of_the_pictures(tmp_path):
    torch.manual_seed(0)
    model = SaccadeForConditionalGeneration(nano()).eval()
    encoder = Encoder(model.config, load_tokenizer("nano"))
    shared = {"families": dict(TABLE3.families), "length": 6, "image": model.config.image, "encoder": encoder}
    patches = cell.cached_patches(model, TABLE3, 6, tmp_path)
    assert patches.shape == (6, 1, 81, 192)
    assert np.array_equal(cell.cached_patches(model, TABLE3, 6, tmp_path), patches)
    assert len(list(tmp_path.iterdir())) == 1
    losses = []
    for stored in (None, patches):
        data = QuestionDataset(**shared, patches=stored, stage=cell.stages(TABLE3)[1])
        with torch.no_grad():
            losses.append(model(**encoder.collate([data[2], data[5]])).loss)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)
    assert isinstance(data[2][0], Sample)
    assert data[2][0].views.dtype == np.float16


def test_the_queue_runs_what_is_missing_and_refuses_damage(tmp_path, monkeypatch):
    ran = []

    def run_cell(study, variant, seed, base, cache):
        ran.append((variant, seed))
        return result(variant, seed, 0.5)

    monkeypatch.setattr(queue, "run_cell", run_cell)
    small = replace(TABLE3, variants={name: TABLE3.variants[name] for name in ("SAP", "SAP + EmbQ")})
    arguments = {"base": None, "cache": tmp_path}
    run_studies([small], tmp_path / "out", 1, **arguments)
    page = run_studies([small], tmp_path / "out", 2, **arguments)
    assert ran == [("SAP", 0), ("SAP + EmbQ", 0), ("SAP", 1), ("SAP + EmbQ", 1)]
    assert "| SAP + EmbQ | 9 + 9 | 50.0 ± 0.0 |" in page.read_text()
    next((tmp_path / "out" / "table3").iterdir()).write_text("{")
    with pytest.raises(DataError, match="remove it"):
        run_studies([small], tmp_path / "out", 2, **arguments)


def test_a_cell_trains_and_scores_a_variant(tmp_path, monkeypatch):
    monkeypatch.setattr(cell, "STEPS", {"captions": 2, "questions": 2})
    monkeypatch.setattr(cell, "PICTURES", {"captions": 2, "questions": 2})
    monkeypatch.setattr(cell, "VAL_QUESTIONS", 8)
    base = saccade.load(dtype="float32")
    done = cell.run_cell(TABLE3, "SAP", 0, base, tmp_path)
    again = cell.run_cell(TABLE3, "SAP", 0, base, tmp_path)
    assert {name: done[name] for name in done if name != "seconds"} == {
        name: again[name] for name in again if name != "seconds"
    }
    assert json.dumps(done)
    assert done["families"]["objects"]["n"] == 8
    assert done["queries"] == 0
