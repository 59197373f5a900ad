"""Checkpoints: a small folder in the layout of a release is opened, converted, broken."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import golden
import small
from released_flashsloth import CONFIG, INDEX, LAYOUT, SMALL, WEIGHTS, base_tokenizer, released_folder, settings
from saccade import presets
from saccade.checkpoint import convert, files, open_checkpoint
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.errors import CheckpointError
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, query_role

TEXT = {"type": "text", "text": "What is it?"}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in the released layout; not to be changed."""
    tensors = LAYOUT.table.to_theirs(small.model().state_dict())
    return released_folder(tmp_path_factory.mktemp("checkpoints") / "released", tensors, small.config())


@pytest.fixture
def spoiled(released: Path, tmp_path: Path) -> Path:
    """A copy of the released folder that a test may change."""
    return Path(shutil.copytree(released, tmp_path / "spoiled"))


def logits(model: SaccadeForConditionalGeneration) -> Tensor:
    views = torch.randn(small.NUM_VIEWS, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(**small.batch(), pixel_values=views).logits


def test_a_released_folder_opens(released: Path) -> None:
    model, processor = open_checkpoint(released, device="cpu", **SMALL)
    assert settings(model.config) == settings(small.config())
    assert not model.training
    assert torch.equal(logits(model), logits(small.model()))
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<query>", "</s>", "<image>"]) == [290, 291, 292]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (291, 256)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (291, 256)


def test_what_the_processor_returns_runs_through_the_model(released: Path) -> None:
    model, processor = open_checkpoint(released, **SMALL)
    message = {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (30, 20))}, TEXT]}
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    roles = inputs["mm_token_type_ids"]
    assert int((roles == IMAGE).sum()) == small.TOKENS_PER_VIEW
    assert int((roles == query_role(0)).sum()) == small.NUM_QUERIES
    with torch.no_grad():
        assert bool(model(**inputs).logits.isfinite().all())


def test_dtype_is_the_checkpoints_unless_given(released: Path, spoiled: Path) -> None:
    assert open_checkpoint(released, dtype=torch.bfloat16, **SMALL)[0].dtype == torch.bfloat16
    change_tensors(spoiled, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    assert open_checkpoint(spoiled, **SMALL)[0].dtype == torch.float16
    change_tensors(spoiled, lambda tensors: {**tensors, "lm_head.bias": tensors["lm_head.bias"].float()})
    with pytest.raises(CheckpointError, match=r"torch\.float16, torch\.float32"):
        open_checkpoint(spoiled, **SMALL)


def test_conversions_are_idempotent_and_round_trips_are_exact(released: Path, tmp_path: Path) -> None:
    native = convert(released, tmp_path / "native", **SMALL)
    again = convert(native, tmp_path / "again", **SMALL)
    back = convert(native, tmp_path / "back", to="released", **SMALL)
    assert json.loads((native / CONFIG).read_text())["model_type"] == "saccade"
    assert folder_bytes(native) == folder_bytes(again)
    assert equal(load_file(back / WEIGHTS), load_file(released / WEIGHTS))
    theirs = json.loads((released / CONFIG).read_text())
    written = json.loads((back / CONFIG).read_text())
    assert {name: theirs[name] for name in written} == written
    opened, processor = open_checkpoint(native)  # the native layout needs no table
    assert torch.equal(logits(opened), logits(small.model()))
    assert settings(open_checkpoint(back, **SMALL)[0].config) == settings(opened.config) == settings(small.config())
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == small.IMAGE_ID
    assert opened.generation_config.eos_token_id == 291


def test_a_model_that_sees_tiles_makes_the_round_trip(spoiled: Path, tmp_path: Path) -> None:
    theirs = {**json.loads((spoiled / CONFIG).read_text()), "image_hd": True}
    (spoiled / CONFIG).write_text(json.dumps(theirs))
    native = convert(spoiled, tmp_path / "native", **SMALL)
    model, processor = open_checkpoint(native)
    assert model.config.image.model_dump() == {**small.config().image.model_dump(), **presets.FLASHSLOTH_TILES}
    assert processor.image_processor.num_image_tokens(30, 20) == small.TILED * small.TOKENS_PER_VIEW
    back = convert(native, tmp_path / "back", to="released", **SMALL)
    written = json.loads((back / CONFIG).read_text())
    assert {name: theirs[name] for name in written} == written
    assert equal(load_file(back / WEIGHTS), load_file(spoiled / WEIGHTS))


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_model_that_a_layout_cannot_hold_is_not_written(tmp_path: Path, released: Path) -> None:
    model, processor = open_checkpoint(released, **SMALL)
    other = SaccadeForConditionalGeneration(small.config(fusion="replace"))
    other.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"query\.fusion"):
        convert(tmp_path / "other", tmp_path / "out", to="released", **SMALL)
    assert not (tmp_path / "out").exists()
    assert model.config.query.fusion == "add"


def test_nothing_is_overwritten(released: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        convert(released, tmp_path / "full", **SMALL)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = change(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {new if key == old else key: tensor for key, tensor in tensors.items()}


SCORE, LATE = "model.pooling.mlp.3.weight", "model.layers.2.mlp.fc1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(SCORE), f"1 missing: {SCORE}"),
        (without("model.learnable_tokens.token"), "model.learnable_tokens.token is missing"),
        (lambda tensors: {**tensors, "model.extra": torch.zeros(2)}, "1 unexpected: model.extra"),
        (renamed(LATE, "model.layers.2.mlp.fc9.bias"), f"1 missing: {LATE}; 1 unexpected: .*fc9"),
        (lambda tensors: {**tensors, LATE: torch.zeros(3)}, rf"{LATE} is \[3\] instead of \[22\]"),
        (
            lambda tensors: {**tensors, "model.compressor.score.weight": tensors[SCORE].clone()},
            f"{SCORE} is there twice",
        ),
    ],
)
def test_a_wrong_tensor_is_named(
    spoiled: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    change_tensors(spoiled, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(spoiled, **SMALL)


def test_a_native_folder_is_strict_too(released: Path, tmp_path: Path) -> None:
    native = convert(released, tmp_path / "native", **SMALL)
    change_tensors(native, without("model.embedded_query.up.bias"))
    with pytest.raises(CheckpointError, match=r"1 missing: model\.embedded_query\.up\.bias"):
        open_checkpoint(native)


def shard(folder: Path) -> list[str]:
    """Cut the weights into three files and an index; return the names of the files."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {f"model-0000{part + 1}-of-00003.safetensors": names[part::3] for part in range(3)}
    for file, part_names in files.items():
        save_file({name: tensors[name] for name in part_names}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part_names in files.items() for name in part_names}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return list(files)


def test_a_sharded_folder_opens_and_is_complete_or_refused(spoiled: Path) -> None:
    files = shard(spoiled)
    assert torch.equal(logits(open_checkpoint(spoiled, **SMALL)[0]), logits(small.model()))
    index = json.loads((spoiled / INDEX).read_text())
    index["weight_map"]["model.ghost"] = files[0]
    (spoiled / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lists model\.ghost"):
        open_checkpoint(spoiled, **SMALL)
    (spoiled / files[1]).unlink()
    with pytest.raises(CheckpointError, match=files[1]):
        open_checkpoint(spoiled, **SMALL)


def test_a_damaged_file_is_named(spoiled: Path) -> None:
    (spoiled / WEIGHTS).write_bytes((spoiled / WEIGHTS).read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        open_checkpoint(spoiled, **SMALL)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("processor_config.json", "processor"),
        ("tokenizer.json", "processor"),
        ("tokenizer_config.json", "processor"),
        ("generation_config.json", "generation configuration"),
    ],
)
def test_an_unreadable_part_of_a_native_folder_is_named(released: Path, tmp_path: Path, file: str, what: str) -> None:
    native = convert(released, tmp_path / "native", **SMALL)
    (native / file).write_text('{"a":')
    with pytest.raises(CheckpointError, match=f"has no usable {what}"):
        open_checkpoint(native)


def test_a_native_configuration_of_wrong_types_is_an_error(released: Path, tmp_path: Path) -> None:
    native = convert(released, tmp_path / "native", **SMALL)
    config = json.loads((native / CONFIG).read_text())
    (native / CONFIG).write_text(json.dumps({**config, "text_config": {**config["text_config"], "vocab_size": "many"}}))
    with pytest.raises(CheckpointError, match="has no usable configuration"):
        open_checkpoint(native)


def test_pickled_weights_are_refused(spoiled: Path) -> None:
    (spoiled / WEIGHTS).rename(spoiled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin can run code .* convert it to safetensors"):
        open_checkpoint(spoiled, **SMALL)


def test_the_package_knows_its_models_by_name_with_either_hyphens_or_underscores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny", "tiny_hd", "pictures"):
        (tmp_path / name).mkdir()
    for name in ("tiny", "tiny_hd"):
        (tmp_path / name / CONFIG).write_text("{}")
    monkeypatch.setattr(files, "ASSETS", tmp_path)
    assert list(files.bundled_models()) == ["tiny", "tiny_hd"]
    assert files.resolve("tiny-hd") == files.resolve("tiny_hd") == tmp_path / "tiny_hd"
    monkeypatch.chdir(tmp_path)
    assert files.resolve("./tiny") == Path("tiny")


def test_sources_that_are_no_checkpoint(tmp_path: Path, spoiled: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"'someone/no-such-model' is neither a folder nor a model inside"):
        open_checkpoint("someone/no-such-model")
    (spoiled / CONFIG).write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(CheckpointError, match="model_type 'llava', which is none of saccade, flashsloth"):
        open_checkpoint(spoiled)
    (spoiled / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        open_checkpoint(spoiled)


def test_a_tokenizer_of_another_vocabulary_is_refused(spoiled: Path) -> None:
    tokenizer = base_tokenizer()
    tokenizer.add_tokens(["surplus"])
    tokenizer.save_pretrained(spoiled)
    with pytest.raises(CheckpointError, match=r"gives <query> the id 291, but the model knows it as 290"):
        open_checkpoint(spoiled, **SMALL)


def test_a_released_tokenizer_saved_as_vocabulary_and_merges(spoiled: Path) -> None:
    """The files that a slow tokenizer of transformers 4 leaves."""
    vocabulary = base_tokenizer().get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (spoiled / name).unlink()
    (spoiled / "vocab.json").write_text(json.dumps(vocabulary))
    (spoiled / "merges.txt").write_text("#version: 0.2\n")
    added = {str(number): {"content": token, "special": True} for number, token in ((290, "<query>"), (291, "</s>"))}
    settings = {"tokenizer_class": "CodeGenTokenizer", "added_tokens_decoder": added, "eos_token": "</s>"}
    (spoiled / "tokenizer_config.json").write_text(json.dumps(settings))
    _, processor = open_checkpoint(spoiled, **SMALL)
    assert processor.tokenizer.convert_tokens_to_ids(["<query>", "</s>", "<image>"]) == [290, 291, 292]
    assert processor.tokenizer("Hi", add_special_tokens=False)["input_ids"] == [vocabulary["H"], vocabulary["i"]]


@pytest.mark.golden
def test_the_reference_weights_open_and_give_the_reference_logits(tmp_path: Path) -> None:
    tensors, _, inputs = golden.whole_inputs("single_image")
    folder = released_folder(tmp_path / "reference", golden.state_dict(), golden.config())
    native = convert(folder, tmp_path / "native", layouts=(replace(FLASHSLOTH, published=golden.config),))
    model, _ = open_checkpoint(native)
    with torch.no_grad():
        golden.close(model(**inputs).logits, tensors["logits"], golden.WHOLE)


def test_conversion_may_change_the_precision(released: Path, tmp_path: Path) -> None:
    folder = convert(released, tmp_path / "half", dtype=torch.float16, **SMALL)
    model, _ = open_checkpoint(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
