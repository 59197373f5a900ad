"""Checkpoints: small releases of the second family compute what their parts do, and make the round trip."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import released_flashvl as release
import small
from released_flashsloth import settings
from released_flashvl import CONFIG, IMAGE_ID, LAYOUTS, SIDE, VARIANTS, WEIGHTS, Reference, Variant, write_released
from saccade.checkpoint import convert, open_checkpoint
from saccade.checkpoint.doctor import Check, examine
from saccade.checkpoint.questions import Question, answer, loss
from saccade.checkpoint.samples import Sample, asked, model_inputs
from saccade.errors import CheckpointError, SaccadeWarning
from saccade.model import SaccadeForConditionalGeneration

SMALL: dict[str, Any] = {"layouts": LAYOUTS}
EACH = pytest.mark.parametrize("name", VARIANTS)
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {name: Reference(variant) for name, variant in VARIANTS.items()}


@pytest.fixture(scope="module")
def folders(references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A release of each variant; not to be changed."""
    root = tmp_path_factory.mktemp("released")
    return {name: write_released(root / name, one.variant, one.tensors()) for name, one in references.items()}


def inputs(variant: Variant) -> tuple[Tensor, Tensor]:
    """A row that shows three views, one where there are no tiles, and the views."""
    views = 1 if variant.tower == "siglip" else 3
    ids = [257, 7, *[IMAGE_ID] * variant.tokens, *[8, *[IMAGE_ID] * variant.tokens] * (views - 1), 9, 10, 258]
    pixels = torch.randn(views, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return torch.tensor([ids]), pixels


@torch.no_grad()
def agrees(model: SaccadeForConditionalGeneration, reference: Reference) -> None:
    ids, pixels = inputs(reference.variant)
    found, expected = model(input_ids=ids, pixel_values=pixels).logits, reference.logits(ids, pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@EACH
@pytest.mark.parametrize("apple", [True, False])
def test_a_release_computes_what_its_parts_compute(
    name: str, apple: bool, references: dict[str, Reference], tmp_path: Path
) -> None:
    reference = references[name]
    folder = write_released(tmp_path / "released", reference.variant, reference.tensors(apple=apple))
    model, processor = open_checkpoint(folder, **SMALL)
    assert settings(model.config) == settings(reference.variant.small())
    agrees(model, reference)
    assert processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<image>"]) == [258, IMAGE_ID]
    assert model.generation_config.eos_token_id == [258, 256]
    assert model.generation_config.use_cache


@EACH
def test_round_trips_are_exact(
    name: str, folders: dict[str, Path], references: dict[str, Reference], tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SaccadeWarning)
        native = convert(folders[name], tmp_path / "native", **SMALL)
    notes = [str(note.message) for note in told if issubclass(note.category, SaccadeWarning)]
    assert [("vit.head.attention.in_proj_bias" in note, "no answer depends on" in note) for note in notes] == (
        [(True, True)] if name == "static" else []
    )
    again, back = (
        convert(native, tmp_path / "again", **SMALL),
        convert(native, tmp_path / "back", to="released", **SMALL),
    )
    assert json.loads((native / CONFIG).read_text())["model_type"] == "saccade"
    for path in native.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    kept = {
        key: tensor for key, tensor in load_file(folders[name] / WEIGHTS).items() if not key.startswith("vit.head.")
    }
    equal(load_file(back / WEIGHTS), kept)
    opened, processor = open_checkpoint(native)
    agrees(opened, references[name])
    assert opened.generation_config.eos_token_id == [258, 256]
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == IMAGE_ID
    assert settings(open_checkpoint(back, **SMALL)[0].config) == settings(opened.config)
    written, theirs = (json.loads((folder / CONFIG).read_text()) for folder in (back, folders[name]))
    assert (written["model_type"], written["architectures"]) == (theirs["model_type"], theirs["architectures"])
    assert (written["image_token_num"], written["intermediate_size"]) == (theirs["image_token_num"], release.HIDDEN)


def equal(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(found[key], tensor)] == []


def changed(reference: Reference, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    return write_released(folder, reference.variant, change(reference.tensors()))


def wrapped(*prefixes: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        prefixes[number % len(prefixes)] + key: tensor for number, (key, tensor) in enumerate(sorted(tensors.items()))
    }


@EACH
@pytest.mark.parametrize("prefix", ["module.", "model.", "base_model.model.", "module.base_model.model."])
def test_wrappers_are_taken_off(name: str, prefix: str, references: dict[str, Reference], tmp_path: Path) -> None:
    folder = changed(references[name], tmp_path / "wrapped", wrapped(prefix))
    agrees(open_checkpoint(folder, **SMALL)[0], references[name])


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {other: tensor for other, tensor in tensors.items() if other != key}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {new if key == old else key: tensor for key, tensor in tensors.items()}


def reshaped(key: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, key: torch.zeros(shape)}


QKV, NORM, POSITIONS = (
    "vit.trunk.blocks.1.attn.qkv.weight",
    "vit.trunk.post_trunk_norm.weight",
    "vit.preprocessor.pos_embed",
)
QUERY = "vit.encoder.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("static", without(QUERY), f"1 missing: {QUERY}"),
        ("static", renamed("adp.proj.bias", "adp.p0.5.bias"), r"1 missing: adp\.proj\.bias; 1 unexpected: adp\.p0\.5"),
        ("static", reshaped("adp.p0.3.bias", 5), r"adp\.p0\.3\.bias is \[5\] instead of \[28\]"),
        ("static", without("adp.p0.1.weight"), r"adp\.p0\.1\.weight is missing"),
        ("dynamic", without(QKV), f"1 missing: {QKV}"),
        ("dynamic", renamed(NORM, "vit.trunk.last_norm.weight"), f"1 missing: {NORM}; 1 unexpected: .*trunk.last_norm"),
        ("dynamic", reshaped(QKV, 35, 12), rf"{QKV} is \[35, 12\], which cannot be cut into 3"),
        ("dynamic", reshaped(QKV, 33, 12), rf"1 of another shape: {QKV} is \[33, 12\] instead of \[36, 12\]"),
        ("iss", reshaped(POSITIONS, 2, 144, 12), rf"{POSITIONS} is \[2, 144, 12\], but has to have one entry"),
        ("iss", reshaped(POSITIONS, 1, 100, 12), rf"{POSITIONS} is \[1, 100, 12\] instead of \[1, 144, 12\]"),
        ("static", reshaped("adp.p0.0.weight"), r"adp\.p0\.0\.weight has shape \[\], but 1 axes are expected"),
        ("static", reshaped("vit.embeddings.patch_embedding.weight"), r"has shape \[\], but 4 axes are expected"),
        ("iss", lambda tensors: {**tensors, "vit.head.probe": torch.zeros(1, 1, 12)}, "1 unexpected: vit.head.probe"),
        ("iss", lambda tensors: {**tensors, f"module.{NORM}": tensors[NORM].clone()}, f"{NORM} is there twice"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named_as_in_the_file(
    name: str, change: Callable[[Tensors], Tensors], message: str, references: dict[str, Reference], tmp_path: Path
) -> None:
    folder = changed(references[name], tmp_path / "spoiled", change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder, **SMALL)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vision_config", "hidden_act", "glow", "cannot find 'glow'"),
        ("vision_config", "num_attention_heads", 5, "divisible"),
        ("vision_config", "num_attention_heads", 0, "zero"),
        ("llm_config", "hidden_act", "glow", "cannot find 'glow'"),
        ("llm_config", "rope_scaling", {"rope_type": "twirl"}, "cannot find 'twirl'"),
    ],
)
@pytest.mark.parametrize("name", ["static", "iss"])
def test_what_no_tower_or_decoder_can_be_built_from_is_one_sentence(
    name: str, part: str, field: str, value: Any, message: str, references: dict[str, Reference], tmp_path: Path
) -> None:
    folder = changed(references[name], tmp_path / "odd", dict)
    content = json.loads((folder / CONFIG).read_text())
    content[part][field] = value
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"no usable configuration .*{message}.*again"):
        open_checkpoint(folder, **SMALL)


def test_a_head_that_is_not_stored_is_the_embedding(references: dict[str, Reference], tmp_path: Path) -> None:
    reference = references["iss"]
    head = "llm.lm_head.weight"
    folder = changed(reference, tmp_path / "tied", without(head))
    model, processor = open_checkpoint(folder, **SMALL)
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    found = {check.name: check for check in examine(model, processor, folder, **SMALL)}
    assert [check for check in found.values() if check.passed is False] == []
    assert "the embedding is the head" in found["output head and embedding"].detail
    back = convert(folder, tmp_path / "back", to="released", **SMALL)
    equal(load_file(back / WEIGHTS), load_file(folder / WEIGHTS))


def test_a_tokenizer_of_another_vocabulary_is_refused(references: dict[str, Reference], tmp_path: Path) -> None:
    folder = changed(references["static"], tmp_path / "other", dict)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["added_tokens_decoder"]["259"] = {"content": "<|surplus|>", "special": True}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="gives <image> the id 260, but the model knows it as 259"):
        open_checkpoint(folder, **SMALL)


def test_a_tokenizer_without_the_end_of_a_text_is_refused(references: dict[str, Reference], tmp_path: Path) -> None:
    folder = changed(references["static"], tmp_path / "other", dict)
    for file in ("tokenizer_config.json", "added_tokens.json"):
        path = folder / file
        path.write_text(path.read_text().replace("<|endoftext|>", "<|unused|>"))
    with pytest.raises(CheckpointError, match=r"does not know <\|endoftext\|>, .*: use the tokenizer files"):
        open_checkpoint(folder, **SMALL)


def examined(folder: Path, samples: Any = ()) -> dict[str, Check]:
    model, processor = open_checkpoint(folder, **SMALL)
    return {check.name: check for check in examine(model, processor, folder, samples=samples, **SMALL)}


QUESTIONS = {
    "static": {"norm of the tower", "order of tokens"},
    "dynamic": {"norm of the tower", "order of tokens", "texts around tiles", "thumbnail"},
    "iss": {"norm of the tower", "texts around tiles", "thumbnail", "unit of the grid"},
}


@EACH
def test_the_doctor_finds_a_release_sound_and_says_what_is_open(name: str, folders: dict[str, Path]) -> None:
    found = examined(folders[name])
    assert [check for check in found.values() if check.passed is False] == []
    assert {check.name for check in found.values() if check.passed is None} == QUESTIONS[name]
    assert all("undecided: needs pictures" in found[question].detail for question in QUESTIONS[name])
    assert found["order of tokens"].detail.startswith("row_major;") if name != "iss" else True
    assert "differ by" in found["output head and embedding"].detail
    assert found["precision of the release"].detail == "float32"
    assert "its use_cache false is not followed" in found["generation_config.json"].detail
    assert ("vit.head" in found["nothing unused"].detail) == (name == "static")
    if name != "static":
        assert "ordinary text of 15 tokens" in found["text [PLACEHOLDER_0]"].detail


def test_the_doctor_sees_tiles(folders: dict[str, Path]) -> None:
    model, processor = open_checkpoint(folders["iss"], **SMALL)
    views, encode = set(), model.model.encode_views

    def counted(pixels: Tensor) -> Any:
        views.add(len(pixels))
        return encode(pixels)

    model.model.encode_views = counted  # type: ignore[method-assign]
    assert [check for check in examine(model, processor, folders["iss"], **SMALL) if check.passed is False] == []
    assert views == {3, 6}


def test_a_changed_third_is_found(folders: dict[str, Path]) -> None:
    model, processor = open_checkpoint(folders["iss"], **SMALL)
    with torch.no_grad():
        model.model.vision_tower.encoder.layers[2].attention.k_proj.weight[0, 0] += 1
    found = [check for check in examine(model, processor, folders["iss"], **SMALL) if check.passed is False]
    assert [check.name for check in found] == ["tensors equal the file's"]
    assert "layers.2.attention.k_proj.weight" in found[0].detail


def test_a_copied_head_is_told(references: dict[str, Reference], tmp_path: Path) -> None:
    def copied(tensors: Tensors) -> Tensors:
        return {**tensors, "llm.lm_head.weight": tensors["llm.model.embed_tokens.weight"].clone()}

    detail = examined(changed(references["static"], tmp_path / "copied", copied))["output head and embedding"].detail
    assert detail == "equal: the head is a copy of the embedding"


NORM_OF_TOWER = Question("norm", {"after": {"vision": {"post_norm": True}}, "before": {"vision": {"post_norm": False}}})
SAMPLES = [Sample(small.picture(30 + 9 * number, 40), "What?", word) for number, word in enumerate(("abc", "xy", "1"))]


def test_the_loss_is_that_of_the_answer_and_its_end(folders: dict[str, Path], references: dict[str, Reference]) -> None:
    model, processor = open_checkpoint(folders["static"], **SMALL)
    inputs = model_inputs(processor, [[asked("What?", SAMPLES[0].picture)]])
    ids = processor.tokenizer.convert_tokens_to_ids(["a", "b", "c", "<|im_end|>"])
    whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    likely = references["static"].logits(whole, inputs["pixel_values"])[0, -5:-1].log_softmax(-1)
    expected = -sum(likely[place, token] for place, token in enumerate(ids)) / 4
    torch.testing.assert_close(loss(model, processor, SAMPLES[0]), expected)


@pytest.mark.parametrize(
    ("after", "before", "passed", "said"),
    [
        ([1.0, 2.0, 3.0], [1.5, 2.6, 3.4], True, "after: after 2.000, before 2.500"),
        ([1.0, 2.0, 3.0], [0.5, 1.4, 2.6], False, "before reads better than after"),
        ([1.0, 2.0, 3.0], [1.04, 2.04, 3.04], None, "too close to tell"),
        ([1.0, 2.0, 3.0], [1.1, 2.0, 4.4], None, "too close to tell"),
    ],
)
def test_the_reading_with_the_clearly_smaller_loss_is_right(
    after: list[float],
    before: list[float],
    passed: bool | None,
    said: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = open_checkpoint(folders["static"], **SMALL)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def known(reader: SaccadeForConditionalGeneration, _: Any, sample: Sample) -> Tensor:
        skipped = isinstance(reader.model.vision_tower.post_layernorm, torch.nn.Identity)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in reader.state_dict().items())
        return torch.tensor((before if skipped else after)[SAMPLES.index(sample)])

    monkeypatch.setattr("saccade.checkpoint.questions.loss", known)
    steps: list[tuple[int, int]] = []
    verdict, detail = answer(NORM_OF_TOWER, model, processor, SAMPLES, lambda *step: steps.append(step))
    assert verdict is passed
    assert said in detail
    assert steps == [(number, 6) for number in range(1, 7)]
    assert answer(NORM_OF_TOWER, model, processor, SAMPLES[:1])[0] is None


def test_only_pictures_that_the_readings_show_differently_count(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = open_checkpoint(folders["dynamic"], **SMALL)
    question = next(one for one in LAYOUTS[1].questions(model.config) if one.name == "thumbnail")
    whole, cut = (Sample(small.picture(*size), "What?", "x") for size in ((30, 40), (70, 40)))
    told = "undecided: only one picture of 2 tells these readings apart"
    assert answer(question, model, processor, [whole, cut]) == (None, f"there; {told}")
    read: list[Sample] = []

    def known(_: Any, words: Any, sample: Sample) -> Tensor:
        read.append(sample)
        return torch.tensor(1.0 if words.image_processor.thumbnail else 2.0)

    monkeypatch.setattr("saccade.checkpoint.questions.loss", known)
    verdict, detail = answer(question, model, processor, [cut, whole, cut])
    assert (verdict, read) == (True, [cut] * 4)
    assert "on 2 pictures" in detail


def test_a_question_is_read_in_its_own_ways_only(folders: dict[str, Path]) -> None:
    model, processor = open_checkpoint(folders["static"], **SMALL)
    same = Question("nothing", {"one": {}, "other": {"image": {"max_pixels": 10**6}}})
    assert answer(same, model, processor, SAMPLES) == (
        None,
        "one; undecided: no picture of 3 tells these readings apart",
    )
    with pytest.raises(CheckpointError, match="none of the known ways"):
        answer(Question("order", {"col": {"compressor": {"order": "col_major"}}}), model, processor, SAMPLES)
    model.model.vision_tower.post_layernorm = torch.nn.Identity()
    model.config.vision = model.config.vision.model_copy(update={"post_norm": False})
    with pytest.raises(CheckpointError, match=r"needs model\.vision_tower\.post_layernorm\.bias"):
        answer(NORM_OF_TOWER, model, processor, SAMPLES)
