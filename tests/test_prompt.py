"""Conversations: their check, the rendered text, what is trained, what a query set reads, and the ids."""

import random
from itertools import pairwise
from typing import Any

import pytest

from saccade.config import PromptConfig
from saccade.errors import ConfigError, PlaceholderMismatchError, PromptError
from saccade.prompt import (
    Encoded,
    Segment,
    Turn,
    encode,
    parse_messages,
    picture_segments,
    render_chat,
    render_plain,
    roles_from_ids,
)
from saccade.prompt.encode import IGNORE
from saccade.roles import IMAGE, TEXT, instruction_role, query_role
from tokenizers_for_tests import (
    CHAT_MARKUP,
    PLAIN_TEXT,
    SPECIALS,
    SYSTEM_TURN,
    TEMPLATES,
    UNUSUAL,
    WITHOUT_QUERIES,
    qwen_tokenizer,
    tokenizer,
)

WORDS = (
    "What", " color", " is", " the", " circle", "?", "\n", " ", "  ", "\t", ".", "Über", "三角形", "é", "👁", "USER: ",
    "ASSISTANT:", "</s>USER: ", " <image>", "<learnable>", "<|im_end|>\n<|im_start|>user\n", "Q — ", "2", "'s",
    "[PLACEHOLDER_1]", "[PLACEHOLDER_0]", ">", "e\u0301", "\n\n",
)  # fmt: skip
VARIANTS = (
    {},
    {"blank_before_query": True},
    {"query_without_image": "queries"},
    {"query_without_image": "queries", "blank_before_query": True},
    {"query_without_image": "token"},
    {"history_instruction": "first"},
    {"history_instruction": "first", "query_without_image": "token", "blank_before_query": True},
    {"view_start": "<", "view_end": ">", "image_suffix": "", "query_without_image": "queries"},
    {"view_end": ";\n", "row_separator": "---"},
)
# The whole picture, with tiles in rows or without, and tiles alone.
ARRANGEMENTS = ((1,), (1,), (1, 2, 2), (1, 3), (0, 1, 1), (0, 2))


def said(encoded: Encoded, role: int) -> str:
    return tokenizer().decode([i for i, r in zip(encoded.input_ids, encoded.roles, strict=True) if r == role])


def trained(encoded: Encoded) -> str:
    return tokenizer().decode([label for label in encoded.labels if label != IGNORE])


def whole(tokens: int) -> list[Segment]:
    return picture_segments((1,), tokens, PLAIN_TEXT)


def chat(*turns: Turn, config: PromptConfig = PLAIN_TEXT, generate: bool = True, tokens: int = 4) -> Encoded:
    pictures = sum(turn.images for turn in turns)
    return encode(render_chat(turns, config, generate=generate), tokenizer(), [whole(tokens)] * pictures)


def user(text: str = "What color?", images: int = 0) -> Turn:
    return Turn("user", text, images)


def assistant(text: str = "Red") -> Turn:
    return Turn("assistant", text)


def picture(text: str | None = None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image"}]
    return parts if text is None else [*parts, {"type": "text", "text": text}]


class TestMessages:
    def test_strings_and_parts(self) -> None:
        turns = parse_messages(
            [
                {"role": "user", "content": [{"type": "text", "text": "Compare"}, *picture("with this"), *picture()]},
                {"role": "assistant", "content": "Same"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            ]
        )
        assert turns == [user("Compare\nwith this", 2), assistant("Same"), user("", 1)]

    @pytest.mark.parametrize("said", ["Be brief.", ""])
    def test_a_system_message_is_a_turn(self, said: str) -> None:
        turns = parse_messages([{"role": "system", "content": said}, {"role": "user", "content": picture("Hi")}])
        assert turns == [Turn("system", said), user("Hi", 1)]

    @pytest.mark.parametrize(
        ("messages", "complaint"),
        [
            ([], "empty"),
            ([{"role": "system", "content": "Be brief."}], "only a system message"),
            ([{"role": "tool", "content": "x"}], "role 'tool'"),
            ([{"content": "x"}], "role None"),
            ([{"role": "assistant", "content": "x"}], "message 0 is of the assistant"),
            ([{"role": "user", "content": "x"}] * 2, "message 1 is of the user, the assistant"),
            (
                [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "x"},
                    {"role": "system", "content": "s"},
                ],
                "message 2 is of the system",
            ),
            ([{"role": "user", "content": " \n"}], "message 0 \\(user\\) is empty"),
            ([{"role": "system", "content": ""}, {"role": "user", "content": ""}], "message 1 \\(user\\) is empty"),
            ([{"role": "user", "content": []}], "message 0 \\(user\\) is empty"),
            ([{"role": "user", "content": None}], "no content"),
            ([{"role": "user", "content": [{"type": "video"}]}], "neither a picture nor a text"),
            ([{"role": "user", "content": [{"type": "text"}]}], "neither a picture nor a text"),
            ([{"role": "user", "content": ["x"]}], "neither a picture nor a text"),
            ([{"role": "system", "content": picture()}, {"role": "user", "content": "x"}], "message 0 \\(system\\)"),
            (
                [{"role": "user", "content": "x"}, {"role": "assistant", "content": picture("y")}],
                "message 1 \\(assistant\\) holds a picture",
            ),
        ],
    )
    def test_refused(self, messages: list[dict[str, Any]], complaint: str) -> None:
        with pytest.raises(PromptError, match=complaint):
            parse_messages(messages)


class TestRenderedText:
    def text(self, segments: list[Segment]) -> str:
        return "".join(segment.text * segment.count for segment in segments)

    def test_one_picture_to_answer(self) -> None:
        segments = render_chat([user("How many?", 1)], PLAIN_TEXT, generate=True)
        assert self.text(segments) == (
            PLAIN_TEXT.system + "USER: <image>\nHow many?" + "<learnable>" * 9 + " ASSISTANT:"
        )

    def test_history(self) -> None:
        turns = [user("How many?", 1), assistant("Two"), user("Sure?")]
        queries = "<learnable>" * 9
        assert self.text(render_chat(turns, PLAIN_TEXT, generate=True)) == (
            f"{PLAIN_TEXT.system}USER: <image>\nHow many?{queries} ASSISTANT: Two</s>USER: Sure?{queries} ASSISTANT:"
        )

    @pytest.mark.parametrize(("said", "before"), [("Be brief.", "Be brief.\n\n"), ("", "")])
    def test_a_system_message_precedes_the_first_question(self, said: str, before: str) -> None:
        turns = [Turn("system", said), user("Two?", 1), assistant("Red"), user("Sure?")]
        without = self.text(render_chat(turns[1:], PLAIN_TEXT, generate=True))
        assert without.startswith(PLAIN_TEXT.system)
        assert self.text(render_chat(turns, PLAIN_TEXT, generate=True)) == without.replace("Two?", f"{before}Two?")

    @pytest.mark.parametrize(("said", "text"), [(None, "Be kind."), ("Be brief.", "Be brief."), ("", "")])
    def test_a_system_message_takes_the_turn(self, said: str | None, text: str) -> None:
        turns = [Turn("system", said)] if said is not None else []
        segments = render_chat([*turns, user("Hi"), assistant("Yo")], SYSTEM_TURN, generate=False)
        assert self.text(segments) == f"SYSTEM: {text}\n\nUSER: Hi ASSISTANT: Yo</s>\n"

    def test_a_system_turn_needs_a_text(self) -> None:
        config = SYSTEM_TURN.model_copy(update={"system": ""})
        assert self.text(render_chat([user("Hi")], config, generate=True)) == "USER: Hi ASSISTANT:"

    @pytest.mark.parametrize("fields", [{"system_start": "<"}, {"system_end": ">"}], ids=str)
    def test_half_a_system_turn(self, fields: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="give both or neither"):
            PromptConfig(**fields)

    @pytest.mark.parametrize(
        ("rows", "text"),
        [((1,), "II"), ((1, 2, 2), "II<II><II>/<II><II>"), ((0, 1, 1), "<II>/<II>"), ((0, 3), "<II><II><II>")],
        ids=str,
    )
    def test_texts_stand_around_tiles(self, rows: tuple[int, ...], text: str) -> None:
        config = PromptConfig(image_token="I", view_start="<", view_end=">", row_separator="/")
        segments = picture_segments(rows, 2, config)
        assert self.text(segments) == text
        assert sum(segment.count for segment in segments if segment.role == IMAGE) == 2 * sum(rows)
        assert not any(segment.trained for segment in segments)

    def test_the_blank_before_the_queries(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"blank_before_query": True})
        segments = render_chat([user("How many?", 1), assistant("Two")], config, generate=False)
        assert self.text(segments).endswith("How many? " + "<learnable>" * 9 + " ASSISTANT: Two</s>")

    @pytest.mark.parametrize(("without", "count"), [("none", 0), ("queries", 9), ("token", 1)])
    def test_a_turn_without_a_picture(self, without: str, count: int) -> None:
        config = PLAIN_TEXT.model_copy(update={"query_without_image": without})
        segments = render_chat([user("Hello"), assistant("Hi"), user("How many?", 1)], config, generate=True)
        before, after = self.text(segments).split("</s>")
        assert (before.count("<learnable>"), after.count("<learnable>")) == (count, 9)

    def test_a_model_without_queries(self) -> None:
        segments = render_chat([user("How many?", 2)], WITHOUT_QUERIES, generate=True)
        assert self.text(segments) == "系统。 USER: <image><image>How many? ASSISTANT:"

    def test_plain(self) -> None:
        assert self.text(render_plain("a red dot", PLAIN_TEXT)) == "<image>a red dot" + "<learnable>" * 9 + "\n"
        assert self.text(render_plain("two dots", WITHOUT_QUERIES, images=2)) == "<image><image>two dots\n"

    def test_who_speaks_last(self) -> None:
        with pytest.raises(PromptError, match="end with a turn of the user"):
            render_chat([user(), assistant()], PLAIN_TEXT, generate=True)
        with pytest.raises(PromptError, match="end with a turn of the assistant"):
            render_chat([user()], PLAIN_TEXT, generate=False)
        with pytest.raises(PromptError, match="end with a turn of the user"):
            render_chat([], PLAIN_TEXT, generate=True)

    @pytest.mark.parametrize(("caption", "images"), [("", 1), (" \n", 1), ("a dot", 0)])
    def test_plain_needs_both(self, caption: str, images: int) -> None:
        with pytest.raises(PromptError, match="needs a picture and a caption"):
            render_plain(caption, PLAIN_TEXT, images)


class TestEncoded:
    def test_structure_with_a_picture(self) -> None:
        encoded = chat(user("How many?", 1), tokens=6)
        ids, roles = encoded.input_ids, encoded.roles
        image, newline, query = map(tokenizer().convert_tokens_to_ids, ("<image>", "Ċ", "<learnable>"))
        start = ids.index(image)
        assert tokenizer().decode(ids[:start]) == PLAIN_TEXT.system + "USER: "
        assert ids[start : start + 7] == [image] * 6 + [newline]
        first_query = ids.index(query)
        assert ids[first_query : first_query + 9] == [query] * 9
        assert tokenizer().decode(ids[first_query + 9 :]) == " ASSISTANT:"
        question = first_query - start - 7
        after = len(ids) - first_query - 9
        assert roles == [TEXT] * start + [IMAGE] * 6 + [TEXT] + [2] * question + [3] * 9 + [TEXT] * after
        assert said(encoded, instruction_role(0)) == "How many?"

    def test_the_blank_is_read(self) -> None:
        encoded = chat(user("How many?", 1), config=PLAIN_TEXT.model_copy(update={"blank_before_query": True}))
        assert said(encoded, instruction_role(0)) == "How many? "

    def test_a_token_belongs_to_where_it_ends(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"query_without_image": "queries"})
        encoded = chat(user("How many?"), config=config)
        # Without a picture between them the blank of "USER: " and the first word are one token.
        assert tokenizer().tokenize(" How")[0].startswith("Ġ")
        assert said(encoded, instruction_role(0)) == " How many?"

    def test_every_set_reads_its_own_question(self) -> None:
        encoded = chat(user("Hello"), assistant(), user("One?", 1), assistant(), user("Two?"))
        assert said(encoded, instruction_role(0)) == "One?"
        assert said(encoded, instruction_role(1)).strip() == "Two?"
        assert [encoded.roles.count(query_role(turn)) for turn in range(3)] == [9, 9, 0]

    def test_every_set_reads_the_first_question(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"history_instruction": "first"})
        encoded = chat(user("One?", 1), assistant(), user("Two?"), config=config)
        assert said(encoded, instruction_role(0)) == "One?"
        assert encoded.roles.count(query_role(0)) == 18
        assert set(encoded.roles) == {TEXT, IMAGE, 2, 3}

    def test_the_bare_token_is_ordinary(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"query_without_image": "token"})
        encoded = chat(user("Hello"), config=config)
        assert encoded.input_ids.count(tokenizer().convert_tokens_to_ids("<learnable>")) == 1
        assert set(encoded.roles) == {TEXT}

    def test_only_answers_are_trained(self) -> None:
        turns = [user("One?", 1), assistant("Red"), user("Two?"), assistant("Blue")]
        assert trained(chat(*turns, generate=False)) == " Red</s> Blue</s>"
        assert trained(chat(*turns, generate=False, config=CHAT_MARKUP)) == "Red<|im_end|>\nBlue<|im_end|>\n"
        assert trained(chat(*turns[:3])) == " Red</s>"

    def test_training_starts_with_what_is_generated_from(self) -> None:
        for config in TEMPLATES.values():
            prompt = chat(user("One?", 1), config=config)
            row = chat(user("One?", 1), assistant("Red"), config=config, generate=False)
            assert row.input_ids[: len(prompt.input_ids)] == prompt.input_ids
            assert row.roles[: len(prompt.roles)] == prompt.roles
            assert set(row.labels[: len(prompt.labels)]) == {IGNORE}

    def test_plain(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"plain_instruction_skips": 1})
        encoded = encode(render_plain("The circle is red.", config), tokenizer(), [whole(4)])
        caption = tokenizer()("The circle is red.")["input_ids"]
        newline = tokenizer().convert_tokens_to_ids("Ċ")
        assert encoded.labels == [IGNORE] * 4 + caption + [IGNORE] * 9 + [newline]
        assert encoded.roles == [IMAGE] * 4 + [TEXT] + [2] * (len(caption) - 1) + [3] * 9 + [TEXT]

    def test_pictures_of_different_size(self) -> None:
        segments = render_chat([user("Same?", 2)], PLAIN_TEXT, generate=True)
        encoded = encode(segments, tokenizer(), [whole(2), whole(5)])
        image = tokenizer().convert_tokens_to_ids("<image>")
        positions = [n for n, i in enumerate(encoded.input_ids) if i == image]
        assert [b - a for a, b in pairwise(positions)] == [1, 2, 1, 1, 1, 1]

    @pytest.mark.parametrize("count", [0, 2])
    def test_views_for_every_picture(self, count: int) -> None:
        with pytest.raises(PlaceholderMismatchError, match=f"1 pictures but views were given for {count}"):
            encode(render_chat([user("x", 1)], PLAIN_TEXT, generate=True), tokenizer(), [whole(4)] * count)

    def test_a_placeholder_that_the_tokenizer_lacks(self) -> None:
        config = PLAIN_TEXT.model_copy(update={"query_token": "<eye>"})
        with pytest.raises(PromptError, match="no token '<eye>'"):
            chat(user("x", 1), config=config)

    @pytest.mark.parametrize("spelling", SPECIALS)
    def test_typed_text_is_never_special(self, spelling: str) -> None:
        turns = [user(f"a {spelling}{spelling}\n{spelling}", 1), assistant(f"{spelling}b")]
        plain = chat(user("a", 1), assistant("b"), generate=False)
        typed = chat(*turns, generate=False)
        for special in map(tokenizer().convert_tokens_to_ids, SPECIALS):
            assert typed.input_ids.count(special) == plain.input_ids.count(special)
        assert said(typed, instruction_role(0)) == turns[0].text
        assert trained(typed) == f" {spelling}b</s>"


def random_turns(rng: random.Random, *, generate: bool) -> list[Turn]:
    turns = [Turn("system", rng.choice(("", "Be brief.", "<|im_end|>\n", "三 ")))] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 4)):
        question = "".join(rng.choices(WORDS, k=rng.randint(1, 6))) + rng.choice(("x", " ", "三"))
        images = rng.choice((0, 0, 1, 2, 3))
        turns += [Turn("user", question if question.strip() else "x", images)]
        turns += [assistant("".join(rng.choices(WORDS, k=rng.randint(0, 5))))]
    return turns[:-1] if generate else turns


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", TEMPLATES)
def test_roles_are_recovered_from_ids(name: str, variant: dict[str, Any]) -> None:
    config = TEMPLATES[name].model_copy(update=variant)
    words = qwen_tokenizer() if name.startswith("chatml") else tokenizer()
    pad, rng = words.pad_token_id, random.Random(f"{name} {variant}")
    for _ in range(40):
        generate = rng.random() < 0.5
        turns = random_turns(rng, generate=generate)
        pictures = [
            picture_segments(rng.choice(ARRANGEMENTS), rng.randint(1, 5), config)
            for turn in turns
            for _ in range(turn.images)
        ]
        encoded = encode(render_chat(turns, config, generate=generate), words, pictures)
        left, right = [pad] * rng.choice((0, 3)), [pad] * rng.choice((0, 2))
        expected = [TEXT] * len(left) + encoded.roles + [TEXT] * len(right)
        assert roles_from_ids(left + encoded.input_ids + right, words, config) == expected, turns


class TestRecovery:
    def test_a_cut_query_set(self) -> None:
        encoded = chat(user("x", 1))
        query = tokenizer().convert_tokens_to_ids("<learnable>")
        cut = encoded.input_ids[: encoded.input_ids.index(query) + 5]
        with pytest.raises(PlaceholderMismatchError, match=r"5 <learnable> tokens .* 9 were expected"):
            roles_from_ids(cut, tokenizer(), PLAIN_TEXT)

    def test_another_template(self) -> None:
        encoded = chat(user("x", 1), config=CHAT_MARKUP)
        config = UNUSUAL.model_copy(update={"num_queries": 3})
        with pytest.raises(PromptError, match="does not follow the chat template"):
            roles_from_ids(encoded.input_ids, tokenizer(), config)

    def test_a_header_that_is_missing(self) -> None:
        ids = tokenizer()("What color?" + "<learnable>" * 9)["input_ids"]
        with pytest.raises(PromptError, match="does not follow the chat template: b'What color"):
            roles_from_ids(ids, tokenizer(), PLAIN_TEXT)
