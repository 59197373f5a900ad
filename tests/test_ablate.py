"""Ablations: variants are valid models, patches are computed once, the queue resumes, verdicts follow the runs."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import saccade
from saccade.ablate import STUDIES, cell, queue, study
from saccade.ablate.queue import run_studies
from saccade.ablate.studies import Claim
from saccade.ablate.table import differences, forms_score, render, verdict
from saccade.cli import app
from saccade.data import scenes
from saccade.data.collate import Sample
from saccade.data.scenes.frozen import _QUOTAS
from saccade.errors import ConfigError, DataError
from saccade.evaluate import provenance
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import nano
from saccade.train.questions import Encoder, QuestionDataset
from saccade.train.run import load_tokenizer
from small import config as small_config

TABLE3 = STUDIES["table3"]


def result(variant: str, seed: int, accuracy: float) -> dict:
    family = {"accuracy": accuracy, "blank_accuracy": 0.2, "n": 500}
    facts = {"base": "nano", "machine": "a laptop", "torch": "2", "transformers": "5", "commit": "abc1234"}
    sizes = {"visual_tokens": 9, "queries": 9}
    return {"variant": variant, "seed": seed, "families": {"objects": family, "digits": family}, **sizes, **facts}


def test_letters_of_a_size_are_scored_apart_by_what_is_read():
    forms = {
        "word.large": {"accuracy": 1.0, "n": 30}, "number.large": {"accuracy": 0.0, "n": 10},
        "word.small": {"accuracy": 0.25, "n": 4}, "color.small": {"accuracy": 1.0, "n": 100},
    }  # fmt: skip
    read = {"families": {"text": {"accuracy": 0.5, "n": 144, "forms": forms}}}
    apart = STUDIES["resolution"].scored_apart
    assert forms_score(read, apart["large letters"]) == pytest.approx(75.0)
    assert forms_score(read, apart["small letters"]) == pytest.approx(25.0)
    assert {form for forms in apart.values() for form in forms} <= set(_QUOTAS["text"])


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
    assert (
        "| SAP | 9 + 9 | 61.0 ± 1.0 | 61.0 ± 1.0 | 61.0 ± 1.0 | 20.0 ± 0.0 | 3 | 60.2 | 86.4 | 1444.8 | 63.9 |" in page
    )
    assert "+10.0 ± 0.0 points, in 3 of 3 runs" in page
    assert "**same direction**" in page
    assert "EmbQ* ahead" not in page, "a claim without runs is left out"
    assert "3 seeds; tower of nano; a laptop; torch 2, transformers 5; commit abc1234." in page


def test_seeds_are_counted_per_study_and_figures_the_paper_lacks_are_dashes():
    few = {**TABLE3.published, "average": {"GQA": 59.6}}
    runs = [result(name, 0, 0.5) for name in ("SAP", "average")]
    other = replace(TABLE3, name="other", title="Other")
    page = render([(replace(TABLE3, published=few), runs), (other, [*runs, {**result("SAP", 1, 0.5), "commit": None}])])
    assert "| 50.0 | 50.0 | 50.0 | 20.0 | 1 | 59.6 | – | – | – |" in page
    assert "paper: GQA +0.6. **too few runs**" in page
    assert "1 seed;" in page.split("## Other")[0]
    assert "2 seeds;" in page.split("## Other")[1]
    assert "commit abc1234 and unknown." in page


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


def test_a_tower_has_one_digest_whatever_its_precision():
    model = SaccadeForConditionalGeneration(nano()).bfloat16()
    digest = cell.digest(model)
    assert cell.digest(model.float()) == digest
    next(model.model.vision_tower.parameters()).data += 1
    assert cell.digest(model) != digest


def test_figures_say_what_they_were_made_with(tmp_path, monkeypatch):
    made = provenance.made_with()
    assert made["machine"]
    assert made["torch"] == torch.__version__
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None, "an installed package is part of no checkout"


def test_studies_that_presume_another_base_run_when_named(monkeypatch):
    chosen = []
    monkeypatch.setattr(saccade.ablate, "run_studies", lambda studies, *_: chosen.append([s.name for s in studies]))
    for named in ([], ["resolution"]):
        assert CliRunner().invoke(app, ["train", "ablate", *named]).exit_code == 0
    assert chosen == [["table3"], ["resolution"]]


def test_the_tower_is_still_and_a_new_world_has_patches_of_its_own(tmp_path, monkeypatch):
    config = nano()
    config.vision_config.attention_dropout = 0.5
    model = SaccadeForConditionalGeneration(config).train()
    first, again = (cell.cached_patches(model, TABLE3, 3, tmp_path / name) for name in "ab")
    assert np.array_equal(first, again), "dropout is off"
    monkeypatch.setattr(scenes, "WORLD_VERSION", "next")
    cell.cached_patches(model, TABLE3, 3, tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.fixture(scope="module")
def base():
    return saccade.load(dtype="float32")


@pytest.fixture
def ran(monkeypatch):
    """The cells that were run, none of them truly."""
    cells = []

    def run_cell(study, variant, seed, base, cache):
        cells.append((variant, seed))
        return result(variant, seed, 0.5)

    monkeypatch.setattr(queue, "run_cell", run_cell)
    return cells


def with_variants(*names):
    return replace(TABLE3, variants={name: TABLE3.variants[name] for name in names})


def test_the_queue_runs_what_is_missing_and_refuses_damage(tmp_path, base, ran):
    small = with_variants("SAP", "SAP + EmbQ")
    arguments = {"base": base, "cache": tmp_path}
    run_studies([small], tmp_path / "out", 1, **arguments)
    page = run_studies([small], tmp_path / "out", 2, **arguments)
    assert ran == [("SAP", 0), ("SAP + EmbQ", 0), ("SAP", 1), ("SAP + EmbQ", 1)]
    assert "| SAP + EmbQ | 9 + 9 | 50.0 ± 0.0 |" in page.read_text()
    written = {path.name for path in (tmp_path / "out" / "table3").iterdir()}
    assert written == {"sap-0.json", "sap-1.json", "sap---embq-0.json", "sap---embq-1.json", "settings.json"}
    (tmp_path / "out" / "table3" / "sap-1.json").write_text("{")
    with pytest.raises(DataError, match="remove it"):
        run_studies([small], tmp_path / "out", 3, **arguments)
    assert len(ran) == 4, "damage is found before anything runs"


def test_the_page_keeps_the_studies_that_were_run_before(tmp_path, base, ran):
    run_studies([with_variants("SAP")], tmp_path, 1, base=base, cache=tmp_path)
    other = replace(with_variants("average"), name="other", title="Another study")
    page = run_studies([other], tmp_path, 1, base=base, cache=tmp_path).read_text()
    assert TABLE3.title in page
    assert "Another study" in page


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda patch: patch.setattr(cell, "STEPS", {"captions": 60, "questions": 401}), "questions.steps"),
        (lambda patch: patch.setattr(cell, "PICTURES", {"captions": 17, "questions": 16}), "captions.pictures"),
        (lambda patch: patch.setattr(cell, "QUESTIONS", 9), "questions"),
        (lambda patch: patch.setattr(scenes, "WORLD_VERSION", "next"), "world"),
        (lambda patch: patch.setattr(cell, "digest", lambda model: "another"), "tower"),
        (lambda patch: patch.setitem(TABLE3.variants, "SAP", TABLE3.variants["average"]), "variant SAP"),
    ],
)
def test_results_of_other_settings_are_not_pooled(tmp_path, base, ran, monkeypatch, change, name):
    run_studies([with_variants("SAP")], tmp_path, 1, base=base, cache=tmp_path)
    run_studies([with_variants("SAP", "average")], tmp_path, 1, base=base, cache=tmp_path)
    change(monkeypatch)
    with pytest.raises(ConfigError, match=rf"other settings \({name}; see .*choose an empty folder"):
        run_studies([with_variants("SAP")], tmp_path, 2, base=base, cache=tmp_path)
    assert ran == [("SAP", 0), ("average", 0)]


def test_results_without_settings_are_not_pooled(tmp_path, base, ran):
    run_studies([with_variants("SAP")], tmp_path, 1, base=base, cache=tmp_path)
    (tmp_path / "table3" / "settings.json").unlink()
    with pytest.raises(ConfigError, match="results without their settings"):
        run_studies([with_variants("SAP")], tmp_path, 2, base=base, cache=tmp_path)


def test_variants_of_one_file_and_another_tower_are_refused(tmp_path, base, ran):
    alike = replace(TABLE3, variants={"SAP + EmbQ": nano, "SAP - EmbQ": nano})
    with pytest.raises(ConfigError, match="would share a file"):
        run_studies([alike], tmp_path, 1, base=base, cache=tmp_path)
    small = SimpleNamespace(name="small", model=SimpleNamespace(config=small_config()))
    with pytest.raises(ConfigError, match=r"the tower of small is not that of variant 'SAP' \(.*hidden_size"):
        run_studies([with_variants("SAP")], tmp_path, 1, base=small, cache=tmp_path)
    assert not ran
    assert not list(tmp_path.iterdir())


def test_a_cell_trains_and_scores_a_variant(tmp_path, base, monkeypatch):
    monkeypatch.setattr(cell, "STEPS", {"captions": 2, "questions": 2})
    monkeypatch.setattr(cell, "PICTURES", {"captions": 2, "questions": 2})
    monkeypatch.setattr(cell, "QUESTIONS", 8)
    done = cell.run_cell(TABLE3, "SAP", 0, base, tmp_path)
    again = cell.run_cell(TABLE3, "SAP", 0, base, tmp_path)
    assert {name: done[name] for name in done if name != "seconds"} == {
        name: again[name] for name in again if name != "seconds"
    }
    assert json.dumps(done)
    assert done["families"]["objects"]["n"] == 8
    assert done["queries"] == 0
    assert render([(TABLE3, [done])])
