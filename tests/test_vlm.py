"""Asking: alone or in a batch, streamed or not, encoded before or not, the answer is the same."""

import random
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.convert_slow_tokenizer import bytes_to_unicode

from helpers_vlm import SPECIALS, byte_tokenizer, count_views, picture, tiny_vlm
from saccade import presets
from saccade.config import ImageConfig
from saccade.errors import CheckpointError, ConfigError, ImageError, PromptError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.start import load_tokenizer
from saccade.vlm import VLM, Answer, Event, Timings, load
from saccade.vlm.answers import Stopwatch
from saccade.vlm.streaming import REPLACEMENT, TextStream

NEW = 12
IMAGE_ID, QUERY_ID, END_ID = range(256, 259)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture
def towers(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Views per call of the tower, as calls happen."""
    return count_views(vlm, monkeypatch)


@pytest.fixture
def generated(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What `model.generate` returned, call by call."""
    outputs: list[torch.Tensor] = []
    generate = vlm.model.generate

    def keeping(**inputs: Any) -> torch.Tensor:
        outputs.append(generate(**inputs))
        return outputs[-1]

    monkeypatch.setattr(vlm.model, "generate", keeping)
    return outputs


def requests() -> list[tuple[Any, str]]:
    first, second = picture(1), picture(2, 17, 40)
    return [
        (first, "Hi?"),
        (None, "Is there nothing to see?"),
        (second, "How many circles does this picture show, if any?"),
        (first, "Why?"),
        (second, "q" * 150),
    ]


def test_a_batch_gives_every_row_the_answer_it_gets_alone(vlm: VLM, generated: list[torch.Tensor]) -> None:
    together = vlm.ask_batch(requests(), max_new_tokens=NEW)
    alone = [vlm.ask(*request, max_new_tokens=NEW) for request in requests()]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.prompt_tokens for answer in together] == [answer.prompt_tokens for answer in alone]
    ids = [row[-NEW:].tolist() for row in generated[0]]
    assert ids == [output[0, -NEW:].tolist() for output in generated[1:]]
    assert len({tuple(row) for row in ids}) == len(ids), "the tiny model must tell these questions apart"


def test_the_answer_depends_on_the_picture(vlm: VLM) -> None:
    questions = [(picture(seed), "What?") for seed in range(4)]
    assert len({str(answer) for answer in vlm.ask_batch(questions, max_new_tokens=NEW)}) > 1


def test_no_requests_no_answers(vlm: VLM) -> None:
    assert vlm.ask_batch([]) == []


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 7}])
def test_a_stream_joined_is_the_answer(vlm: VLM, options: dict[str, Any]) -> None:
    for image, question in requests():
        whole = vlm.ask(image, question, max_new_tokens=NEW, **options)
        events = list(vlm.stream(image, question, max_new_tokens=NEW, **options))
        assert "".join(event.text for event in events) == whole.text
        assert [event.answer for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].answer is not None
        assert events[-1].answer.text == whole.text
        assert events[-1].answer.finish_reason == whole.finish_reason


def test_a_stream_tells_text_before_the_end(vlm: VLM) -> None:
    events = list(vlm.stream(picture(1), "Hi?", max_new_tokens=NEW))
    assert sum(bool(event.text) for event in events) > 1


def test_leaving_a_stream_early_ends_the_generation(vlm: VLM) -> None:
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    before = set(threading.enumerate())
    hook = vlm.model.lm_head.register_forward_hook(count)
    stream: Any = vlm.stream(picture(1), "Hi?", max_new_tokens=300)
    next(stream)
    stream.close()
    hook.remove()
    assert set(threading.enumerate()) <= before
    assert 1 <= steps < 300


def test_an_error_inside_a_stream_reaches_the_caller(vlm: VLM) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        next(vlm.stream("nowhere.png", "Hi?"))


def test_an_encoded_picture_gives_the_same_answer_without_the_tower(vlm: VLM, towers: list[int]) -> None:
    image = picture(3)
    expected = vlm.ask(image, "What?", max_new_tokens=NEW)
    encoded = vlm.encode(image)
    towers.clear()
    answer = vlm.ask(encoded, "What?", max_new_tokens=NEW)
    assert towers == []
    assert answer.text == expected.text
    assert answer.timings.vision == 0 < expected.timings.vision


def test_an_encoded_picture_knows_itself(vlm: VLM, tmp_path: Any) -> None:
    image = picture(3, 31, 20)
    path = tmp_path / "picture.png"
    image.save(path)
    keys = {vlm.encode(source).key for source in (image, np.asarray(image), path, str(path), path.read_bytes())}
    assert len(keys) == 1
    encoded = vlm.encode(image)
    assert encoded.size == (31, 20)
    assert encoded.num_tokens == vlm.model.config.tokens_per_view
    assert encoded.patches.shape == (1, vlm.model.config.patches_per_view, 24)
    assert vlm.encode(picture(4)).key not in keys


def test_an_encoded_picture_knows_how_its_tiles_stand() -> None:
    tiled = tiny_vlm(image=ImageConfig(side=24, layout="dynamic", max_tiles=4))
    white = [tiled.encode(Image.new("RGB", size, "white")) for size in ((96, 24), (24, 96), (48, 48))]
    assert {image.num_tokens for image in white} == {5 * tiled.model.config.tokens_per_view}
    assert len({image.key for image in white}) == 3


def test_a_picture_in_tiles() -> None:
    """Nano in high resolution, with random weights."""
    torch.manual_seed(0)
    config = presets.nano_hd()
    vlm = VLM(SaccadeForConditionalGeneration(config), build_processor(config, load_tokenizer("nano")))
    encoded = vlm.encode(picture(1))
    assert encoded.num_tokens == 45
    assert encoded.patches.shape == (5, config.patches_per_view, 192)
    asked = [(encoded, "What?"), (None, "Hello?"), (picture(2, 17, 40), "How many circles are there?")]
    together = vlm.ask_batch(asked, max_new_tokens=NEW)
    assert [answer.image_tokens for answer in together] == [45, 0, 45]
    assert [answer.text for answer in together] == [vlm.ask(*one, max_new_tokens=NEW).text for one in asked]


def test_the_tower_sees_a_picture_once_however_often_it_is_asked_about(vlm: VLM, towers: list[int]) -> None:
    first, second = picture(1), picture(2)
    vlm.ask_batch([(first, "a"), (second, "b"), (first, "c"), (first, "d")], max_new_tokens=1)
    assert towers == [2]


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "seed": 0}])
@pytest.mark.parametrize("placeholder", [IMAGE_ID, QUERY_ID])
def test_placeholders_are_never_generated(
    vlm: VLM, generated: list[torch.Tensor], placeholder: int, options: dict[str, Any]
) -> None:
    bias = vlm.model.lm_head.bias
    with torch.no_grad():
        bias[placeholder] += 1e4
    try:
        vlm.ask(picture(1), "Hi?", max_new_tokens=NEW, **options)
    finally:
        with torch.no_grad():
            bias[placeholder] -= 1e4
    assert placeholder not in generated[0][0, -NEW:]


def test_generation_stops_at_the_end_of_an_answer(vlm: VLM) -> None:
    bias = vlm.model.lm_head.bias
    with torch.no_grad():
        bias[END_ID] += 1e4
    try:
        answer = vlm.ask(picture(1), "Hi?", max_new_tokens=NEW)
    finally:
        with torch.no_grad():
            bias[END_ID] -= 1e4
    assert (answer.text, answer.finish_reason, answer.new_tokens) == ("", "stop", 1)
    longer = vlm.ask(picture(1), "Hi?", max_new_tokens=NEW)
    assert (longer.finish_reason, longer.new_tokens) == ("length", NEW)


def test_a_seed_repeats_a_draw_and_leaves_the_random_state_alone(vlm: VLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, "temperature": 1.5, "top_p": 0.9}
    before = torch.random.get_rng_state()
    draws = [vlm.ask(picture(1), "Hi?", seed=seed, **options).text for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_user_text_that_spells_a_placeholder_stays_text(vlm: VLM) -> None:
    answer = vlm.ask(picture(1), "What does <image> or </s> or <learnable> mean?", max_new_tokens=2)
    assert answer.image_tokens == vlm.model.config.tokens_per_view


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(vlm: VLM) -> None:
    with pytest.raises(PromptError, match=r"prompt 1 has 5\d\d tokens .* 64 .* holds 400"):
        vlm.ask_batch([(None, "short"), (None, "x" * 500)])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
    ],
)
def test_bad_options_are_named(vlm: VLM, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        vlm.ask(None, "Hi?", **options)


def test_an_empty_question_is_refused(vlm: VLM) -> None:
    with pytest.raises(PromptError):
        vlm.ask(None, "  ")


def test_a_template_that_cannot_end_is_refused(vlm: VLM) -> None:
    prompt = vlm.processor.prompt.model_copy(update={"assistant_end": "the end"})
    processor: Any = SimpleNamespace(tokenizer=vlm.processor.tokenizer, prompt=prompt)
    with pytest.raises(ConfigError, match="assistant_end 'the end'"):
        VLM(vlm.model, processor).ask(None, "Hi?")


def test_an_unknown_dtype_or_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="'float7'"):
        load(dtype="float7")
    with pytest.raises(CheckpointError, match="no/such-model"):
        load("no/such-model")


def test_timings_add_up(vlm: VLM) -> None:
    watch, shares = Stopwatch(torch.device("cpu")), []
    for _ in range(5):  # a process may be held up between the stages
        start = watch.now()
        answer = vlm.ask(picture(1), "Hi?", max_new_tokens=NEW)
        shares.append(answer.timings.total / (watch.now() - start))
    assert 0.5 < max(shares) <= 1
    timings = answer.timings
    assert all((seconds > 0) == (name != "waiting") for name, seconds in timings.stages().items())
    assert timings.total == pytest.approx(sum(timings.stages().values()))
    assert timings.first_token == pytest.approx(timings.total - timings.decode)
    assert answer.seconds_per_token == pytest.approx(timings.decode / (NEW - 1))
    assert not vlm.model.model.compressor._forward_hooks


def test_an_answer_is_plain_data() -> None:
    answer = Answer("red", "stop", 40, 9, 2, Timings(vision=0.25, decode=0.5))
    assert str(answer) == "red"
    data = answer.to_dict()
    assert data["timings"]["first_token"] == 0.25
    assert data["timings"]["total"] == 0.75
    assert {"text", "finish_reason", "prompt_tokens", "image_tokens", "new_tokens"} < data.keys()
    assert Answer("", "stop", 1, 0, 1, Timings()).seconds_per_token is None


def test_a_chat_remembers_its_turns_and_pictures(vlm: VLM, towers: list[int]) -> None:
    chat = vlm.chat()
    first = chat.say("What?", [picture(1)], max_new_tokens=NEW)
    second = chat.say("And now?", max_new_tokens=NEW)
    third = chat.say("And this?", [picture(2)], max_new_tokens=NEW)
    assert towers == [1, 1]
    assert third.image_tokens == 2 * vlm.model.config.tokens_per_view
    assert first.prompt_tokens < second.prompt_tokens < third.prompt_tokens
    assert [message["role"] for message in chat.history.messages] == ["user", "assistant"] * 3
    assert second.text != vlm.chat().say("And now?", max_new_tokens=NEW).text
    again = vlm.chat()
    assert first.text == again.say("What?", [picture(1)], max_new_tokens=NEW).text
    events = list(again.stream("And now?", max_new_tokens=NEW))
    assert "".join(event.text for event in events) == second.text
    assert again.history.messages == chat.history.messages[:4]


def test_a_turn_that_fails_or_is_left_leaves_no_trace(vlm: VLM) -> None:
    chat = vlm.chat()
    chat.say("What?", max_new_tokens=2)
    before = chat.history
    with pytest.raises(PromptError):
        chat.say("x" * 500)
    stream: Iterator[Event] = chat.stream("And?", max_new_tokens=NEW)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert chat.history == before


def byte_ids(text: bytes) -> list[int]:
    """Ids in the tiny tokenizer, one per byte."""
    letters, tokenizer = bytes_to_unicode(), byte_tokenizer()
    return [tokenizer.convert_tokens_to_ids(letters[byte]) for byte in text]


def pushed(text: bytes) -> list[str]:
    """What a stream tells after each byte and at the end."""
    stream = TextStream(byte_tokenizer())
    return [*map(stream.push, byte_ids(text)), stream.finish()]


def test_a_character_of_several_tokens_appears_whole() -> None:
    deltas = pushed("añ🙂b".encode())
    assert [delta for delta in deltas if delta] == ["a", "ñ", "🙂", "b"]
    assert deltas[1:3] == ["", "ñ"]


def test_a_character_cut_at_the_end_is_dropped_and_a_broken_one_is_shown() -> None:
    assert "".join(pushed("ok🙂".encode()[:-1])) == "ok"
    assert "".join(pushed(b"a\xffb")) == f"a{REPLACEMENT}b"


def test_blanks_around_an_answer_are_dropped_and_those_inside_kept() -> None:
    assert "".join(pushed(b" \n red  or \n blue \n")) == "red  or \n blue"


def test_streamed_text_equals_text_decoded_at_once() -> None:
    tokenizer = byte_tokenizer()
    generator = random.Random(0)
    for _ in range(200):
        noise = bytes(generator.choices([*b"ab \n", 0xC3, 0xB1, 0xF0, 0x9F, 0x99, 0x82, 0xFF], k=12))
        whole = tokenizer.decode(byte_ids(noise))
        assert "".join(pushed(noise)) == whole.rstrip(REPLACEMENT).strip()


def test_special_tokens_are_no_text() -> None:
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS]
    assert "".join(map(stream.push, [*byte_ids(b"a"), *ids, *byte_ids(b"b")])) + stream.finish() == "ab"
