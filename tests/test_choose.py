"""Choosing among given answers: one prefill, and the same numbers as reading every whole answer by itself."""

import math
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers_vlm import SPECIALS, picture, tiny_config, tiny_vlm
from saccade.config import PromptConfig
from saccade.errors import ConfigError, ImageError, PromptError
from saccade.prompt import encode, parse_messages, render_chat
from saccade.prompt.encode import IGNORE
from saccade.vlm import VLM, Choice, choosing
from saccade.vlm.chat import Conversation

OPTIONS = ("red", "red circle", "a green triangle", "x", "</s>")
MARKUP = PromptConfig(
    user_end="</s>\n", assistant_end="</s>\n", answer_start="", query_token="<learnable>", num_queries=2
)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


def read_alone(vlm: VLM, image: Any, question: str, option: str) -> float:
    """Log-probability of an option, by one plain forward pass over prompt and answer."""
    pictures = [] if image is None else [vlm.encode(image)]
    talk = Conversation().ask(question, pictures).reply(option)
    segments = render_chat(parse_messages(talk.messages), vlm.processor.prompt, generate=False)
    row = encode(segments, vlm.processor.tokenizer, [vlm.processor.picture_segments(*p.size) for p in pictures])
    ids = torch.tensor([row.input_ids])
    features = {"image_features": pictures[0].patches} if pictures else {}
    with torch.no_grad():
        logits = vlm.model(input_ids=ids, mm_token_type_ids=torch.tensor([row.roles]), **features).logits[0]
    first = next(n for n, label in enumerate(row.labels) if label != IGNORE)
    last = row.labels.index(vlm.processor.tokenizer.eos_token_id)
    logits[:, [vlm.model.config.image_token_id, vlm.model.config.query_token_id]] = -torch.inf
    scores = logits.log_softmax(-1)
    return sum(float(scores[n - 1, row.input_ids[n]]) for n in range(first, last + 1))


@pytest.mark.parametrize("image", [picture(1), None], ids=["picture", "text"])
@pytest.mark.parametrize("prompt", [None, MARKUP], ids=["plain text", "markup"])
def test_options_score_as_if_each_were_read_alone(image: Any, prompt: PromptConfig | None) -> None:
    vlm = tiny_vlm() if prompt is None else tiny_vlm(prompt=prompt)
    choice = vlm.choose(image, "What is it?", OPTIONS)
    expected = [read_alone(vlm, image, "What is it?", option) for option in OPTIONS]
    assert choice.options == OPTIONS
    assert choice.log_probabilities == pytest.approx(expected, abs=1e-5, rel=1e-6)
    assert math.fsum(choice.probabilities) == pytest.approx(1)
    weights = [math.exp(score - max(expected)) for score in expected]
    assert choice.probabilities == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-5)
    assert choice.best == str(choice) == OPTIONS[expected.index(max(expected))]


def test_a_tokenizer_that_merges_header_and_answer_changes_nothing(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the header's last token depends on the option, the options share less of the prompt."""
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIALS, "Ġr", ":Ġr"]
    vocabulary = {letter: n for n, letter in enumerate(letters)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "r"), (":", "Ġr")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    merging = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    merging.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    merging.eos_token = merging.pad_token = "</s>"
    monkeypatch.setattr(vlm.processor, "tokenizer", merging)
    options = ("red", "blue", "round")
    assert vocabulary[":Ġr"] in merging(" ASSISTANT: red")["input_ids"]
    choice = vlm.choose(picture(1), "What?", options)
    expected = [read_alone(vlm, picture(1), "What?", option) for option in options]
    assert choice.log_probabilities == pytest.approx(expected, abs=1e-5, rel=1e-6)


def test_the_prompt_is_read_once(vlm: VLM) -> None:
    lengths: list[int] = []
    hook = vlm.model.model.register_forward_hook(
        lambda *call: lengths.append(call[-1].last_hidden_state.shape[1]), with_kwargs=False
    )
    vlm.choose(picture(1), "What is it?", OPTIONS)
    hook.remove()
    prompt = vlm.ask(picture(1), "What is it?", max_new_tokens=1).prompt_tokens
    assert lengths == [prompt, len(" a green triangle")]


@pytest.mark.parametrize("at_once", [1, 2])
def test_many_options_are_read_in_parts(vlm: VLM, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    whole = vlm.choose(picture(1), "What is it?", OPTIONS)
    batches: list[int] = []
    hook = vlm.model.model.register_forward_hook(lambda *call: batches.append(len(call[-1].last_hidden_state)))
    monkeypatch.setattr(choosing, "AT_ONCE", at_once)
    parts = vlm.choose(picture(1), "What is it?", OPTIONS)
    hook.remove()
    assert batches == ([1, 1, 1, 1, 1, 1] if at_once == 1 else [1, 2, 2, 1])
    assert parts.log_probabilities == pytest.approx(whole.log_probabilities, abs=1e-5, rel=1e-6)


def test_options_may_come_one_by_one(vlm: VLM) -> None:
    assert vlm.choose(picture(1), "What?", (letter for letter in "ab")).options == ("a", "b")


def test_encoded_pictures_are_taken(vlm: VLM) -> None:
    image = picture(4)
    assert vlm.choose(vlm.encode(image), "What?", ["a", "b"]) == vlm.choose(image, "What?", ["a", "b"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "nothing to choose from"),
        (["yes"], "nothing to choose from"),
        ("yes", "nothing to choose from in 'yes'"),
        (7, "nothing to choose from in 7"),
        (iter(["yes"]), r"nothing to choose from in \['yes'\]"),
        (["yes", 7], "option 1, 7, is no text"),
        (["yes", ["no"]], r"option 1, \['no'\], is no text"),
        (["yes", ""], "option 1, '', is empty"),
        (["yes", " no"], "option 1, ' no', is empty or has blanks"),
        (["yes", "no", "yes"], "option 2, 'yes', is offered twice"),
        (["yes", "n" * 400], "holds 400 in all"),
    ],
)
def test_options_that_are_none(vlm: VLM, options: Any, complaint: str) -> None:
    with pytest.raises(PromptError, match=complaint):
        vlm.choose(picture(1), "What?", options)


def test_options_are_looked_at_before_the_picture(vlm: VLM) -> None:
    with pytest.raises(PromptError, match="nothing to choose from"):
        vlm.choose("nowhere.png", "What?", ["yes"])


def test_other_errors_are_those_of_asking(vlm: VLM) -> None:
    with pytest.raises(ImageError, match="no picture file"):
        vlm.choose("nowhere.png", "What?", ["a", "b"])
    with pytest.raises(PromptError):
        vlm.choose(None, " ", ["a", "b"])
    endless = tiny_vlm(prompt=tiny_config().prompt.model_copy(update={"assistant_end": "the end"}))
    with pytest.raises(ConfigError, match="assistant_end"):
        endless.choose(None, "What?", ["a", "b"])


def test_a_choice_is_plain_data() -> None:
    choice = Choice(("a", "b"), (0.25, 0.75), (-2.0, -0.9))
    assert choice.to_dict() == {
        "best": "b",
        "options": ["a", "b"],
        "probabilities": [0.25, 0.75],
        "log_probabilities": [-2.0, -0.9],
    }
