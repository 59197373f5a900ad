"""Formats: what a record becomes, and what is said of one that is no row; the page shows rows that are some."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llava_talks import SHOWN, TALK
from saccade.data.formats import parse_row
from saccade.data.records import Record
from saccade.data.rows import CaptionRow, ChatRow, PreferenceRow, ProblemRow, RowError
from saccade.prompt import Turn

HERE = Path("here")
ASKED = TALK[0]


def row(kind: str, **fields: Any) -> Any:
    return parse_row(Record("rows.jsonl:7", fields, HERE), kind)


def test_llava_rows_show_pictures_where_their_placeholders_stand():
    talk = [{"from": "system", "value": "Be brief."}, *SHOWN, {"from": "human", "value": "And \n<image>"}, TALK[1]]
    found = row("chat", image=["a.png", "b.png"], conversations=talk, id=3)
    assert isinstance(found, ChatRow)
    assert found.pictures == (HERE / "a.png", HERE / "b.png")
    assert found.turns == (
        Turn("system", "Be brief."),
        Turn("user", "What?", images=1),
        Turn("assistant", "a cat"),
        Turn("user", "And", images=1),
        Turn("assistant", "Hello"),
    )


def test_texts_without_placeholders_keep_every_blank():
    talk = [{"from": "human", "value": " Hi \n"}, {"from": "gpt", "value": "\n Hello "}]
    assert [turn.text for turn in row("chat", conversations=talk).turns] == [" Hi \n", "\n Hello "]


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("<image>Which?", {"images": ["a.png"]}),
        ([{"type": "image"}, {"type": "text", "text": "Which?"}], {"image": "a.png"}),
        ([{"type": "image", "path": "a.png", "text": None}, {"type": "text", "text": "Which?", "path": None}], {}),
    ],
)
def test_messages_in_chat_form(content, fields):
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "left"}]
    found = row("chat", messages=messages, **fields)
    assert found.turns == (Turn("user", "Which?", images=1), Turn("assistant", "left"))
    assert found.pictures == (HERE / "a.png",)


def test_captions_come_as_pairs_or_as_an_answer():
    pair = row("captions", image="a.png", caption="a cat ")
    answer = row("captions", image="a.png", conversations=SHOWN)
    assert isinstance(pair, CaptionRow)
    assert (pair.caption, answer.caption) == ("a cat ", "a cat")
    assert pair.pictures == answer.pictures == (HERE / "a.png",)


def test_preferences_and_problems_ask_about_all_their_pictures():
    better = row("preferences", image="a.png", prompt="Is there a dog?", chosen="No.", rejected="Yes.")
    assert isinstance(better, PreferenceRow)
    assert better.turns == (Turn("user", "Is there a dog?", images=1),)
    assert (better.chosen, better.rejected) == ("No.", "Yes.")
    talk = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "?"}]
    later = [*talk, {"role": "user", "content": "Why?"}]
    assert row("preferences", image="a.png", prompt=later, chosen="b", rejected="c").turns[-1] == Turn("user", "Why?")
    problem = row("problems", images=["a.png", "b.png"], problem="<image><image>Sum?", solution="7")
    assert isinstance(problem, ProblemRow)
    assert (problem.turns, problem.solution) == ((Turn("user", "Sum?", images=2),), "7")
    assert row("problems", problem="2 + 2?", solution="4").pictures == ()


@pytest.mark.parametrize(
    ("kind", "fields", "reason", "said"),
    [
        ("chat", {}, "malformed", "neither conversations nor messages"),
        ("chat", {"conversations": "Hi"}, "malformed", "no list of messages"),
        ("chat", {"conversations": [{"from": "alien", "value": "Hi"}]}, "unknown role", "message 0 from 'alien'"),
        ("chat", {"conversations": [{"from": ["human"], "value": "Hi"}]}, "unknown role", "message 0 from"),
        ("chat", {"conversations": [ASKED, ASKED]}, "order of roles", "alternates"),
        ("chat", {"conversations": [ASKED]}, "order of roles", "ends with a question"),
        ("chat", {"conversations": []}, "order of roles", "empty"),
        ("chat", {"conversations": [ASKED, {"from": "gpt", "value": " \n"}]}, "empty answer", "message 1"),
        ("chat", {"conversations": [ASKED, {"from": "gpt", "value": 3}]}, "malformed", "message 1 without text"),
        ("chat", {"conversations": [{"from": "human", "value": " "}, TALK[1]]}, "malformed", "is empty"),
        ("chat", {"conversations": SHOWN}, "placeholder count", "0 pictures and 1 placeholders"),
        ("chat", {"conversations": TALK, "image": "a.png"}, "placeholder count", "1 pictures and 0 placeholders"),
        (
            "chat",
            {"conversations": [{"from": "human", "value": "Is <image> red?"}, TALK[1]], "image": "a.png"},
            "placeholder count",
            "inside a text",
        ),
        (
            "chat",
            {"conversations": [ASKED, {"from": "gpt", "value": "<image>"}], "image": "a.png"},
            "placeholder count",
            "message of the assistant",
        ),
        ("chat", {"conversations": SHOWN, "image": "https://a/b.png"}, "missing picture", "by its address"),
        ("chat", {"conversations": SHOWN, "image": {"bytes": None}}, "missing picture", "by None"),
        ("chat", {"conversations": SHOWN, "image": "a", "images": ["b"]}, "malformed", "both image and images"),
        ("captions", {"caption": "a cat"}, "missing picture", "no picture"),
        ("captions", {"caption": " ", "image": "a.png"}, "empty answer", "empty caption"),
        ("captions", {"conversations": SHOWN + TALK, "image": "a.png"}, "malformed", "several turns"),
        ("preferences", {"prompt": "Hi", "chosen": "a"}, "malformed", "no text rejected"),
        ("preferences", {"prompt": "Hi", "chosen": "a", "rejected": "a"}, "chosen equals rejected", "to itself"),
        ("preferences", {"prompt": TALK, "chosen": "a", "rejected": "b"}, "order of roles", "end it with a question"),
        ("problems", {"problem": " ", "solution": "4"}, "malformed", "empty problem"),
        ("problems", {"problem": "<image>?", "solution": "4"}, "placeholder count", "0 pictures"),
        ("problems", {"problem": "2 + 2?", "solution": ""}, "empty answer", "empty solution"),
    ],
)
def test_bad_rows_say_where_and_why(kind, fields, reason, said):
    with pytest.raises(RowError, match=said) as caught:
        row(kind, **fields)
    assert str(caught.value).startswith("rows.jsonl:7: ")
    assert (caught.value.where, caught.value.reason) == ("rows.jsonl:7", reason)


def test_a_worker_can_build_the_error_from_its_sentence():
    assert str(RowError(str(RowError.at("a:1", "is bad")))) == "a:1: is bad"


def documented() -> list[Any]:
    """Every row that the page shows, with the kind whose section it stands in."""
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (chat|captions|preferences|problems)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    return [
        (kind, json.loads(line))
        for kind, text in sections
        for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]


def test_the_page_shows_every_kind():
    assert {kind for kind, _ in documented()} == {"chat", "captions", "preferences", "problems"}


@pytest.mark.parametrize(("kind", "fields"), documented())
def test_rows_on_the_page_are_rows(kind, fields):
    assert row(kind, **fields).where == "rows.jsonl:7"
