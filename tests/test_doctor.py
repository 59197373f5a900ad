"""The doctor: a sound model passes every check, and each way of spoiling one fails the check that is named after it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import small
from helpers_vlm import byte_tokenizer, tiny_vlm
from released_flashsloth import LAYOUT, SMALL, released_folder
from saccade import presets
from saccade.checkpoint import open_checkpoint
from saccade.checkpoint.doctor import Check, examine
from saccade.checkpoint.samples import smooth_picture, turned_picture
from saccade.cli import app
from saccade.cli.doctoring import _samples
from saccade.config import ImageConfig
from saccade.data.scenes import render
from saccade.image import view_rows
from saccade.vlm import VLM, load

WEIGHTS = "model.safetensors"
SCORE = "model.compressor.score.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound native checkpoint; not to be changed."""
    vlm = tiny_vlm()
    vlm.model.generation_config.eos_token_id = vlm.processor.tokenizer.eos_token_id
    path = tmp_path_factory.mktemp("sound")
    vlm.model.save_pretrained(path)
    vlm.processor.save_pretrained(path)
    return path


@pytest.fixture
def vlm(folder: Path) -> VLM:
    return load(folder)


def failed(vlm: VLM, folder: Path) -> dict[str, str]:
    """Names and details of the checks that do not pass."""
    return {check.name: check.detail for check in examine(vlm.model, vlm.processor, folder) if not check.passed}


def test_a_sound_model_passes(vlm: VLM, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    checks = list(examine(vlm.model, vlm.processor, folder, progress=lambda *step: told.append(step)))
    assert [check for check in checks if not check.passed] == []
    count = len(load_file(folder / WEIGHTS))
    assert told == [(number, count) for number in range(1, count + 1)]
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_precision_is_compared_after_the_cast(folder: Path, dtype: torch.dtype) -> None:
    vlm = load(folder, dtype=dtype)
    found = failed(vlm, folder)
    assert found == {}
    with torch.no_grad():
        vlm.model.lm_head.bias[3] += 0.01
    assert list(failed(vlm, folder)) == ["tensors equal the file's"]


def test_the_bundled_model_is_sound() -> None:
    vlm = load()
    assert failed(vlm, Path(vlm.model.config.name_or_path)) == {}


def test_a_released_checkpoint_is_compared_through_its_table(tmp_path: Path) -> None:
    folder = released_folder(tmp_path / "released", LAYOUT.table.to_theirs(small.model().state_dict()), small.config())
    model, processor = open_checkpoint(folder, device="cpu", **SMALL)
    assert [check for check in examine(model, processor, folder, layouts=(LAYOUT,)) if not check.passed] == []
    with torch.no_grad():
        model.model.embedded_query.up.bias += 1
    found = [check for check in examine(model, processor, folder, layouts=(LAYOUT,)) if not check.passed]
    assert [check.name for check in found] == ["tensors equal the file's"]
    assert "model.embedded_query.up.bias" in found[0].detail


def flip_a_byte(vlm: VLM) -> None:
    vlm.model.lm_head.bias.data.view(torch.uint8)[5] ^= 1


def initialize_again(vlm: VLM) -> None:
    vlm.model.model.compressor.score.reset_parameters()


def swap_ids(vlm: VLM) -> None:
    text = byte_tokenizer().backend_tokenizer.to_str()
    swapped = text.replace("<image>", "<other>").replace("<learnable>", "<image>").replace("<other>", "<learnable>")
    vlm.processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(swapped), eos_token="</s>", pad_token="</s>"
    )


def grow_the_tokenizer(vlm: VLM) -> None:
    vlm.processor.tokenizer.add_tokens([f"word{n}" for n in range(20)])


def change_a_view(vlm: VLM) -> None:
    vlm.processor.image_processor.mean = [0.4, 0.5, 0.5]


def stop_elsewhere(vlm: VLM) -> None:
    vlm.model.generation_config.eos_token_id = [7, 8]


def rewrite_the_template(vlm: VLM) -> None:
    vlm.processor.chat_template = vlm.processor.chat_template.replace("Be brief. ", "Be long. ")


def lose_a_number(vlm: VLM) -> None:
    vlm.model.lm_head.bias.data[9] = float("nan")


def train(vlm: VLM) -> None:
    vlm.model.train()


def see_nothing(vlm: VLM) -> None:
    change_what_is_seen(vlm, lambda pixels: pixels * 0)


def swap_pictures(vlm: VLM) -> None:
    change_what_is_seen(vlm, lambda pixels: pixels.flip(0))


def change_what_is_seen(vlm: VLM, change: Callable[[Tensor], Tensor]) -> None:
    encode = vlm.model.model.encode_views
    vlm.model.model.encode_views = lambda pixels: encode(change(pixels))  # type: ignore[method-assign]


def shift_long_batches(vlm: VLM) -> None:
    vlm.model.lm_head.register_forward_hook(lambda _module, _inputs, out: out.roll(len(out) - 1, -1))


def shift_single_steps(vlm: VLM) -> None:
    vlm.model.lm_head.register_forward_hook(lambda _module, _inputs, out: out.roll(int(out.shape[1] == 1), -1))


@pytest.mark.parametrize(
    ("spoil", "name", "detail"),
    [
        (flip_a_byte, "tensors equal the file's", "1 of .* differ from the file: lm_head.bias"),
        (initialize_again, "tensors equal the file's", "2 of .* model.compressor.score.bias, " + SCORE),
        (swap_ids, "placeholders", "image_token_id is 256, but the tokenizer writes <image> as 257"),
        (grow_the_tokenizer, "placeholders", "279 tokens but the model 272 embeddings"),
        (change_a_view, "template and pictures", "image: the processor says .*0.4"),
        (stop_elsewhere, "end of answers", r"</s> \(258\), but generation_config.json stops at \[7, 8\]"),
        (rewrite_the_template, "segments and string agree", "other input_ids"),
        (lose_a_number, "logits are finite", "1 of 272 logits are not finite"),
        (train, "same input, same logits", "evaluation mode"),
        (see_nothing, "another picture, other logits", "two pictures give the same logits"),
        (swap_pictures, "batched as single", "other logits beside another: they differ by"),
        (shift_long_batches, "batched as single", "other logits beside another: they differ by"),
        (shift_single_steps, "cached as uncached", "a cached step gives other logits"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_spoiled_is_found(vlm: VLM, folder: Path, spoil: Callable[[VLM], None], name: str, detail: str) -> None:
    spoil(vlm)
    found = failed(vlm, folder)
    assert name in found
    assert re.search(detail, found[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("amount", [0.05, -0.05])
def test_what_is_no_rounding_is_found_in_half_precision(folder: Path, dtype: torch.dtype, amount: float) -> None:
    vlm = load(folder, dtype=dtype)
    vlm.model.lm_head.register_forward_hook(lambda _module, _inputs, out: out * (1 + amount * (len(out) - 1)))
    assert list(failed(vlm, folder)) == ["batched as single"]


def rewritten(folder: Path, target: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A checkpoint with other tensors under the same configuration."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    (target / WEIGHTS).unlink()
    save_file(change(load_file(folder / WEIGHTS)), target / WEIGHTS, metadata={"format": "pt"})
    return target


def test_tensors_that_only_one_side_has_are_named(vlm: VLM, folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"model.extra": torch.zeros(2), **{name: t for name, t in tensors.items() if name != SCORE}}

    found = failed(vlm, rewritten(folder, tmp_path / "changed", change))
    assert found.keys() == {"nothing re-initialized", "nothing unused"}
    assert SCORE in found["nothing re-initialized"]
    assert "model.extra" in found["nothing unused"]


def test_tied_weights_are_in_the_file_once(tmp_path: Path) -> None:
    vlm = tiny_vlm(tie_word_embeddings=True)
    vlm.model.generation_config.eos_token_id = vlm.processor.tokenizer.eos_token_id
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    assert failed(load(tmp_path), tmp_path) == {}


def doctor(*words: object) -> Any:
    return CliRunner().invoke(app, ["doctor", *(str(word) for word in words)])


def test_the_command_prints_a_checklist(folder: Path) -> None:
    result = doctor("--model", folder)
    assert result.exit_code == 0
    assert "✗" not in result.stdout
    assert result.stdout.count("✓") == len(result.stdout.splitlines()) > 10


def test_the_command_reports_what_does_not_open(folder: Path, tmp_path: Path) -> None:
    spoiled = rewritten(folder, tmp_path / "spoiled", lambda tensors: {**tensors, "model.extra": torch.zeros(2)})
    out = tmp_path / "reports" / "report.json"
    result = doctor("--model", spoiled, "--json", "--out", out)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report == json.loads(out.read_text())
    assert not report["healthy"]
    assert [check["name"] for check in report["checks"]] == ["opens"]
    assert "1 unexpected: model.extra" in report["checks"][0]["detail"]
    assert {"saccade", "torch", "transformers", "python", "platform"} < report["machine"].keys()
    assert "✗ opens" in doctor("--model", spoiled).stdout


def test_what_is_undecided_is_neither_found_nor_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(*_: Any, samples: Any, **__: Any) -> list[Check]:
        return [Check("order", None, f"needs more than {len(samples)} pictures")]

    monkeypatch.setattr("saccade.checkpoint.doctor.examine", undecided)
    result = doctor("--model", folder, "--pictures", 2)
    assert result.exit_code == 0
    assert "? order  needs more than 2 pictures" in result.stdout
    assert json.loads(doctor("--model", folder, "--json").stdout)["checks"][1]["passed"] is None


def test_what_a_model_is_to_read_stands_in_the_pictures() -> None:
    samples = _samples(6, side=8)
    assert len(samples) == 6
    for index, sample in enumerate(samples):
        scene = render("text", "val", index)
        assert sample.picture.size == scene.image.shape[1::-1]
        assert sample.answer in {item.content for item in scene.objects}
        assert "say" in sample.question or "number" in sample.question or "word" in sample.question


def test_pictures_to_read_fit_the_model() -> None:
    whole = presets.flashvl_iss().image
    inner = ImageConfig(**whole.model_dump() | {"grid_side": whole.side - 2 * whole.margin})
    sizes = [sample.picture.size for sample in _samples(6, whole.side)]
    rows = [(view_rows(*size, whole), view_rows(*size, inner)) for size in sizes]
    assert [len(ours) > 1 for ours, _ in rows] == [True, True, False] * 2
    assert any(ours != theirs for ours, theirs in rows if len(ours) > 1)
    assert all(ours != theirs for ours, theirs in rows[2::3])
    for (width, height), scene in zip(sizes, (render("text", "val", index) for index in range(6)), strict=True):
        assert width / height == pytest.approx(scene.image.shape[1] / scene.image.shape[0], rel=0.01)


@pytest.mark.parametrize("name", ["flashvl_dynamic", "flashvl_iss", "flashvl_dynamic_siglip2"])
def test_what_a_model_is_tried_on_is_cut_into_different_rows(name: str) -> None:
    whole: ImageConfig = presets.preset(name).image
    for config in (whole, ImageConfig(**whole.model_dump() | {"grid_side": whole.side * 3 // 4})):
        assert view_rows(*smooth_picture(config).size, config) == (1, 2)
        assert view_rows(*turned_picture(config).size, config) == (1, 1, 1)


def test_a_check_that_breaks_is_a_finding(vlm: VLM, tmp_path: Path) -> None:
    checks: dict[str, Check] = {check.name: check for check in examine(vlm.model, vlm.processor, tmp_path)}
    assert not checks["nothing unused"].passed
    assert "config.json" in checks["nothing unused"].detail
    assert checks["same input, same logits"].passed
