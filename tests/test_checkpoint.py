"""Checkpoints: names and shapes of the release at full size; a small folder of its layout opened, converted, broken."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import golden
import small
from saccade import presets
from saccade.checkpoint import LAYOUTS, convert, open_checkpoint
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import IMAGE, query_role

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
LAYOUT = replace(FLASHSLOTH, published=small.config)
TEXT = {"type": "text", "text": "What is it?"}
SMALL = {"layouts": (LAYOUT,)}
HISTORY = ("dtype", "transformers_version", "_name_or_path", "architectures")
# config.json of the release, as its training code wrote it.
RELEASED: dict[str, Any] = {
    "architectures": ["FlashSlothForCausalLM"],
    "model_type": "flashsloth",
    "attention_dropout": 0.0,
    "bos_token_id": 50256,
    "embd_pdrop": 0.0,
    "eos_token_id": 50256,
    "freeze_mm_mlp_adapter": False,
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "image_aspect_ratio": "square",
    "image_hd": False,
    "image_token": "<image>",
    "image_token_index": 50297,
    "initializer_range": 0.02,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "mm_hidden_size": 1152,
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "checkpoints/siglip-so400m-patch14-384",
    "model_hd": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": 3072,
    "tokenizer_padding_side": "right",
    "torch_dtype": "float16",
    "transformers_version": "4.38.0",
    "tune_mm_mlp_adapter": False,
    "use_cache": True,
    "use_mm_proj": True,
    "vocab_size": 51200,
}


def full_size() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the 905 released tensors, written down from the release's description."""
    shapes: dict[str, tuple[int, ...]] = {}

    def both(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    shapes["model.embed_tokens.weight"] = (51200, 2560)
    for layer in range(32):
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            both(f"model.layers.{layer}.self_attn.{part}", 2560, 2560)
        both(f"model.layers.{layer}.mlp.fc1", 10240, 2560)
        both(f"model.layers.{layer}.mlp.fc2", 2560, 10240)
        both(f"model.layers.{layer}.input_layernorm", 2560)
    both("model.final_layernorm", 2560)
    both("lm_head", 51200, 2560)
    tower = "model.vision_tower.vision_tower.vision_model"
    both(f"{tower}.embeddings.patch_embedding", 1152, 3, 14, 14)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (729, 1152)
    for layer in range(26):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            both(f"{tower}.encoder.layers.{layer}.self_attn.{part}", 1152, 1152)
        both(f"{tower}.encoder.layers.{layer}.mlp.fc1", 4304, 1152)
        both(f"{tower}.encoder.layers.{layer}.mlp.fc2", 1152, 4304)
        both(f"{tower}.encoder.layers.{layer}.layer_norm1", 1152)
        both(f"{tower}.encoder.layers.{layer}.layer_norm2", 1152)
    both("model.mm_projector.0", 2560, 1152)
    both("model.mm_projector.2", 2560, 2560)
    both("model.pooling.mlp.0", 1152, 1152)
    both("model.pooling.mlp.3", 1, 1152)
    shapes["model.learnable_tokens.token"] = (9, 2560)
    query = "model.lqformer"
    both(f"{query}.down_projector_learnable_text", 576, 2560)
    both(f"{query}.down_projector_image", 576, 1152)
    for part in ("q_proj", "k_proj", "v_proj"):
        both(f"{query}.layers.0.t2q_attn.{part}", 576, 576)
    both(f"{query}.layers.0.i2q_attn.q_proj", 576, 576)
    both(f"{query}.layers.0.i2q_attn.k_proj", 576, 576)
    both(f"{query}.layers.0.i2q_attn.v_proj", 1152, 1152)
    for norm in ("ln_text", "ln_q", "ln_kv"):
        both(f"{query}.layers.0.{norm}", 576)
    both(f"{query}.up_projector", 2560, 1152)
    return shapes


@pytest.mark.parametrize("preset", ["flashsloth", "flashsloth_hd"])
def test_the_preset_has_the_names_and_shapes_of_the_release(preset: str) -> None:
    with torch.device("meta"):
        model = SaccadeForConditionalGeneration(presets.preset(preset))
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = full_size()
    assert len(expected) == 905
    assert {FLASHSLOTH.rename_to_theirs(name): shape for name, shape in ours.items()} == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_196_373_985
    assert {FLASHSLOTH.rename_to_ours(name) for name in expected} == ours.keys()
    assert {FLASHSLOTH.rename_to_ours(name) for name in ours} == ours.keys()  # applied twice, as once


@pytest.mark.parametrize(("preset", "image_hd"), [("flashsloth", False), ("flashsloth_hd", True)])
def test_the_released_settings_are_the_preset(preset: str, image_hd: bool) -> None:
    released = {**RELEASED, "image_hd": image_hd}
    assert settings(FLASHSLOTH.to_config(released, full_size())) == settings(presets.preset(preset))
    written = FLASHSLOTH.to_config_json(presets.preset(preset))
    assert {name: released[name] for name in written} == written


def settings(config: SaccadeConfig) -> dict[str, Any]:
    """A configuration as data, without its history."""

    def kept(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: kept(value) for name, value in tree.items() if name not in HISTORY}

    return kept(json.loads(config.to_json_string(use_diff=False)))


def test_a_layout_is_recognized_by_what_config_json_declares() -> None:
    assert FLASHSLOTH.recognizes({"model_type": "flashsloth"})
    assert FLASHSLOTH.recognizes({"model_type": "other", "architectures": ["FlashSlothForCausalLM"]})
    assert not FLASHSLOTH.recognizes({"model_type": "phi", "_name_or_path": "flashsloth", "architectures": None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_hd", "twice"),
        ("image_aspect_ratio", "anyres"),
        ("image_aspect_ratio", ["square"]),
        ("mm_projector_type", "linear"),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_use_im_start_end", True),
        ("mm_hidden_size", 1024),
    ],
)
def test_settings_that_are_not_supported_are_refused(field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=field):
        FLASHSLOTH.to_config({**RELEASED, field: value}, full_size())


def test_the_picture_may_be_padded_but_not_in_tiles() -> None:
    padded = {**RELEASED, "image_aspect_ratio": "pad"}
    config = FLASHSLOTH.to_config(padded, full_size())
    assert (config.image.layout, config.image.fit) == ("single", "pad")
    assert FLASHSLOTH.to_config_json(config)["image_aspect_ratio"] == "pad"
    with pytest.raises(CheckpointError, match="image_hd True with image_aspect_ratio 'pad'"):
        FLASHSLOTH.to_config({**padded, "image_hd": True}, full_size())


def test_other_tiles_than_the_release_has_are_not_written() -> None:
    config = presets.flashsloth_hd()
    config.image = config.image.model_copy(update={"tiles_per_side": 3})
    with pytest.raises(CheckpointError, match="'tiles_per_side': 3"):
        FLASHSLOTH.to_config_json(config)


def base_tokenizer(size: int = small.QUERY_ID) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of `size` tokens; the query token is the next, as it is for the decoder's own."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    pieces += [f"filler{number}" for number in range(size - len(pieces))]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def released_folder(folder: Path, tensors: dict[str, Tensor], config: SaccadeConfig) -> Path:
    """Write a folder as the release is: its names, its config.json, the decoder's tokenizer and two tokens more."""
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    text = json.loads(config.text_config.to_json_string(use_diff=False))
    fields = {name: text[name] for name in RELEASED.keys() & text.keys() - {"model_type", "architectures"}}
    fields |= {"mm_hidden_size": config.vision_config.hidden_size, "rope_theta": text["rope_parameters"]["rope_theta"]}
    fields |= {"partial_rotary_factor": text["rope_parameters"]["partial_rotary_factor"], "torch_dtype": "float32"}
    fields["eos_token_id"] = text["bos_token_id"]
    (folder / CONFIG).write_text(json.dumps({**RELEASED, **fields}))
    tokenizer = base_tokenizer(config.query_token_id)
    tokenizer.add_special_tokens({"additional_special_tokens": [config.prompt.query_token]})
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in the released layout; not to be changed."""
    tensors = {LAYOUT.rename_to_theirs(name): tensor for name, tensor in small.model().state_dict().items()}
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
            f"{SCORE} is there under our name too",
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


def test_sources_that_are_no_checkpoint(tmp_path: Path, spoiled: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"'someone/no-such-model' is neither a folder nor a hub model"):
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
    with pytest.raises(CheckpointError, match=r"gives <query> the id 291, but the weights know it as 290"):
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


def test_the_known_layouts() -> None:
    assert LAYOUTS == (FLASHSLOTH,)


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
