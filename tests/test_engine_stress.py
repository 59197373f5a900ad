"""Hundreds of questions of all kinds, asked and called off from several threads: none is lost, and no memory."""

import gc
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers_vlm import picture, tiny_vlm
from saccade.engine import Engine
from saccade.errors import ImageError
from saccade.vlm import Conversation, Sampling

pytestmark = pytest.mark.slow

REQUESTS, THREADS = 500, 6


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def ask(engine: Engine, seed: int) -> str:
    """Ask something, and return what became of it."""
    dice = random.Random(seed)
    talk = Conversation()
    for turn in range(dice.randint(1, 3)):
        shown = [
            picture(dice.randrange(40), dice.randint(8, 90), dice.randint(8, 90)) for _ in range(dice.randint(0, 1))
        ]
        if dice.random() < 0.05:
            shown = [b"no picture"]
        talk = (talk.reply("Yes.") if turn else talk).ask("?" * dice.randint(1, 30), shown)
    options = {"temperature": 0.8, "seed": seed} if dice.random() < 0.3 else {}
    ticket = engine.submit(talk, Sampling(max_new_tokens=dice.randint(1, 12), **options))
    if dice.random() < 0.2:
        threading.Timer(dice.random() / 50, ticket.cancel).start()
    try:
        answer = ticket.result(120)
    except ImageError:
        return "error"
    if answer.finish_reason == "length":
        assert answer.new_tokens == ticket.sampling.max_new_tokens
    return answer.finish_reason


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident size is read from /proc")
def test_nothing_is_lost_and_nothing_leaks() -> None:
    with Engine(tiny_vlm(), slots=5, length=350, picture_megabytes=1, prefix_megabytes=1) as engine:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: ask(engine, n), range(REQUESTS)))
            before = resident()
            outcomes = list(pool.map(lambda n: ask(engine, n), range(REQUESTS, 2 * REQUESTS)))
        assert resident() < 1.03 * before
        assert len(outcomes) == REQUESTS
        assert {"length", "error"} <= set(outcomes)
        report = engine.report()
        assert report["pictures"]["evictions"] > 0 < report["prefixes"]["evictions"]
