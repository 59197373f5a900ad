"""The decoder alone: proven right before it is timed, and beside llama.cpp where that is installed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import small
from saccade.bench import ceilings, llamacpp
from saccade.bench.draw import draw
from saccade.bench.feeds import OwnFeed, text_ids
from saccade.bench.gguf import check_decoder
from saccade.bench.proof import Judge
from saccade.bench.report import markdown, read_result
from saccade.bench.skeleton import random_model
from saccade.bench.speakers import EngineSpeaker, PlainSpeaker, Speaker, Spoken
from saccade.bench.subjects import Generating, Timeline
from saccade.cli import app
from saccade.cli.goals import verdicts
from saccade.config import SaccadeConfig
from saccade.engine.runner import BROKEN
from saccade.errors import ConfigError, EngineError
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset

NEW = 6
QWEN2 = {**small.QWEN2, "hidden_size": 32, "intermediate_size": 44, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {**QWEN2, "model_type": "llama"}
# So few positions that the middle frequencies, which are slowed down in part, are among those of a narrow head.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DECODERS = {
    "qwen2": QWEN2,
    "qwen2, tied": {**QWEN2, "tie_word_embeddings": True},
    "llama": LLAMA,
    "llama, slowed": {**LLAMA, "rope_parameters": LLAMA3},
}


def config(decoder: dict[str, Any]) -> SaccadeConfig:
    tied = decoder.get("tie_word_embeddings", False)
    return small.changed(small.shuffled(), text_config=decoder, tie_word_embeddings=tied)


def plain(decoder: dict[str, Any], dtype: torch.dtype = torch.float32) -> Generating:
    """A decoder whose heads look where they look: large weights, scales and shifts that are not those of the start."""
    torch.manual_seed(small.SEED)
    made = config(decoder)
    model = SaccadeForConditionalGeneration(made).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.5 * weight.shape[-1] ** -0.5)
            else:
                weight.normal_(mean=0.0 if "bias" in name else 1.0, std=0.3)
    return Generating("tiny", model.to(dtype), OwnFeed(made))


class Liar:
    """A speaker that says something else from a place on."""

    way = "wrongly"

    def __init__(self, speaker: Speaker, place: int) -> None:
        self.name = "liar"
        self._speaker, self._place = speaker, place

    def answer(self, ids: Sequence[int], new_tokens: int) -> Spoken:
        tokens = self._speaker.answer(ids, new_tokens).tokens
        wrong = tuple((token + (n >= self._place)) % small.VOCAB for n, token in enumerate(tokens))
        return Spoken(Timeline(tuple(map(float, range(new_tokens))), {}), wrong)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        return self._speaker.logits(ids)


@pytest.mark.parametrize("decoder", [QWEN2, LLAMA], ids=["qwen2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_ways_are_proven_right(decoder: dict[str, Any], dtype: torch.dtype) -> None:
    subject = plain(decoder, dtype)
    ids = text_ids(20, small.VOCAB)
    judge = Judge(subject.model, ids)
    for speaker in (PlainSpeaker(subject), EngineSpeaker(subject, 20 + NEW)):
        spoken = speaker.answer(ids, NEW)
        assert len(spoken.tokens) == len(spoken.timeline.tokens) == NEW
        assert list(spoken.timeline.tokens) == sorted(spoken.timeline.tokens)
        told = judge.judge(speaker, NEW)
        if dtype == torch.float32:
            assert told["distance"] < 1e-5
            assert told["shortfall"] < 1e-5
            assert told["same_token"]


@pytest.mark.parametrize("place", [0, NEW - 1])
def test_a_wrong_answer_has_no_speed(place: int) -> None:
    speaker = PlainSpeaker(plain(QWEN2))
    with pytest.raises(EngineError, match="otherwise than the model"):
        Judge(speaker._model, text_ids(20, small.VOCAB)).judge(Liar(speaker, place), NEW)


def test_a_token_left_out_is_noticed_beside_rounding() -> None:
    """With the weights that speed is measured with, which see the order of tokens dimly."""
    model = random_model(config(QWEN2), "cpu", torch.bfloat16, seed=0)
    speaker, ids = PlainSpeaker(Generating("random", model, OwnFeed(model.config))), text_ids(60, small.VOCAB)
    judge = Judge(model, ids)
    assert 0 < judge.judge(speaker, NEW)["distance"] < judge.allowed < 0.05
    whole, speaker.logits = speaker.logits, lambda given: whole(given[1:])  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="otherwise than the model"):
        judge.judge(speaker, NEW)


def test_numbers_that_are_none_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = PlainSpeaker(plain(QWEN2))
    monkeypatch.setattr(speaker, "logits", lambda _: torch.full((small.VOCAB,), torch.nan))
    with pytest.raises(EngineError, match="differ by nan"):
        Judge(speaker._model, text_ids(20, small.VOCAB)).judge(speaker, NEW)


def test_a_token_that_is_none_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says -1 where numbers are not finite."""
    speaker = PlainSpeaker(plain(QWEN2))
    answer = speaker.answer(text_ids(20, small.VOCAB), NEW)
    broken = replace(answer, tokens=(*answer.tokens[:-1], BROKEN))
    monkeypatch.setattr(speaker, "answer", lambda *_: broken)
    with pytest.raises(EngineError, match="inf standard deviations behind"):
        Judge(speaker._model, text_ids(20, small.VOCAB)).judge(speaker, NEW)


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        ({**QWEN2, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding window"),
        ({**QWEN2, "hidden_act": "gelu"}, "activation 'gelu'"),
        ({**QWEN2, "rope_parameters": LLAMA3}, "positions of the kind 'llama3'"),
        ({**LLAMA, "head_dim": 12}, "do not make up its width"),
    ],
)
def test_a_decoder_that_llamacpp_computes_otherwise_is_refused(decoder: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_decoder(config(decoder))


def test_decoders_of_the_presets_are_covered() -> None:
    for name in ("flashvl_static", "flashvl_static_llama", "nano_flashvl_static"):
        check_decoder(preset(name))
    with pytest.raises(ConfigError, match="family 'phi'"):
        check_decoder(preset("flashsloth"))


@pytest.fixture
def no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose ceilings are measured in no time."""
    monkeypatch.setitem(ceilings.READ_BYTES, "cpu", 1 << 16)
    monkeypatch.setitem(ceilings.SQUARES, "cpu", (32,))
    monkeypatch.setattr(ceilings, "LEAST_SECONDS", 1e-5)


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["bench", "decoder", "--model", "preset:nano_flashvl_static", *map(str, words)])


@pytest.mark.usefixtures("no_ceilings")
def test_the_command_measures_and_keeps(tmp_path: Path) -> None:
    file, drawn = tmp_path / "decoder.json", tmp_path / "decoder.png"
    done = run("--peer", "none", "--prompt", 24, "--new-tokens", 4, "--out", file, "--plot", drawn)
    assert done.exit_code == 0, done.stderr
    result = read_result(file)
    assert json.loads(done.stdout.splitlines()[-1]) == result
    assert (result["bench"], result["prompt_tokens"], result["dtype"]) == ("decoder", 24, "bfloat16")
    assert [row["subject"] for row in result["speakers"]] == ["nano_flashvl_static", "nano_flashvl_static, engine"]
    for row in result["speakers"]:
        assert len(row["rounds"]["first token"]) == len(row["rounds"]["per token"]) == 5
        first, each = row["first_token"]["median"], row["per_token"]["median"]
        assert row["prefill_flops_per_second"] == pytest.approx(result["flops"] / first, rel=1e-4)
        assert row["step_bytes_per_second"] == pytest.approx(result["step_bytes"] / each, rel=1e-4)
        assert row["proof"].keys() == {"distance", "allowed", "cosine", "same_token", "shortfall"}
    assert result["targets"] == []
    assert drawn.stat().st_size > 1000
    again = CliRunner().invoke(app, ["bench", "--from", str(file)])
    assert again.stdout.startswith(markdown(result))
    assert "| nano_flashvl_static, engine |" in again.stdout


def test_the_engine_is_divided_by_its_peer() -> None:
    rows = [
        {"subject": name, "rounds": {"first token": [first] * 5, "per token": [each] * 5}}
        for name, first, each in (("m", 9.0, 9.0), ("m, engine", 1.0, 3.0), ("llama.cpp", 4.0, 2.0))
    ]
    found = [target.to_dict() for target in verdicts({"bench": "decoder", "model": "m", "speakers": rows})]
    assert [(target["value"], target["met"]) for target in found] == [(0.25, None), (1.5, None)]
    assert verdicts({"bench": "decoder", "model": "m", "speakers": rows[:2]}) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--peer", "nobody"), "--peer is 'nobody'"),
        (("--model", "preset:flashsloth"), "family 'phi'"),
        (("--dtype", "float16", "--peer", "none"), "--dtype is float16"),
        (("--prompt", 3, "--peer", "none"), "too few"),
        (("--prompt", 99999, "--peer", "none"), "lower one of them"),
        (("--rounds", 2), "too few"),
    ],
)
@pytest.mark.usefixtures("no_ceilings")
def test_what_cannot_be_measured_is_one_sentence(words: tuple[object, ...], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "find_spec", lambda _: None)
    done = run()
    assert done.exit_code == 1
    assert "pip install llama-cpp-python gguf" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", DECODERS)
def test_a_file_holds_the_weights_bit_for_bit(name: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from saccade.bench.gguf import write_gguf

    model = plain(DECODERS[name], torch.bfloat16).model
    write_gguf(model, tmp_path / "decoder.gguf")
    held = {one.name: one for one in gguf.GGUFReader(tmp_path / "decoder.gguf").tensors}
    layer = model.model.language_model.layers[1]
    down = held["blk.1.ffn_down.weight"]
    assert down.tensor_type.name == "BF16"
    assert bytes(down.data) == bytes(layer.mlp.down_proj.weight.detach().contiguous().view(torch.uint8).numpy())
    assert held["blk.1.attn_norm.weight"].tensor_type.name == "F32"
    assert ("output.weight" in held) == ("tied" not in name)
    assert ("rope_freqs.weight" in held) == ("slowed" in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECODERS)
def test_llamacpp_computes_the_same(name: str, dtype: torch.dtype) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    subject = plain(DECODERS[name], dtype)
    ids = text_ids(100, small.VOCAB)
    judge = Judge(subject.model, ids)
    with llamacpp.open_llamacpp(subject.model, 100 + NEW) as peer:
        spoken = peer.answer(ids, NEW)
        assert peer.answer(ids, NEW).tokens == spoken.tokens  # nothing is left of the answer before
        assert len(spoken.timeline.tokens) == NEW
        told = judge.judge(peer, NEW)
    if dtype == torch.float32:
        assert told["distance"] < 1e-5
        assert told["same_token"]
        assert spoken.tokens == PlainSpeaker(subject).answer(ids, NEW).tokens


@pytest.mark.usefixtures("no_ceilings")
def test_the_command_measures_llamacpp(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    file = tmp_path / "decoder.json"
    done = run("--prompt", 24, "--new-tokens", 4, "--out", file)
    assert done.exit_code == 0, done.stderr
    result = read_result(file)
    assert [row["subject"] for row in result["speakers"]][-1] == llamacpp.NAME
    assert [target["met"] for target in result["targets"]] == [None, None]
    draw(result, tmp_path / "decoder.png")
