"""Ablations: variants are valid models, patches are computed once, the queue resumes, verdicts follow the runs."""

import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import saccade
from saccade.ablate import STUDIES, cell, pool, stored, study
from saccade.ablate.paired import counts
from saccade.ablate.queue import run_studies
from saccade.ablate.study import Claim
from saccade.ablate.table import forms_score, pairs, render, rows_of, verdict
from saccade.cli import app
from saccade.data import scenes
from saccade.data.collate import Sample
from saccade.data.encoder import Encoder
from saccade.data.scenes.frozen import _QUOTAS
from saccade.errors import ConfigError, DataError
from saccade.image.geometry import num_views
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import nano
from saccade.train.questions import QuestionDataset
from saccade.train.start import load_tokenizer
from saccade.train.world import question_types
from small import config as small_config

TABLE3, TABLE6, TABLE8 = (STUDIES[name] for name in ("table3", "table6", "table8"))


def result(variant: str, seed: int, accuracy: float) -> dict:
    return made(variant, seed, {family: {"color": accuracy} for family in ("objects", "digits")})


def made(variant: str, seed: int, shares: dict[str, dict[str, float]]) -> dict:
    """A cell of one row: of 100 scenes a form, the first ones are answered rightly, the given share of them."""
    families, answers = {}, {}
    for name, forms in shares.items():
        parts = {form: {"accuracy": share, "n": 100} for form, share in forms.items()}
        whole = sum(forms.values()) / len(forms)
        families[name] = {"accuracy": whole, "blank_accuracy": 0.2, "n": 500, "forms": parts}
        for form, share in forms.items():
            marks = ("+" if scene < round(100 * share) else "-" for scene in range(100))
            answers[f"{name}.{form}"] = " ".join(f"{scene}{mark}" for scene, mark in enumerate(marks))
    facts = {"base": "nano", "machine": "a laptop", "torch": "2", "transformers": "5", "commit": "abc1234"}
    row = {"families": families, "answers": answers, "pointing": 0.25}
    return {"variant": variant, "seed": seed, "rows": {variant: row}, "visual_tokens": 9, "queries": 9, **facts}


def test_letters_of_a_size_are_scored_apart_by_what_is_read():
    forms = {
        "word.large": {"accuracy": 1.0, "n": 30}, "number.large": {"accuracy": 0.0, "n": 10},
        "word.small": {"accuracy": 0.25, "n": 4}, "color.small": {"accuracy": 1.0, "n": 100},
    }  # fmt: skip
    read = {"families": {"text": {"accuracy": 0.5, "n": 144, "forms": forms}}}
    apart = STUDIES["resolution"].scored_apart
    assert forms_score(read, apart["large letters"]) == pytest.approx(75.0)
    assert forms_score(read, apart["small letters"]) == pytest.approx(25.0)


@pytest.mark.parametrize("name", STUDIES)
def test_courses_leave_the_rows_that_blocks_name(name):
    known = STUDIES[name]
    courses = [known.course(variant) for variant in known.variants]
    rows = [row for course in courses for row in course.rows]
    assert len(set(rows)) == len(rows)
    for course in courses:
        if course.build is not None:
            course.build().check()
        for stage in course.stages.values():
            assert not any(re.search(group.pattern, "model.vision_tower.weight") for group in stage.groups)
            assert set(getattr(stage.task, "emphasis", ())) <= question_types(known.families)
    for block in known.blocks:
        named = set(block.variants) | {side for claim in block.claims for side in (claim.better, claim.worse)}
        assert named <= set(rows)
        assert {claim.on for claim in block.claims} <= {"", *known.scored_apart}
    forms = [f"{family}.{form}" for family in known.families for form in _QUOTAS[family]]
    for wanted in known.scored_apart.values():
        assert all(any(counts(form, [one]) for form in forms) for one in wanted)


@pytest.mark.parametrize("name", STUDIES)
def test_a_process_of_the_pool_can_be_handed_a_study(name):
    handed = pickle.loads(pickle.dumps(pool.Cell(STUDIES[name], "", 0))).study
    assert [handed.course(variant).rows for variant in handed.variants] == [
        STUDIES[name].course(variant).rows for variant in STUDIES[name].variants
    ]


def test_all_questions_about_seams_are_scored_apart():
    for form in _QUOTAS["seams"]:
        assert sum(counts(f"seams.{form}", wanted) for wanted in TABLE6.scored_apart.values()) == 1


def test_a_claim_may_be_about_a_part_of_the_questions():
    def scored(variant: str, seed: int, crossing: float) -> dict:
        seams = {"crossing.word": crossing, "clear.word": 1 - crossing}
        cell = made(variant, seed, {"seams": seams, "text": {"word.large": 0.5}})
        cell["rows"][variant]["pointing"] = None
        return cell | {"visual_tokens": 37.5}

    runs = [scored("plain tiling", seed, 0.25) for seed in range(2)] + [scored("ISS", seed, 0.5) for seed in range(2)]
    page = render([(TABLE6, runs)])
    assert "| ISS | 37.5 + 9 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 |" in page
    assert "| plain tiling | 37.5 + 9 | 50.0 ± 0.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | 75.0 ± 0.0 | 50.0 ± 0.0 |" in page
    verdicts = [line for line in page.splitlines() if line.startswith("- *ISS* ahead of *plain tiling*")]
    assert verdicts[0].startswith("- *ISS* ahead of *plain tiling*: here +0.0 ± 0.0 points (95 %: ")
    assert verdicts[0].endswith("OCRBench +44.0, SEED +1.1. **within noise**")
    sure = r"\(95 %: \S1[5-9]\.\d to \S3[1-5]\.\d\)"
    assert re.search(rf"on crossing: here \+25\.0 ± 0\.0 points {sure}, in 2 of 2 runs\. \*\*same", verdicts[1])
    assert "on clear: here -25.0 ± 0.0 points" in verdicts[2]
    assert verdicts[2].endswith("in 0 of 2 runs. **opposite**")


def test_variants_differ_where_their_names_say():
    assert TABLE3.variants["SAP"]().query is None
    assert TABLE3.variants["no compression"]().tokens_per_view == nano().patches_per_view
    assert TABLE3.variants["12 queries"]().prompt.num_queries == 12
    assert TABLE3.variants["random"]().query.init == "random"


def test_tilings_are_compared_patch_by_patch_and_adapters_on_as_many_tokens():
    """Stitching drops 32 of 81 patches, and no form merges those that are left."""
    counts = {name: build().tokens_per_view for name, build in TABLE6.variants.items()}
    assert counts == {"static": 81, "plain tiling": 81, "overlapped tiling": 81, "ISS": 49}
    assert {build().tokens_per_view for build in TABLE8.variants.values()} == {9}


def test_a_variant_starts_from_what_it_keeps_of_the_base(base, stitched):
    for known, variant, fresh in ((TABLE3, "SAP", "language_model"), (TABLE6, "ISS", ""), (TABLE8, "proposed", "mult")):
        course, start = known.course(variant), base if known is TABLE3 else stitched
        own, given = cell._start(course, start).state_dict(), start.model.state_dict()
        kept = {name for name in own if name.startswith(tuple(f"{module}." for module in course.keeps))}
        assert all(torch.equal(own[name], given[name]) for name in kept)
        drawn = [name for name in own.keys() - kept if fresh in name and own[name].ndim == 2]
        assert bool(drawn) == bool(fresh)
        assert not any(name in given and torch.equal(own[name], given[name]) for name in drawn)
    small, larger = cell.settings(TABLE3, base), cell.settings(TABLE6, stitched)
    assert "weights" not in small
    assert "keeps" not in small["variant SAP"]
    assert "weights" in larger
    assert "lm_head" in larger["variant ISS"]["keeps"]
    assert larger["tower"] == small["tower"]
    with pytest.raises(ConfigError, match=r"projector of nano is not that of variant 'static'"):
        cell.settings(TABLE6, base)


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
    one, other = runs[1]["rows"]["SAP"], runs[2]["rows"]["average"]
    assert pairs(Claim("SAP", "average"), rows_of(runs)) == [(one["answers"], other["answers"])]


def test_page_shows_means_spread_and_the_papers_figures():
    runs = [
        result(name, seed, 0.5 + 0.1 * (name == "SAP") + 0.01 * seed)
        for name in ("SAP", "average")
        for seed in range(3)
    ]
    page = render([(TABLE3, runs)])
    scores = "61.0 ± 1.0 | 61.0 ± 1.0 | 61.0 ± 1.0 | 20.0 ± 0.0 | 25.0 ± 0.0"
    assert f"| SAP | 9 + 9 | {scores} | 3 | 60.2 | 86.4 | 1444.8 | 63.9 |" in page
    assert re.search(r"\+10\.0 ± 0\.0 points \(95 %: \+[67]\.\d to \+1[34]\.\d\), in 3 of 3 runs", page)
    assert "**same direction**" in page
    assert "EmbQ* ahead" not in page, "a claim without runs is left out"
    assert "500 questions of a family; 3 seeds; from nano; a laptop; torch 2, transformers 5; commit abc1234." in page


def test_seeds_are_counted_per_study_and_figures_the_paper_lacks_are_dashes():
    few = {**TABLE3.published, "average": {"GQA": 59.6}}
    runs = [result(name, 0, 0.5) for name in ("SAP", "average")]
    other = replace(TABLE3, name="other", title="Other")
    page = render([(replace(TABLE3, published=few), runs), (other, [*runs, {**result("SAP", 1, 0.5), "commit": None}])])
    assert "| 50.0 | 50.0 | 50.0 | 20.0 | 25.0 | 1 | 59.6 | – | – | – |" in page
    assert "paper: GQA +0.6. **too few runs**" in page
    assert "1 seed;" in page.split("## Other")[0]
    assert "2 seeds;" in page.split("## Other")[1]
    assert "commit abc1234 and unknown." in page


@pytest.mark.parametrize(("named", "variant"), [(TABLE3, "SAP + EmbQ"), (TABLE6, "ISS")])
def test_cached_patches_give_the_loss_of_the_pictures(named, variant, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(stored, "ENCODED_AT_ONCE", 4)
    named = replace(named, steps=2, pictures=3)
    course = named.course(variant)
    (stage,) = course.stages.values()
    model = SaccadeForConditionalGeneration(course.build()).eval()
    base = SimpleNamespace(model=model)
    encoder = Encoder(model.config, load_tokenizer("nano"))
    shared = {"families": dict(named.families), "length": 6, "image": model.config.image, "encoder": encoder}
    patches = stored.course_patches(course, base, tmp_path)[variant]
    again = stored.course_patches(course, base, tmp_path)[variant]
    assert np.array_equal(again.patches, patches.patches)
    assert np.array_equal(again.starts, patches.starts)
    assert len(list(tmp_path.iterdir())) == 1
    losses = []
    for given in (None, patches):
        data = QuestionDataset(**shared, patches=given, task=stage.task)
        with torch.no_grad():
            losses.append(model(**encoder.collate([data[2], data[5]])).loss)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)
    counts = [len(data.views(number, data.scene(number))) for number in range(len(patches))]
    shapes = [num_views(*data.scene(number).image.shape[1::-1], model.config.image) for number in range(len(patches))]
    assert counts == shapes
    assert (len(set(counts)) > 1) == (model.config.image.layout == "dynamic")
    assert isinstance(data[2][0], Sample)
    assert data[2][0].views.dtype == np.float16


def test_studies_that_presume_another_base_run_when_named(monkeypatch):
    chosen = []
    monkeypatch.setattr(saccade.ablate, "run_studies", lambda studies, *_: chosen.append([s.name for s in studies]))
    for named in ([], ["resolution"]):
        assert CliRunner().invoke(app, ["train", "ablate", *named]).exit_code == 0
    assert chosen == [["table3", "initialization", "stages"], ["resolution"]]


def test_the_tower_is_still_and_a_new_world_has_patches_of_its_own(tmp_path, monkeypatch):
    config = nano()
    config.vision_config.attention_dropout = 0.5
    base = SimpleNamespace(model=SaccadeForConditionalGeneration(config).train())
    course = replace(TABLE3, steps=1, pictures=3).course("SAP")
    first, again = (stored.course_patches(course, base, tmp_path / name)["SAP"] for name in "ab")
    assert np.array_equal(first.patches, again.patches), "dropout is off"
    monkeypatch.setattr(scenes, "WORLD_VERSION", "next")
    stored.course_patches(course, base, tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.fixture(scope="module")
def base():
    return saccade.load(dtype="float32")


@pytest.fixture(scope="module")
def stitched():
    return saccade.load("nano_flashvl_iss", dtype="float32")


@pytest.fixture
def ran(monkeypatch):
    """The cells that were run, none of them truly."""
    cells = []

    def run_cell(study, variant, seed, base, cache):
        cells.append((variant, seed))
        return {"study": study.name} | result(variant, seed, 0.5)

    monkeypatch.setattr(pool, "run_cell", run_cell)
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
    for damaged in ("{", "[]", "{}", '{"study": "table8", "rows": {"SAP": {}}}'):
        (tmp_path / "out" / "table3" / "sap-1.json").write_text(damaged)
        with pytest.raises(DataError, match=r"sap-1\.json .*remove it"):
            run_studies([small], tmp_path / "out", 3, **arguments)
    assert len(ran) == 4, "damage is found before anything runs"


def test_a_study_that_is_named_twice_is_run_once(tmp_path, base, ran):
    run_studies([with_variants("SAP")] * 2, tmp_path, 2, base=base, cache=tmp_path)
    assert ran == [("SAP", 0), ("SAP", 1)]


def test_the_page_keeps_the_studies_that_were_run_before(tmp_path, base, ran):
    run_studies([with_variants("SAP")], tmp_path, 1, base=base, cache=tmp_path)
    other = replace(with_variants("average"), name="other", title="Another study")
    page = run_studies([other], tmp_path, 1, base=base, cache=tmp_path).read_text()
    assert TABLE3.title in page
    assert "Another study" in page


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda _: {"pictures": 17}, "variant SAP"),
        (lambda _: {"questions": 9}, "questions"),
        (lambda patch: patch.setattr(scenes, "WORLD_VERSION", "next") or {}, "world"),
        (lambda patch: patch.setattr(cell, "weights_hash", lambda module: "another") or {}, "tower"),
        (lambda _: {"variants": {"SAP": TABLE3.variants["average"]}}, "variant SAP"),
    ],
)
def test_results_of_other_settings_are_not_pooled(tmp_path, base, ran, monkeypatch, change, name):
    run_studies([with_variants("SAP")], tmp_path, 1, base=base, cache=tmp_path)
    run_studies([with_variants("SAP", "average")], tmp_path, 1, base=base, cache=tmp_path)
    other = replace(with_variants("SAP"), **change(monkeypatch))
    with pytest.raises(ConfigError, match=rf"other settings \({name}; see .*choose an empty folder"):
        run_studies([other], tmp_path, 2, base=base, cache=tmp_path)
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


@pytest.fixture
def short():
    """A study of two steps of two pictures and eight questions a family."""
    return lambda known: replace(known, steps=2, pictures=2, questions=8)


def test_a_cell_trains_and_scores_a_variant(tmp_path, base, short):
    done = cell.run_cell(short(TABLE3), "SAP", 0, base, tmp_path)
    again = cell.run_cell(short(TABLE3), "SAP", 0, base, tmp_path)
    row, same = done["rows"]["SAP"], again["rows"]["SAP"]
    assert {name: row[name] for name in ("families", "answers")} == {
        name: same[name] for name in ("families", "answers")
    }
    assert json.dumps(done)
    assert row["families"]["objects"]["n"] == 8
    assert row["steps"] == 2
    assert done["queries"] == 0
    assert row["pointing"] is None
    assert done["visual_tokens"] == 9
    assert render([(TABLE3, [done])])


def test_a_cell_trains_and_scores_pictures_of_different_numbers_of_tiles(tmp_path, stitched, short):
    alone = replace(short(TABLE6), families={"seams": 1.0})
    assert cell.settings(alone, stitched), "all variants have the tower of the base"
    done = cell.run_cell(alone, "ISS", 0, stitched, tmp_path)
    assert 3 * 49 < done["visual_tokens"] < 5 * 49
    assert sum(form["n"] for form in done["rows"]["ISS"]["families"]["seams"]["forms"].values()) == 8
    assert render([(alone, [done])])


@pytest.mark.slow
def test_cells_run_side_by_side_on_patches_computed_once(tmp_path, base):
    two = replace(with_variants("SAP", "SAP + EmbQ"), steps=1, pictures=2, questions=8)
    page = run_studies([two], tmp_path, 1, base=base, cache=tmp_path / "cache", jobs=2)
    done = [json.loads((tmp_path / "table3" / f"{name}-0.json").read_text()) for name in ("sap", "sap---embq")]
    assert [one["threads"] for one in done] == [1, 1]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert "SAP + EmbQ" in page.read_text()


def test_a_cell_that_fails_loses_none_that_runs_beside_it_and_no_other_begins(base, monkeypatch, tmp_path):
    began, told = Event(), Event()
    ran = []

    def run(one, cache):
        ran.append(one.variant)
        if one.variant == "SAP":
            assert began.wait(60)
            raise ConfigError("no more")
        began.set()
        assert told.wait(60)
        return {"of": one.variant}

    class Told(StringIO):
        def write(self, text):
            if "no more" in text:
                told.set()
            return super().write(text)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(pool, "course_patches", lambda *_: {})
    monkeypatch.setattr(pool, "_run", run)
    cells = [pool.Cell(TABLE3, variant, seed) for seed in (0, 1, 2) for variant in ("SAP", "SAP + EmbQ")]
    ended = pool.run_cells(cells, base, tmp_path, 2, Console(file=Told()))
    assert next(ended) == (cells[1], {"of": "SAP + EmbQ"})
    with pytest.raises(ConfigError, match="no more"):
        next(ended)
    assert sorted(ran) == ["SAP", "SAP + EmbQ"]


def test_where_queries_look_is_scored_if_there_are_any(base, monkeypatch):
    monkeypatch.setattr(cell, "POINTING_SCENES", 2)
    assert -1 <= cell.pointing(base, TABLE3) <= 1
    assert cell.pointing(base, STUDIES["resolution"]) is None, "nothing on a sign has a name"


def test_a_study_of_no_paper_claims_none():
    own = STUDIES["initialization"]
    page = render([(own, [result("0.02", 0, 0.5), result("0.08", 0, 0.75)])])
    assert "| 0.08 | 9 + 9 | 75.0 | 75.0 | 20.0 | 25.0 | 1 |" in page
    assert "paper:" not in page


def test_a_claim_whose_rows_no_paper_scored_cites_none():
    rows = [result(name, 0, 0.5) for name in STUDIES["stages"].course("FlashSloth").rows]
    page = render([(replace(STUDIES["stages"], families=("objects", "digits"), scored_apart={}), rows)])
    assert "*FlashSloth 2: questions* ahead of" in page
    assert "paper:" not in page
