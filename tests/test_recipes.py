"""Recipes: they fit the models they train, agree with the papers' figures, and can be changed field by field."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PhiForCausalLM, PreTrainedTokenizerFast, SiglipVisionModel
from typer.testing import CliRunner

from saccade.checkpoint import open_checkpoint
from saccade.cli import app
from saccade.config import ImageConfig
from saccade.errors import CheckpointError, ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.train.describe import claim
from saccade.train.lora import add_adapters
from saccade.train.recipes import RECIPES, changed, changes_of, differences, recipe, with_data
from saccade.train.recipes.flashvl_recipes import ADAPTED, FULL, LORA
from saccade.train.rows import KINDS
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Recipe, Stage
from saccade.train.start import start_model, with_placeholders
from saccade.train.tasks import Listed, Patches, Tuning
from saccade.train.trainer import assign_groups
from test_train import small_model

# The recipe of the runs that start from another recipe's model, and the preset of that model.
STARTS_FROM = {"finetune": "nano", "finetune_full": "nano", "flashvl_reasoning": "flashvl_static"}


def skeleton(name: str) -> SaccadeForConditionalGeneration:
    with torch.device("meta"):
        return SaccadeForConditionalGeneration(preset(name))


@cache
def trained_parameters(name: str, group: Group) -> int:
    """How many parameters of a preset a group trains."""
    model = skeleton(name)
    add_adapters(model, [group])
    (members,) = assign_groups(model, (group,))
    return sum(parameter.numel() for _, parameter in members)


@cache
def check_groups(name: str, groups: tuple[Group, ...]) -> None:
    """Groups name parameters of a preset, none twice, and these are what is trained."""
    model = skeleton(name)
    adapters = add_adapters(model, groups)
    members = assign_groups(model, groups)
    assert all(members)
    assert (adapters is not None) == any(group.lora for group in groups)
    trained = {id(parameter) for group in members for _, parameter in group}
    assert all(parameter.requires_grad == (id(parameter) in trained) for parameter in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_of_every_recipe_fits_its_model(name: str) -> None:
    found = recipe(name)
    known = found.preset or STARTS_FROM[name]
    config = preset(known)
    for stage in found.stages:
        if not isinstance(stage.task, Patches):  # whose heads are not the model's
            check_groups(known, stage.groups)
        config.image = ImageConfig(**config.image.model_dump() | stage.image)
        config.check()


def test_the_papers_counts_of_trained_parameters() -> None:
    """Flash-VL, table 1, in units of 2**20 for the full model."""
    full = trained_parameters("flashvl_static", Group(pattern=FULL, lr=1.0))
    assert full == 1_817_255_024
    assert round(full / 2**20, 2) == 1733.07
    adapted = trained_parameters("flashvl_static", Group(pattern=ADAPTED, lr=1.0, lora=LORA))
    assert adapted == 10_738_688
    adapter = trained_parameters("flashvl_static", recipe("flashvl_static").stages[0].groups[0])
    assert round(adapter / 2**20, 2) == 91.02


def test_data_of_recipes_is_listed_and_of_a_kind_that_the_task_reads() -> None:
    from saccade.data.mixtures import listing

    for name in RECIPES:
        for stage in recipe(name).stages:
            for one in getattr(stage.task, "data", ()):
                if isinstance(one, Listed):
                    entries = listing(one.mixture).choose(one.only)
                    assert {entry.kind for entry in entries} <= set(KINDS[stage.task.kind]), (name, stage.name)


def test_the_tower_of_hd_trains_unless_the_released_code_is_repeated() -> None:
    assert trained_parameters("flashsloth_hd", recipe("flashsloth-hd").stage("tuning").groups[1]) > 3.9e8
    frozen = recipe("flashsloth_hd_frozen")
    assert not any("vision_tower" in group.pattern for stage in frozen.stages for group in stage.groups)
    told = differences(frozen, recipe(frozen.parent))
    assert {path.rpartition(".")[0] for path, _, _ in told} == {"stages.tuning.groups.1"}


def test_fields_are_changed_by_path() -> None:
    settings = ["stages.questions.steps=7", "stages.0.groups.0.lr=1e-5", "seed=3", "stages.closer.groups.0.lora.rank=4"]
    found = changed(recipe("nano"), changes_of(settings))
    assert (found.stage("questions").steps, found.stages[0].groups[0].lr, found.seed) == (7, 1e-5, 3)
    assert found.stage("closer").groups[0].lora is not None
    assert differences(found, recipe("nano"))[:2] == [
        ("stages.patches.groups.0.lr", 1e-3, 1e-5),
        ("stages.questions.steps", 10000, 7),
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stages.0.step=7", "one of the known fields: name, task"),
        ("stages.9.steps=7", "has no member '9': it has patches"),
        ("stages.looking.steps=many", "valid integer"),
        ("seed", "PATH=VALUE"),
        ("stages.0.epochs=2", "give one of them"),
        ("seed=[1", "not YAML"),
        ("seed=-1", "greater than or equal to 0"),
        ("stages.looking.name=a/b", "should match pattern"),
        ("stages.looking.betas=[2, 0.9]", "less than 1"),
        ("stages.looking.min_lr=0.1", "only a cosine ends"),
        ("stages.looking.groups.0.pattern=(", "no regular expression"),
    ],
)
def test_a_wrong_setting_names_what_is_right(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(recipe("nano"), changes_of([setting]))


def test_a_file_of_two_lines_is_an_ablation(tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("parent: nano\nstages: {questions: {groups: [{pattern: lm_head, lr: 1.0e-5}]}}\n")
    found = recipe(str(file))
    assert (found.name, found.parent) == ("slow", "nano")
    assert found.stage("questions").groups == (Group(pattern="lm_head", lr=1e-5),)
    shown = json.loads(CliRunner().invoke(app, ["train", "show", str(file), "--json"]).stdout)
    assert {one["path"] for one in shown["differences"]} == {
        "stages.questions.groups.0.pattern",
        "stages.questions.groups.0.lr",
    }
    assert Recipe(**shown["recipe"]) == found
    text = CliRunner().invoke(app, ["train", "show", str(file)]).stdout
    assert "stages.questions.groups.0.lr: 0.001 -> 1e-05" in text
    file.write_text("- nano\n")
    with pytest.raises(ConfigError, match="no fields"):
        recipe(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        recipe(str(tmp_path / "missing.yaml"))
    other = tmp_path / "other.yaml"
    file.write_text(f"parent: {other}\n")
    other.write_text(f"parent: {file}\n")
    with pytest.raises(ConfigError, match="descends from itself"):
        recipe(str(file))


def test_a_difference_shows_a_zero_as_what_it_is() -> None:
    parent = recipe("flashsloth")
    found = changed(parent, changes_of(["stages.tuning.max_grad_norm=1", "stages.tuning.image.margin=0", "seed=2"]))
    assert differences(found, parent) == [
        ("stages.tuning.max_grad_norm", 0.0, 1.0),
        ("seed", 0, 2),
        ("stages.tuning.image.margin", None, 0),
    ]


def test_data_is_a_folder_of_mixtures_or_the_only_source() -> None:
    assert with_data(recipe("flashsloth_llava"), "/data").data == "/data"
    assert with_data(recipe("finetune"), "my.jsonl").stages[0].task.data[0].path == "my.jsonl"
    with pytest.raises(ConfigError, match="draws its data"):
        with_data(recipe("nano"), "my.jsonl")


def test_placeholders_get_the_ids_that_the_preset_knows() -> None:
    config = preset("nano")
    tokenizer = open_checkpoint("nano")[1].tokenizer
    assert with_placeholders(tokenizer, config).get_vocab()["<learnable>"] == config.query_token_id
    config.image_token_id = 5
    with pytest.raises(ConfigError, match="the id 1, but the model knows it as 5"):
        with_placeholders(tokenizer, config)


def test_a_recipe_may_start_from_a_tower_and_a_decoder(tmp_path: Path) -> None:
    config = preset("nano")
    tower, decoder = SiglipVisionModel(config.vision_config), PhiForCausalLM(config.text_config)
    tower.save_pretrained(tmp_path / "tower")
    decoder.save_pretrained(tmp_path / "decoder")
    SiglipVisionModel(small_model().config.vision_config).save_pretrained(tmp_path / "small")
    parts = {"vision_tower": str(tmp_path / "tower"), "language_model": str(tmp_path / "decoder")}
    start = recipe("nano").model_copy(update=parts)
    model, tokenizer = start_model(start)
    assert torch.equal(model.lm_head.weight, decoder.lm_head.weight)
    assert torch.equal(model.model.language_model.embed_tokens.weight, decoder.model.embed_tokens.weight)
    given = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    taken = model.model.vision_tower.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in taken.items())
    assert tokenizer.convert_tokens_to_ids("<learnable>") == config.query_token_id
    with pytest.raises(ConfigError, match="do not fit the preset's vision_tower"):
        start_model(start.model_copy(update={"vision_tower": str(tmp_path / "small")}))
    with pytest.raises(CheckpointError, match="neither a folder with a model"):
        start_model(start.model_copy(update={"vision_tower": str(tmp_path / "gone")}))


def test_a_model_to_start_from_takes_the_place_of_tower_and_decoder() -> None:
    words = ["train", "show", "flashsloth", "--json", "--model"]
    shown = json.loads(CliRunner().invoke(app, [*words, "mine"]).stdout)["recipe"]
    assert [shown[name] for name in ("base", "vision_tower", "language_model")] == ["mine", None, None]
    with pytest.raises(ConfigError, match="from base, and vision_tower too"):
        changed(recipe("finetune"), {"vision_tower": "tower"})


def test_a_tokenizer_of_ones_own_knows_the_placeholders(tmp_path: Path) -> None:
    own = open_checkpoint("nano")[1].tokenizer
    own.save_pretrained(tmp_path / "same")
    finetune = recipe("finetune")
    model, _ = start_model(finetune.model_copy(update={"tokenizer": str(tmp_path / "same")}))
    assert model.config.name_or_path == "nano"
    vocabulary = {"[UNK]": 0, "a": 1}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, "[UNK]")), unk_token="[UNK]")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="but the model knows it as"):
        start_model(finetune.model_copy(update={"tokenizer": str(tmp_path / "other")}))


def test_a_run_that_trained_nothing_makes_room_for_another_recipe(tmp_path: Path) -> None:
    config, first, second = preset("nano"), recipe("finetune"), recipe("finetune_full")
    claim(first, config, tmp_path)
    claim(second, config, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["name"] == "finetune_full"
    assert "recipe finetune_full" in (tmp_path / "README.md").read_text()
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(ConfigError, match="a run of another recipe"):
        claim(first, config, tmp_path)
    for text in ("{", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"run\.json"):
            open_checkpoint(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        claim(first, config, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run_recipe(first, tmp_path / "README.md")


def test_a_recipe_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="without preset and tokenizer"):
        Recipe(name="nothing", stages=recipe("finetune").stages)


def test_what_sap_learns_from_captions_is_kept(tmp_path: Path) -> None:
    """The two stages of FlashSloth on nano: the second starts from the SAP of the first, and the run can be asked."""
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": "a.png", "caption": "a red field"}) + "\n")
    talk = [{"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"image": "a.png", "conversations": talk}) + "\n")
    captions, tuning = (
        Stage(
            name=name,
            task=Tuning(data=({"path": str(tmp_path / f"{name}.jsonl"), "kind": kind},), max_length=200),
            groups=(Group(pattern=pattern, lr=1e-3),),
            steps=1,
            batch=1,
            warmup=0,
        )
        for name, kind, pattern in (("captions", "captions", "compressor"), ("talks", "chat", "lm_head"))
    )
    run = tmp_path / "run"
    model = run_recipe(Recipe(name="two", base="nano", stages=(captions, tuning)), run, workers=0)
    first, last = (load_file(run / name / "model" / "model.safetensors") for name in ("0-captions", "1-talks"))
    start = open_checkpoint("nano")[0].state_dict()
    sap = [name for name in first if "compressor" in name]
    assert sap
    assert all(torch.equal(first[name], last[name]) for name in sap)
    assert any(not torch.equal(first[name], start[name].float()) for name in sap)
    assert open_checkpoint(run)[0].config.name_or_path == str(model)
    model.rename(model.with_name("gone"))
    with pytest.raises(CheckpointError, match="not finished"):
        open_checkpoint(run)
