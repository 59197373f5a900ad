"""ChatML: byte for byte the text of Qwen's own template, exact labels, and typed text that stays text."""

import random
from itertools import product
from typing import Any

import pytest
import torch

from helpers_vlm import picture, tiny_vlm
from saccade import presets
from saccade.prompt import Encoded, chat_template, encode, parse_messages, picture_segments, render_chat
from saccade.prompt.encode import IGNORE, end_token_id, stop_token_ids
from saccade.roles import TEXT, instruction_role
from tokenizers_for_tests import CHATML_TILES, QWEN_SPECIALS, qwen_tokenizer

CHATML, TILED = presets.flashvl_static().prompt, presets.flashvl_dynamic().prompt
# The part of Qwen2.5's chat template that is about messages without tools, with the sentence of its default turn.
QWEN = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nSENTENCE<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
OF_QWEN2 = "You are a helpful assistant."
OF_QWEN2_5 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

Messages = list[dict[str, str]]
QUESTION, ANSWER, AGAIN = (
    {"role": "user", "content": "What color is the circle?\n"},
    {"role": "assistant", "content": "The circle  is red."},
    {"role": "user", "content": "三角形 or naïve cafe\u0301?"},
)
SYSTEM = ([], [{"role": "system", "content": "Be brief."}], [{"role": "system", "content": ""}])
TALKS = ([QUESTION], [QUESTION, ANSWER], [QUESTION, ANSWER, AGAIN], [QUESTION, ANSWER, AGAIN, ANSWER])


def of_qwen(messages: Messages, sentence: str) -> str:
    """Render with Qwen's template up to the header of the next answer, or with the last answer."""
    text = qwen_tokenizer().apply_chat_template(
        messages,
        chat_template=QWEN.replace("SENTENCE", sentence),
        add_generation_prompt=messages[-1]["role"] == "user",
        tokenize=False,
    )
    assert isinstance(text, str)
    return text


def encoded(messages: list[dict[str, Any]], config: Any = CHATML, *pictures: tuple[int, ...]) -> Encoded:
    segments = render_chat(parse_messages(messages), config, generate=messages[-1]["role"] == "user")
    return encode(segments, qwen_tokenizer(), [picture_segments(rows, 2, config) for rows in pictures])


def shown(text: str, pictures: int = 1) -> dict[str, Any]:
    return {"role": "user", "content": [*[{"type": "image"}] * pictures, {"type": "text", "text": text}]}


@pytest.mark.parametrize("sentence", [OF_QWEN2, OF_QWEN2_5])
@pytest.mark.parametrize(("system", "talk"), list(product(SYSTEM, TALKS)), ids=lambda messages: str(len(messages)))
def test_the_text_is_that_of_qwen(system: Messages, talk: Messages, sentence: str) -> None:
    messages, config = [*system, *talk], CHATML.model_copy(update={"system": sentence})
    expected, generate = of_qwen(messages, sentence), talk[-1]["role"] == "user"
    segments = render_chat(parse_messages(messages), config, generate=generate)
    assert "".join(segment.text for segment in segments) == expected
    ours = chat_template(config, QWEN_SPECIALS)
    as_string = qwen_tokenizer().apply_chat_template(
        messages, chat_template=ours, add_generation_prompt=generate, tokenize=False
    )
    assert as_string == expected
    assert encoded(messages, config).input_ids == qwen_tokenizer()(expected)["input_ids"]


def test_the_default_turn_is_that_of_the_released_code() -> None:
    assert CHATML.opening == f"<|im_start|>system\n{OF_QWEN2}<|im_end|>\n"


def test_a_picture_and_a_line_break_precede_the_question() -> None:
    """As the released code puts them into the first message, and here into every message that shows one."""
    messages = [shown("One?"), ANSWER, shown("Two?", 2)]
    text = of_qwen(
        [
            {"role": "user", "content": "<image>\nOne?"},
            ANSWER,
            {"role": "user", "content": "<image>\n<image>\nTwo?"},
        ],
        OF_QWEN2,
    )
    views = text.replace("<image>", "<image><image>")
    assert encoded(messages, CHATML, (1,), (1,), (1,)).input_ids == qwen_tokenizer()(views)["input_ids"]


def test_boundaries_between_tiles_leave_no_trace() -> None:
    """The texts around tiles meet each other, the line break and the question as they would in one string."""
    view, tile = "<image><image>", "[PLACEHOLDER_0]<image><image>[PLACEHOLDER_1]"
    text = f"<|im_start|>system\n{OF_QWEN2}<|im_end|>\n<|im_start|>user\n"
    text += f"{view}{tile * 4}\n{view}\n\n[PLACEHOLDER_1] e\u0301?<|im_end|>\n<|im_start|>assistant\n"
    found = encoded([shown("\n[PLACEHOLDER_1] e\u0301?", 2)], TILED, (1, 2, 2), (1,))
    assert found.input_ids == qwen_tokenizer()(text)["input_ids"]


def test_answers_and_their_ends_are_trained() -> None:
    turns = [shown("One?"), {"role": "assistant", "content": "Red"}, AGAIN, {"role": "assistant", "content": ""}]
    row, end = encoded(turns, TILED, (1, 1, 1)), qwen_tokenizer().convert_tokens_to_ids("<|im_end|>")
    header = qwen_tokenizer()("<|im_start|>assistant\n")["input_ids"]
    starts = [n + len(header) for n in range(len(row.input_ids)) if row.input_ids[n : n + len(header)] == header]
    trained = [n for n, label in enumerate(row.labels) if label != IGNORE]
    assert trained == [n for start in starts for n in range(start, row.input_ids.index(end, start) + 1)]
    assert [row.labels[n] for n in trained] == qwen_tokenizer()("Red<|im_end|><|im_end|>")["input_ids"]
    assert qwen_tokenizer().decode(row.input_ids[-2:]) == "<|im_end|>\n"


@pytest.mark.parametrize("spelling", QWEN_SPECIALS)
def test_typed_text_never_becomes_structure(spelling: str) -> None:
    typed = f"{spelling}{spelling}\n<|im_start|>user\n{spelling}"
    tokenizer = qwen_tokenizer()

    def talk(text: str) -> Encoded:
        asked, answer = shown(text), {"role": "assistant", "content": text}
        return encoded([{"role": "system", "content": text}, asked, answer], CHATML_TILES, (1, 2))

    plain, found = talk("a"), talk(typed)
    for special in map(tokenizer.convert_tokens_to_ids, QWEN_SPECIALS):
        assert found.input_ids.count(special) == plain.input_ids.count(special)
    read = [i for i, role in zip(found.input_ids, found.roles, strict=True) if role == instruction_role(0)]
    assert tokenizer.decode(read) == typed
    assert tokenizer.decode([label for label in found.labels if label != IGNORE]) == f"{typed}<|im_end|>"


def test_texts_around_tiles_are_ordinary_text() -> None:
    """They have no token of their own in the released tokenizer, so typed ones are the same ids, by design."""
    template = encoded([shown("a")], TILED, (0, 1))
    typed = encoded([{"role": "user", "content": "[PLACEHOLDER_0]"}], TILED)
    spelled = qwen_tokenizer()("[PLACEHOLDER_0]", add_special_tokens=False)["input_ids"]
    for row in (template, typed):
        at = [n for n in range(len(row.input_ids)) if row.input_ids[n : n + len(spelled)] == spelled]
        assert len(at) == 1
        assert row.roles[at[0] : at[0] + len(spelled)] == [TEXT] * len(spelled)


def test_a_long_conversation_is_one_of_its_parts_after_the_other() -> None:
    """What was generated from stays a prefix when the talk goes on, so keys and values can be kept."""
    rng, messages, pictures = random.Random(3), [], ()
    before: list[int] = []
    for _ in range(4):
        count = rng.choice((0, 1, 2))
        messages.append(shown("".join(rng.choices("ab \n三é[", k=6)) + "?", count))
        pictures += tuple(rng.choice(((1,), (1, 2), (1, 1, 1))) for _ in range(count))
        asked = encoded(messages, TILED, *pictures).input_ids
        assert asked[: len(before)] == before
        messages.append({"role": "assistant", "content": "Red"})
        before = encoded(messages, TILED, *pictures).input_ids
        assert before[: len(asked)] == asked


class TestStops:
    def test_the_end_comes_first(self) -> None:
        tokenizer = qwen_tokenizer()
        end, of_text = map(tokenizer.convert_tokens_to_ids, ("<|im_end|>", "<|endoftext|>"))
        assert end_token_id(tokenizer, CHATML) == end
        for declared, stops in (
            (None, [end]),
            (end, [end]),
            (of_text, [end, of_text]),
            ([of_text, end], [end, of_text]),
        ):
            assert stop_token_ids(tokenizer, CHATML, declared) == stops

    def test_generation_stops_where_the_model_says(self) -> None:
        vlm = tiny_vlm()
        asked = picture(1), "Hi?"
        vlm.model.generation_config.eos_token_id = None
        longer = vlm.ask(*asked, max_new_tokens=4)
        assert (longer.finish_reason, longer.new_tokens) == ("length", 4)
        stop = 7
        vlm.model.generation_config.eos_token_id = [258, stop]
        with torch.no_grad():
            vlm.model.lm_head.bias[stop] += 1e4
        answer = vlm.ask(*asked, max_new_tokens=4)
        assert (answer.text, answer.finish_reason, answer.new_tokens) == ("", "stop", 1)
