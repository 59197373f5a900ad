"""Training: stages are data, frozen groups stay frozen, and an interrupted run ends where an uninterrupted one does."""

import json
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl

from saccade import presets
from saccade.data import scenes
from saccade.data.encoder import Encoder
from saccade.data.scenes import Dice
from saccade.data.scenes.frozen import _QUOTAS
from saccade.errors import ConfigError, DataError, SaccadeError
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE
from saccade.train.loop import train_stage
from saccade.train.patches import patch_middles
from saccade.train.progress import StopOnInterrupt
from saccade.train.questions import CaptionDataset, QuestionDataset, spread
from saccade.train.recipes import RECIPES, recipe
from saccade.train.recipes.nano_recipes import nano, nano_flashvl, nano_hd
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Recipe, Stage
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Questions
from saccade.train.trainer import assign_groups
from saccade.train.world import Pictures, StoredPatches, question_types
from saccade.vlm import load

FAMILIES = {"objects": 0.6, "digits": 0.4}


def small_model() -> SaccadeForConditionalGeneration:
    """Nano's tokenizer and prompt on a model of two narrow layers a side."""
    torch.manual_seed(0)
    config = presets.nano()
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    config.query = config.query.model_copy(update={"before_layers": (1,)})
    config.text_config.resid_pdrop = 0.1
    return SaccadeForConditionalGeneration(config)


def stage(task: str, **changes: object) -> Stage:
    pattern = "vision_tower|heads" if task == "patches" else "compressor|projector|language_model|lm_head|query"
    more = {"questions": 4, "turns": 2} if task == "questions" else {}
    taught = {"kind": task, "families": FAMILIES, **more, **changes.pop("asked", {})}
    fields = {"name": task, "task": taught, "groups": (Group(pattern=pattern, lr=1e-3),), "steps": 4, "batch": 3}
    return Stage(**(fields | changes))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("nano")


@pytest.mark.parametrize("task", ["patches", "captions", "questions"])
def test_a_stage_trains_its_groups_and_nothing_else(task, tokenizer, tmp_path):
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_stage(model, tokenizer, stage(task), tmp_path / "stage", log=tmp_path / "log.jsonl", seed=0, workers=0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    in_tower = {name for name in before if "vision_tower" in name}
    assert changed
    assert changed <= in_tower if task == "patches" else not changed & in_tower


class _InterruptAt(StopOnInterrupt):
    """Sends itself Ctrl-C at a step."""

    at = 2

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().on_step_end(args, state, control, **kwargs)


@pytest.mark.parametrize("task", ["patches", "questions"])
def test_resumed_equals_uninterrupted(task, tokenizer, tmp_path, monkeypatch):
    whole, parts = small_model(), small_model()
    log = tmp_path / "log.jsonl"
    train_stage(whole, tokenizer, stage(task), tmp_path / "whole", log=log, seed=3, workers=0)
    monkeypatch.setattr("saccade.train.loop.StopOnInterrupt", _InterruptAt)
    with pytest.raises(KeyboardInterrupt):
        train_stage(parts, tokenizer, stage(task), tmp_path / "parts", log=log, seed=3, workers=0)
    assert (tmp_path / "parts" / "checkpoint-2").is_dir()
    monkeypatch.undo()
    again = small_model()
    train_stage(again, tokenizer, stage(task), tmp_path / "parts", log=log, seed=3, workers=0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_recipe_runs_resumes_and_refuses_another(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "nano", lambda: small_model().config)
    short = Recipe(
        name="short",
        preset="nano",
        tokenizer="nano",
        description="a test",
        stages=(stage("patches", steps=1), stage("captions", steps=1)),
    )
    weights = run_recipe(short, tmp_path, workers=0)
    assert {"model.safetensors", "config.json", "tokenizer.json", "processor_config.json"} <= {
        path.name for path in weights.iterdir()
    }
    tower = "model.vision_tower.embeddings.patch_embedding.weight"
    first, last = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("0-patches", "1-captions"))
    assert torch.equal(first[tower], last[tower])
    assert json.loads((weights / "config.json").read_text())["description"] == "a test"
    stamp = (weights / "model.safetensors").stat().st_mtime_ns
    assert run_recipe(short, tmp_path, workers=0) == weights
    assert (weights / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="another recipe"):
        run_recipe(short.model_copy(update={"seed": 1}), tmp_path)


def test_a_signal_while_processes_agree_is_not_lost(monkeypatch):
    interrupt, control = StopOnInterrupt(), TrainerControl()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flag, op: interrupt._note())
    interrupt.before = signal.getsignal(signal.SIGINT)
    interrupt.on_step_end(None, None, control)
    assert not control.should_training_stop, "the others do not know yet"
    interrupt.on_step_end(None, None, control)
    assert control.should_training_stop
    assert interrupt.stopped


def test_one_process_with_several_gpus_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="torchrun"):
        run_recipe(nano(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_encoded_pictures_must_be_enough(tokenizer, tmp_path):
    patches = StoredPatches(np.zeros((2, 81, 192), np.float16), np.arange(3))
    for task in ("patches", "questions"):
        with pytest.raises(ConfigError, match="encode them all"):
            train_stage(small_model(), tokenizer, stage(task), tmp_path, log=tmp_path / "log", seed=0, patches=patches)


def test_a_share_too_small_to_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="digits"):
        Pictures({"objects": 0.99, "digits": 0.01}, 10, presets.nano().image)


def test_emphasis_asks_a_type_more_often_and_never_twice_the_same():
    dice = Dice(np.random.default_rng(0))
    pool = [scenes.Question(f"{kind} {number}", "", kind) for kind in ("side", "color", "count") for number in range(4)]
    counts = Counter(question.type for _ in range(200) for question in spread(dice, pool, 4, {"side": 3.0}))
    assert counts["side"] > 1.5 * counts["color"] > 0
    assert len(set(spread(dice, pool, 12, {"side": 3.0}))) == 12
    plain = spread(dice, pool, 4)
    assert {question.type for question in plain[:3]} == {"side", "color", "count"}


def test_restarted_between_stages_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "nano", lambda: small_model().config)
    names = ("first", "second")
    stages = tuple(stage("patches", steps=2).model_copy(update={"name": name}) for name in names)
    two = Recipe(name="two", preset="nano", tokenizer="nano", stages=stages)
    whole = run_recipe(two, tmp_path / "whole", workers=0)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "1-second")
    again = run_recipe(two, tmp_path / "again", workers=0)
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_first_scenes_show_every_type_of_question():
    for family in scenes.FAMILIES:
        assert question_types([family]) == {form.partition(".")[0] for form in _QUOTAS[family]}
    assert question_types(["practice", "charts", "digits"]) == question_types(["charts"]) | question_types(["digits"])


def test_emphasis_on_what_no_family_asks_is_refused(tokenizer, tmp_path):
    wrong = stage("questions", asked={"emphasis": {"side": 2.0, "vlaue": 2.0}})
    with pytest.raises(ConfigError, match=r"emphasizes vlaue, but its families ask only for color, count, "):
        train_stage(small_model(), tokenizer, wrong, tmp_path, log=tmp_path / "log", seed=0)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_emphasize_what_is_asked(name):
    for part in recipe(name).stages:
        if isinstance(part.task, Questions):
            assert part.task.emphasis.keys() <= question_types(part.task.families)


def test_groups_that_overlap_or_miss_are_errors():
    model = small_model()
    with pytest.raises(ConfigError, match="names no parameter"):
        assign_groups(model, (Group(pattern="no_such_part", lr=1.0),))
    with pytest.raises(ConfigError, match="belongs to 2 groups"):
        assign_groups(model, (Group(pattern="lm_head", lr=1.0), Group(pattern="head", lr=1.0)))


def test_unknown_preset_names_the_known():
    with pytest.raises(ConfigError, match="nano"):
        presets.preset("QueryConfig")


def test_unknown_recipe_names_the_known():
    with pytest.raises(ConfigError, match="nano"):
        recipe("nanno")


def test_recipe_refuses_stages_of_one_name():
    with pytest.raises(ValueError, match="share a name"):
        Recipe(**(nano().model_dump() | {"stages": (stage("captions"), stage("captions"))}))


def test_what_the_last_stage_lacks_is_said_before_the_first_begins(tmp_path):
    stages = (nano().stages[0], recipe("flashsloth").stages[1])
    with pytest.raises(DataError, match="nothing of the mixture flashsloth was published"):
        run_recipe(nano().model_copy(update={"stages": stages}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "1-tuning" / "model").mkdir(parents=True)  # as a stage leaves it whose rows may be gone since
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(SaccadeError) as other:
        run_recipe(nano().model_copy(update={"stages": stages}), tmp_path / "run")
    assert "mixture" not in str(other.value)


def test_a_recipe_may_start_from_a_models_weights(tmp_path):
    short = nano_hd().stages[0].model_copy(update={"steps": 1, "batch": 1})
    short = short.model_copy(update={"groups": (Group(pattern="lm_head.bias", lr=1e-9),)})
    folder = run_recipe(nano_hd().model_copy(update={"stages": (short,)}), tmp_path, workers=0)
    trained, bundled = load(folder, dtype="float32").model, load(dtype="float32").model
    assert trained.config.image.layout == "tiles"
    for (name, value), (_, expected) in zip(trained.state_dict().items(), bundled.state_dict().items(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-8, msg=name)
    other = nano().model_copy(update={"base": "nano", "preset": "other"})
    presets.PRESETS["other"] = lambda: small_model().config
    try:
        with pytest.raises(ConfigError, match="do not fit"):
            run_recipe(other, tmp_path / "other", workers=0)
    finally:
        del presets.PRESETS["other"]


def test_a_recipe_may_start_from_some_modules_of_another_model(tmp_path):
    parent = nano_flashvl("iss")
    tiny = {"steps": 1, "batch": 1, "groups": (Group(pattern="multi_modal_projector", lr=1e-3),)}
    short = parent.model_copy(update={"stages": tuple(part.model_copy(update=tiny) for part in parent.stages)})
    trained, bundled = load(run_recipe(short, tmp_path, workers=0), dtype="float32").model, load(dtype="float32").model
    assert trained.config.tokens_per_view == 49
    for name, value in bundled.model.vision_tower.state_dict().items():
        assert torch.equal(trained.model.vision_tower.state_dict()[name], value), name
    for modules, said in ((("model.tower",), "does not have"), (("lm_head",), "module lm_head, do not fit")):
        with pytest.raises(ConfigError, match=said):
            run_recipe(short.model_copy(update={"base_modules": modules}), tmp_path / modules[0], workers=0)
    with pytest.raises(ConfigError, match="taken from a base"):
        Recipe(**(nano().model_dump() | {"base_modules": ("model.vision_tower",)}))


def test_two_pictures_in_tiles_leave_room_for_words():
    config = presets.nano_flashvl_iss()
    most = 1 + config.image.max_tiles
    assert 2 * most * config.tokens_per_view <= config.text_config.max_position_embeddings // 2


def test_the_hd_recipe_trains_the_tower(tokenizer, tmp_path):
    model = SaccadeForConditionalGeneration(presets.nano_hd())
    before = {name: value.clone() for name, value in model.model.vision_tower.state_dict().items()}
    short = nano_hd().stages[0].model_copy(update={"steps": 1, "batch": 1, "warmup": 0.0})
    train_stage(model, tokenizer, short, tmp_path / "stage", log=tmp_path / "log.jsonl", seed=0, workers=0)
    after = model.model.vision_tower.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if "weight" in name)


def test_pictures_follow_their_shares_and_never_repeat():
    pictures = Pictures(FAMILIES, 100, presets.nano().image)
    seen = [(scene.family, scene.index) for scene in map(pictures.scene, range(40))]
    assert len(set(seen)) == 40
    assert sum(family == "objects" for family, _ in seen) == 24


def questions(tokenizer, **changes):
    config = presets.nano()
    families = {"objects": 1.0}
    asked = Questions(**{"families": families, "questions": 5, "turns": 2, **changes})
    return QuestionDataset(families, 8, config.image, encoder=Encoder(config, tokenizer), task=asked)


def spoken(tokenizer, sample):
    return tokenizer.decode([i for i in sample.encoded.input_ids if i not in (1, 2)])


def test_questions_of_a_picture_share_its_views_and_fill_the_turns(tokenizer):
    data = questions(tokenizer)
    config, samples = data.encoder.config, data[1]
    assert len(samples) == 3
    assert all(sample.views is samples[0].views for sample in samples)
    for sample in samples:
        assert sample.encoded.roles.count(IMAGE) == config.tokens_per_view
    batch = data.encoder.collate([data[0], data[1]])
    assert batch["pixel_values"].shape[0] == 2
    assert batch["query_positions"].shape[1] == 2 * config.prompt.num_queries


def test_where_and_a_description_are_asked_when_wanted(tokenizer):
    data = questions(tokenizer, turns=6, where=1.0, describe=1.0)
    first, last = data[1]
    assert "here is the" in spoken(tokenizer, first)
    assert data.scene(1).caption in spoken(tokenizer, last)


def test_a_second_picture_stands_beside_the_first_or_before_it(tokenizer):
    data = questions(tokenizer, turns=6, second_picture=1.0)
    tokens = data.encoder.config.tokens_per_view
    seen = set()
    for number in range(8):
        (sample,) = data[number]
        assert len(sample.views) == 2
        roles = sample.encoded.roles
        assert roles.count(IMAGE) == 2 * tokens

        apart = max(i for i, role in enumerate(roles) if role == IMAGE) - roles.index(IMAGE) > 2 * tokens + 1
        named = "picture: " in spoken(tokenizer, sample)

        assert named != apart, "two pictures at once are named by their places; the picture shown last needs no name"
        seen.add(apart)
        own = data.views(number, data.scene(number))
        assert any(np.array_equal(view, own[0]) for view in sample.views)
    assert seen == {True, False}


def test_a_turn_without_picture_has_no_query_set_before_the_first_picture(tokenizer):
    data = questions(tokenizer, turns=1, small_talk=1.0)
    before = 0
    for sample in data[1] + data[2] + data[3]:
        roles = sample.encoded.roles
        answers = sample.encoded.input_ids.count(3)
        assert answers == 2
        first_query, first_image = roles.index(3), roles.index(IMAGE)
        assert first_query > first_image
        before += spoken(tokenizer, sample).count("ASSISTANT:") * data.encoder.config.prompt.num_queries > sum(
            role >= 3 and role % 2 == 1 for role in roles
        )
    assert before, "a turn before the picture was never drawn"


def test_caption_is_trained_whole(tokenizer):
    config = presets.nano()
    data = CaptionDataset({"objects": 1.0}, 8, config.image, encoder=Encoder(config, tokenizer))
    sample = data[0][0]
    trained = [label for label in sample.encoded.labels if label != -100]
    assert tokenizer.decode(trained) == data.scene(0).caption + "\n"


def test_patch_labels_are_for_one_view(tokenizer, tmp_path):
    model = SaccadeForConditionalGeneration(presets.nano_hd())
    with pytest.raises(ConfigError, match=r"image.layout 'tiles'.* single layout"):
        train_stage(model, tokenizer, stage("patches"), tmp_path, log=tmp_path / "log.jsonl", seed=0)


@pytest.mark.parametrize(("field", "value"), [("margin", 10), ("fit", "pad")])
def test_patch_labels_are_for_a_view_that_the_picture_fills(field, value, tokenizer, tmp_path):
    model = small_model()
    model.config.image = model.config.image.model_copy(update={field: value})
    with pytest.raises(ConfigError, match=rf"image.{field} {value!r}: "):
        train_stage(model, tokenizer, stage("patches"), tmp_path, log=tmp_path / "log.jsonl", seed=0)


def test_patch_middles_are_x_then_y():
    middles = patch_middles(3)
    assert middles.shape == (9, 2)
    torch.testing.assert_close(middles[5], torch.tensor([2.5 / 3, 1.5 / 3]))
