"""A tower that two models have in common lies in one of their folders, and every way of opening the other finds it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, Qwen2Config

from helpers_vlm import tiny_vlm
from saccade.checkpoint import convert, open_checkpoint
from saccade.checkpoint.doctor import examine
from saccade.checkpoint.files import INDEX_FILE
from saccade.checkpoint.sharing import REST_FILE, share
from saccade.config import PixelShuffleConfig, ProjectorConfig, PromptConfig
from saccade.errors import CheckpointError
from saccade.vlm import VLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import release_nano

TOWER = "model.vision_tower"
OTHER = {
    "query": None,
    "query_token_id": None,
    "prompt": PromptConfig(),
    "compressor": PixelShuffleConfig(window=2),
    "projector": ProjectorConfig(hidden_sizes=(20, 20), input_norm=True),
    "text_config": Qwen2Config(
        vocab_size=272,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=258,
    ),
    "lm_head_bias": False,
    "tie_word_embeddings": True,
}


def save(vlm: VLM, folder: Path) -> Path:
    vlm.model.generation_config.eos_token_id = vlm.processor.tokenizer.eos_token_id
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def with_tower_of(vlm: VLM) -> VLM:
    """A model of another family on the tower of this one."""
    other = tiny_vlm(1, **OTHER)
    other.model.model.vision_tower.load_state_dict(vlm.model.model.vision_tower.state_dict())
    return other


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """The folder that stores the tower, and the one that lists it."""
    vlm = tiny_vlm()
    first, second = save(vlm, tmp_path / "first"), save(with_tower_of(vlm), tmp_path / "second")
    share(first, TOWER)
    share(second, TOWER, first)
    return first, second


def test_both_open_as_they_were_saved(both: tuple[Path, Path]) -> None:
    assert [path.name for path in both[1].glob("*.safetensors")] == [REST_FILE]
    assert len(list(both[0].glob("*.safetensors"))) == 2
    for folder, saved in zip(both, (tiny_vlm(), with_tower_of(tiny_vlm())), strict=True):
        theirs, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        for model in (open_checkpoint(folder)[0], theirs):
            for name, value in saved.model.state_dict().items():
                assert torch.equal(model.state_dict()[name], value), name


def test_the_doctor_finds_every_tensor(both: tuple[Path, Path]) -> None:
    checks = {check.name: check for check in examine(*open_checkpoint(both[1]), both[1])}
    for name in ("nothing re-initialized", "nothing unused", "tensors equal the file's"):
        assert checks[name].passed, checks[name]


def test_a_conversion_is_whole(both: tuple[Path, Path], tmp_path: Path) -> None:
    target = convert(both[1], tmp_path / "alone")
    shutil.rmtree(both[0])
    assert (
        load_file(target / "model.safetensors").keys()
        == json.loads((both[1] / INDEX_FILE).read_text())["weight_map"].keys()
    )
    open_checkpoint(target)


def test_a_model_without_its_neighbor_says_what_it_lacks(both: tuple[Path, Path]) -> None:
    both[0].rename(both[0].with_name("elsewhere"))
    with pytest.raises(CheckpointError, match=r"\.\./first/vision_tower-\w{8}\.safetensors.*keep the two folders toge"):
        open_checkpoint(both[1])


def test_another_tower_is_neither_taken_for_it_nor_put_in_its_place(both: tuple[Path, Path], tmp_path: Path) -> None:
    stranger = save(tiny_vlm(2, **OTHER), tmp_path / "stranger")
    with pytest.raises(CheckpointError, match=r"is not what .*first has stored of it"):
        share(stranger, TOWER, both[0])
    open_checkpoint(stranger)
    with pytest.raises(CheckpointError, match=r"no weights of model\.tower"):
        share(stranger, "model.tower")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        share(both[0], TOWER)


def test_what_was_saved_last_is_what_opens(both: tuple[Path, Path]) -> None:
    """As with transformers: weights in one file, written over what an index lists."""
    newer = tiny_vlm(3)
    newer.model.save_pretrained(both[0])
    opened = open_checkpoint(both[0])[0]
    assert torch.equal(opened.lm_head.weight, newer.model.lm_head.weight)
    save(tiny_vlm(3, **OTHER), both[0])
    open_checkpoint(both[0])  # whose tensors are not those that the index lists


def test_a_release_keeps_a_tower_of_before_as_long_as_another_model_lists_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_nano, "ASSETS", tmp_path)
    vlm = tiny_vlm()
    release_nano.store(vlm, "nano")
    release_nano.store(with_tower_of(vlm), "nano_flashvl_iss")
    (old,) = (tmp_path / "nano").glob("vision_tower-*")
    later = tiny_vlm(4)
    release_nano.store(later, "nano")
    assert old.is_file()
    assert torch.equal(tower(tmp_path / "nano_flashvl_iss"), tower_of(vlm))
    assert torch.equal(tower(tmp_path / "nano"), tower_of(later))
    release_nano.store(with_tower_of(later), "nano_flashvl_iss")
    release_nano.store(later, "nano")
    assert not old.exists()
    assert torch.equal(tower(tmp_path / "nano_flashvl_iss"), tower_of(later))


def tower(folder: Path) -> torch.Tensor:
    return tower_of(VLM(*open_checkpoint(folder)))


def tower_of(vlm: VLM) -> torch.Tensor:
    weight: torch.Tensor = vlm.model.model.vision_tower.state_dict()["embeddings.patch_embedding.weight"]
    return weight
