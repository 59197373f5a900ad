"""The bridges to the toolkits, as far as they can be tested without them: see tests/bridges for the rest."""

import re
import sys
import threading
import tomllib
import warnings
from pathlib import Path

import pytest

import saccade
from helpers_vlm import picture
from saccade.errors import ConfigError, DataError, SaccadeWarning
from saccade.evaluate.benchmarks import BENCHMARKS
from saccade.evaluate.bridges.asking import Asker
from saccade.evaluate.bridges.talks import conversation, sampling
from saccade.evaluate.bridges.tasks import tasks
from saccade.evaluate.papers import names, paper
from saccade.vlm import Conversation, Sampling

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import write_benchmarks

REPO = Path(__file__).resolve().parents[1]
QUESTION = "What color is the circle?"


@pytest.fixture(scope="module")
def asker():
    opened = Asker("nano", device="cpu", dtype=None, at_once=3, length=256)
    yield opened
    opened.close()


def test_answers_come_in_order_and_are_those_of_asking_alone(asker: Asker) -> None:
    vlm = saccade.load()
    asked = [(picture(number, 40 + number, 50), f"{QUESTION} " * (1 + number % 3)) for number in range(11)]
    talks = ((Conversation().ask(text, (image,)), Sampling(max_new_tokens=6)) for image, text in asked)
    said = [answer.text for answer in asker.answers(talks)]
    assert said == [vlm.ask(image, text, max_new_tokens=6).text for image, text in asked]


def test_questions_come_from_any_thread(asker: Asker) -> None:
    talks = [Conversation().ask(QUESTION, (picture(number, 40, 40),)) for number in range(4)]
    alone = [asker.submit(talk, Sampling()).result().text for talk in talks]
    said: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: said.update({n: asker.submit(talks[n], Sampling()).result().text}))
        for n in range(len(talks))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said[n] for n in range(len(talks))] == alone


def test_an_answer_gets_the_room_that_is_left_and_that_is_said(asker: Asker) -> None:
    talk = Conversation().ask(QUESTION, (picture(0, 40, 40),))
    with pytest.warns(SaccadeWarning, match="may take 2000 tokens.*256 together"):
        ticket = asker.submit(talk, Sampling(max_new_tokens=2000))
    assert ticket.sampling.max_new_tokens + ticket.result().prompt_tokens == 256
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asker.submit(talk, Sampling(max_new_tokens=ticket.sampling.max_new_tokens)).result()


def test_turns_become_a_conversation() -> None:
    turns = [
        ("user", [("image", "a.png"), ("image", "b.png"), ("text", "Which?")]),
        ("assistant", [("text", "The first.")]),
        ("user", [("text", "And now?"), ("image", "c.png")]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        talk = conversation(turns)
    first = Conversation().ask("Which?", ("a.png", "b.png")).reply("The first.")
    last = {"role": "user", "content": [{"type": "text", "text": "And now?"}, {"type": "image"}]}
    assert talk == Conversation((*first.messages, last), ("a.png", "b.png", "c.png"))


def test_a_picture_between_words_is_told() -> None:
    with pytest.warns(SaccadeWarning, match="all pictures first"):
        conversation([("user", [("text", "Look at"), ("image", "a.png"), ("text", "closely.")])])


def test_a_video_is_refused() -> None:
    with pytest.raises(DataError, match="holds video: choose a task of words and pictures"):
        conversation([("user", [("video", "a.mp4"), ("text", "What happens?")])])


def test_settings_of_a_task() -> None:
    assert sampling({"until": ["\n"], "do_sample": False}, 2000, 3) == Sampling(max_new_tokens=2000, seed=3)
    drawn = {"max_new_tokens": 7, "temperature": 0.2, "top_p": None, "num_beams": 1}
    assert sampling(drawn, 2000, 3) == Sampling(max_new_tokens=7, temperature=0.2, seed=3)
    assert sampling({"max_new_tokens": None, "temperature": 0, "top_p": 0}, 9, 3) == Sampling(max_new_tokens=9, seed=3)
    with pytest.raises(ConfigError, match="top_p is 0"):
        sampling({"temperature": 0.2, "top_p": 0}, 9, 3)
    with pytest.raises(ConfigError, match="5 beams: set num_beams=1"):
        sampling({"num_beams": 5}, 2000, 0)


@pytest.mark.parametrize("name", names())
def test_every_benchmark_of_a_paper_has_its_task_and_no_other(name: str) -> None:
    assert [*tasks(name)] == [scored.column for scored in paper(name).benchmarks]


@pytest.mark.parametrize(("name", "scored"), [(name, one) for name in names() for one in paper(name).benchmarks])
def test_sets_are_asked_here_as_the_task_says(name: str, scored) -> None:
    if scored.set is not None:
        protocol, task = BENCHMARKS[scored.set].protocols[name], tasks(name)[scored.column]
        assert protocol.max_new_tokens == task.max_new_tokens
        suffixes = (protocol.suffix, protocol.suffix_chinese or protocol.suffix)
        assert task.prompt.endswith(suffixes)


def test_an_unknown_paper_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tasks of 'nobody' are known: choose one of flashsloth, flashvl"):
        tasks("nobody")


def test_the_page_is_what_the_tool_writes() -> None:
    assert write_benchmarks.PAGE.read_text(encoding="utf-8") == write_benchmarks.to_markdown(), (
        "docs/benchmarks.md is not what `python tools/write_benchmarks.py` writes"
    )


def test_lmms_eval_finds_the_bridge_by_its_entry_point() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["entry-points"]["lmms_eval.models"]["saccade"].partition(":")
    source = (REPO / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(\)", source, re.MULTILINE)
