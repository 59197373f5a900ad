"""LoRA: only adapters train, merged is unmerged, the adapter's folder makes the same model again."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file

from saccade.checkpoint import open_checkpoint
from saccade.errors import CheckpointError, ConfigError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.lora import add_adapters, is_adapter, merge_adapter
from saccade.train.run import run_recipe
from saccade.train.stages import Group, Lora, Recipe, Stage
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Questions, Tuning
from saccade.train.trainer import assign_groups
from test_train import small_model

LORA = Lora(rank=3, alpha=5)
DECODER = Group(pattern="language_model|lm_head|embedded_query", lr=1e-2, lora=LORA)
WHOLE = Group(pattern="compressor", lr=1e-2)


def inputs() -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(20, 200, (2, 9), generator=dice)}


def disturbed(model: SaccadeForConditionalGeneration) -> SaccadeForConditionalGeneration:
    """Give adapters, which start as nothing, something to add."""
    dice = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = torch.randn(parameter.shape, generator=dice) * 0.1
    return model.eval()


def test_merged_equals_unmerged_under_the_old_names() -> None:
    model = small_model().eval()
    names = list(model.state_dict())
    plain = model(**inputs()).logits
    adapters = add_adapters(model, (DECODER, WHOLE))
    disturbed(model)
    unmerged = model(**inputs()).logits
    adapters.merge()
    assert list(model.state_dict()) == names
    assert not hasattr(model, "peft_config")
    torch.testing.assert_close(model(**inputs()).logits, unmerged, rtol=0, atol=1e-5)
    assert (unmerged - plain).abs().max() > 0.01


def test_only_adapters_and_whole_groups_get_gradients() -> None:
    model = small_model()
    add_adapters(model, (DECODER, WHOLE))
    members = assign_groups(model, (DECODER, WHOLE))
    assert all(is_adapter(name) for name, _ in members[0])
    assert all("compressor" in name for name, _ in members[1])
    ids = inputs()["input_ids"]
    model.train()(input_ids=ids, labels=ids).loss.backward()
    trained = {id(parameter) for group in members for _, parameter in group}
    assert all((parameter.grad is not None) <= (id(parameter) in trained) for parameter in model.parameters())
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for _, parameter in members[0])


def test_groups_that_cannot_be_adapted_are_refused() -> None:
    model = small_model()
    with pytest.raises(ConfigError, match="different adapters"):
        add_adapters(model, (DECODER, Group(pattern="projector", lr=1.0, lora=Lora(rank=2))))
    with pytest.raises(ConfigError, match="no linear layer"):
        add_adapters(model, (Group(pattern="embed_tokens", lr=1.0, lora=LORA),))
    model.config.tie_word_embeddings = True
    with pytest.raises(ConfigError, match="shares its weight"):
        add_adapters(model, (DECODER,))
    assert add_adapters(model, (WHOLE,)) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one stage with adapters, beside its base."""
    folder = tmp_path_factory.mktemp("lora")
    base = small_model()
    base.save_pretrained(folder / "base")
    build_processor(base.config, load_tokenizer("nano")).save_pretrained(folder / "base")
    Image.new("RGB", (60, 40), "red").save(folder / "a.png")
    talk = [{"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": "red"}]
    (folder / "talks.jsonl").write_text(json.dumps({"image": "a.png", "conversations": talk}) + "\n")
    stage = Stage(
        name="tuning",
        task=Tuning(data=({"path": str(folder / "talks.jsonl"), "kind": "chat"},), max_length=200),
        groups=(DECODER, WHOLE),
        steps=2,
        batch=1,
        warmup=0,
        image={"pad_value": 9},
    )
    run_recipe(Recipe(name="low", base=str(folder / "base"), stages=(stage,)), folder / "run", workers=0)
    return folder


def test_the_adapters_folder_makes_the_model_of_the_run(run: Path) -> None:
    stage = run / "run" / "0-tuning"
    merged = merge_adapter(stage / "adapter", run / "merged")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        merge_adapter(stage / "adapter", run / "merged")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (merged, stage / "model"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=name)
    assert open_checkpoint(merged)[0].config.image.pad_value == 9
    told = json.loads((stage / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(run / "base")


def test_peft_reads_the_adapters(run: Path) -> None:
    stage = run / "run" / "0-tuning"
    base = open_checkpoint(run / "base")[0]
    base.load_state_dict(load_file(stage / "adapter" / "trained.safetensors"), strict=False)
    wrapped = PeftModel.from_pretrained(base, str(stage / "adapter")).eval()
    expected = open_checkpoint(stage / "model")[0](**inputs()).logits
    torch.testing.assert_close(wrapped(**inputs()).logits, expected, rtol=0, atol=1e-5)


def test_another_base_is_refused(run: Path) -> None:
    adapter = run / "run" / "0-tuning" / "adapter"
    with pytest.raises(CheckpointError, match="does not fit its base"):
        merge_adapter(adapter, run / "wrong", base="nano")
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        merge_adapter(run / "base", run / "wrong")
    assert not (run / "wrong").exists()


def test_a_stage_of_patches_takes_no_adapters() -> None:
    with pytest.raises(ConfigError, match="give its groups no adapters"):
        Stage(name="tower", task={"kind": "patches", "families": {"objects": 1}}, groups=(DECODER,), steps=1, batch=1)


def test_the_world_can_be_learned_with_adapters(tmp_path: Path) -> None:
    from saccade.train.loop import train_stage

    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = Stage(
        name="asked", task=Questions(families={"objects": 1.0}), groups=(DECODER,), steps=1, batch=1, warmup=0
    )
    train_stage(model, load_tokenizer("nano"), stage, tmp_path / "stage", log=tmp_path / "log.jsonl", seed=0, workers=0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name or "embedded_query" in name for name in changed)
