"""A model is asked a set: the answers are its own, and an interrupted run ends with the same record as another."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import saccade
from eval_small import NEW, PROTOCOL, question, sample, tiny_set
from helpers_vlm import picture, tiny_vlm
from killing import killed_and_repeated, seconds_of, server
from saccade.errors import DataError
from saccade.evaluate import items, predict, run
from saccade.evaluate.benchmarks import Samples
from saccade.evaluate.records import RECORD, ROWS, load_record
from saccade.evaluate.rendered import rendered_world
from saccade.evaluate.run import evaluate
from saccade.evaluate.world import BLANK_LEVEL
from saccade.vlm import VLM, Conversation, Sampling

HERE = Path("nowhere")
KILLS = 20
PRELOAD = ("saccade.evaluate.run", "saccade.evaluate.rendered", "test_evaluate_run")


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


def files(out: Path) -> tuple[bytes, bytes]:
    return (out / RECORD).read_bytes(), (out / ROWS).read_bytes()


def test_a_record_holds_what_the_model_says_alone(vlm: VLM, tmp_path: Path) -> None:
    said = [vlm.ask(picture(n, 20 + n % 5, 17), question(n), max_new_tokens=NEW).text for n in range(9)]
    assert len(set(said)) > 3, "the tiny model must tell these pictures apart"
    samples = [sample(n, said[n] if n % 3 else "wrong") for n in range(9)]
    samples += [sample(9, pictures=(picture(9), picture(10))), sample(10, pictures=())]
    told: list[tuple[str, int, int]] = []
    record = evaluate(vlm, tiny_set(samples), HERE, tmp_path, batch_size=3, progress=lambda *now: told.append(now))
    assert [row["said"] for row in record.rows[:9]] == said
    assert [row["judged"]["score"] for row in record.rows] == [float(n % 3 > 0) for n in range(9)] + [0, 0]
    gray = Image.new("RGB", (21, 17), (BLANK_LEVEL,) * 3)
    assert record.rows[1]["said_blind"] == vlm.ask(gray, question(1), max_new_tokens=NEW).text
    both = Conversation().ask(question(9), (picture(9), picture(10)))
    assert record.rows[9]["said"] == vlm.answer([both], Sampling(max_new_tokens=NEW))[0].text
    assert record.rows[9]["prompt"].count("<image>") == 2 == len(set(record.rows[9]["pictures"]))
    assert record.rows[10]["said"] == record.rows[10]["said_blind"]
    assert record.headline[0] == "accuracy"
    assert record.headline[1]["value"] == round(6 / 11, 4)
    assert record.header["prompt"]["template"] == vlm.processor.prompt.model_dump(mode="json")
    assert record.header["decoding"]["max_new_tokens"] == NEW
    assert record.header["cut"] == sum(row["finish_reason"] == "length" for row in record.rows) > 0
    assert [stage for stage, done, total in told if done == total] == ["asking", "resampling"]
    assert load_record(tmp_path) == record


def test_answers_do_not_depend_on_what_is_asked_beside_them(vlm: VLM, tmp_path: Path) -> None:
    samples = [sample(n, unit=f"{n // 2}") for n in range(12)]
    one, many = (evaluate(vlm, tiny_set(samples), HERE, tmp_path / f"{n}", batch_size=n) for n in (1, 7))
    assert files(one.folder) == files(many.folder)


def test_an_interrupted_run_goes_on_and_repeats_nothing(vlm: VLM, tmp_path: Path, monkeypatch: Any) -> None:
    samples = [sample(n) for n in range(10)]
    whole = evaluate(vlm, tiny_set(samples), HERE, tmp_path / "whole", batch_size=2)

    def stop(_: str, done: int, __: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        evaluate(vlm, tiny_set(samples), HERE, out, batch_size=2, progress=stop)
    with pytest.raises(DataError, match="no finished record"):
        load_record(out)
    (out / ROWS).write_bytes((out / ROWS).read_bytes()[:-5])
    asked: list[int] = []
    ask = run._ask
    monkeypatch.setattr(run, "_ask", lambda *given, **how: (asked.append(given[2].number), ask(*given, **how))[1])
    evaluate(vlm, tiny_set(samples), HERE, out, batch_size=2)
    assert asked == list(range(3, 10)), "the line that was torn is asked again, those before it are not"
    assert files(out) == files(whole.folder)


def test_a_folder_belongs_to_one_run(vlm: VLM, tmp_path: Path) -> None:
    samples = [sample(n) for n in range(3)]
    evaluate(vlm, tiny_set(samples), HERE, tmp_path)
    for change in ({"max_new_tokens": 2}, {"limit": 2}):
        with pytest.raises(DataError, match="belongs to a run with"):
            evaluate(vlm, tiny_set(samples), HERE, tmp_path, **change)
    with pytest.raises(DataError, match=r"with model\.weights '\w+', not '\w+': choose"):
        evaluate(tiny_vlm(1), tiny_set(samples), HERE, tmp_path)
    with pytest.raises(DataError, match=r"with set\.fingerprint '\w+', not '\w+': choose"):
        evaluate(vlm, tiny_set([*samples[:2], sample(2, "another answer")]), HERE, tmp_path)


def test_a_bad_picture_stops_the_run_or_counts_as_wrong(vlm: VLM, tmp_path: Path) -> None:
    samples = [sample(n, pictures=(b"a shopping list",)) if n == 3 else sample(n) for n in range(6)]
    samples[3] = replace(samples[3], answers=("",))  # even if saying nothing were right
    with pytest.raises(DataError, match=r"'tiny/3' of Tiny cannot be asked: .* not a picture.*--skip-bad"):
        evaluate(vlm, tiny_set(samples), HERE, tmp_path)
    assert len((tmp_path / ROWS).read_text().splitlines()) == 3
    record = evaluate(vlm, tiny_set(samples), HERE, tmp_path, skip_bad=True)
    assert [error["key"] for error in record.header["errors"]] == ["tiny/3"]
    assert record.rows[3]["judged"]["score"] == 0
    assert [row["finish_reason"] == "error" for row in record.rows] == [n == 3 for n in range(6)]


def test_a_prompt_that_does_not_fit_is_bad_too(vlm: VLM, tmp_path: Path) -> None:
    samples = [sample(0), replace(sample(1), prompt="long " * 100)]
    with pytest.raises(DataError, match=r"'tiny/1'.*tokens"):
        evaluate(vlm, tiny_set(samples), HERE, tmp_path)


def test_a_limit_of_the_protocol_gives_way_to_the_room_and_a_given_one_does_not(vlm: VLM, tmp_path: Path) -> None:
    samples, length = [sample(n) for n in range(4)], 110
    long = replace(tiny_set(samples), protocols={"paper": PROTOCOL.model_copy(update={"max_new_tokens": 2000})})
    record = evaluate(vlm, long, HERE, tmp_path / "room", length=length)
    for number, row in enumerate(record.rows):
        alone = vlm.ask(picture(number, 20 + number % 5, 17), question(number), max_new_tokens=row["max_new_tokens"])
        assert (row["said"], row["finish_reason"]) == (alone.text, alone.finish_reason)
        assert alone.prompt_tokens + row["max_new_tokens"] == length
    assert len({row["max_new_tokens"] for row in record.rows}) > 1
    assert record.header["shortened"] == len(samples)
    assert record.header["decoding"]["max_new_tokens"] == 2000
    assert record.header["decoding"]["length"] == length
    with pytest.raises(DataError, match=r"'tiny/0'.*may take 2000"):
        evaluate(vlm, long, HERE, tmp_path / "given", length=length, max_new_tokens=2000)
    roomy = evaluate(vlm, tiny_set(samples), HERE, tmp_path / "roomy")
    assert roomy.header["shortened"] == sum("max_new_tokens" in row for row in roomy.rows) == 0


def test_a_limit_takes_whole_units_from_everywhere(vlm: VLM, tmp_path: Path) -> None:
    samples = [sample(n, unit=f"pair {n // 2}") for n in range(12)]
    record = evaluate(vlm, tiny_set(samples), HERE, tmp_path, limit=3)
    assert [row["key"] for row in record.rows] == [f"tiny/{n}" for n in (0, 1, 4, 5, 8, 9)]
    assert record.header["set"]["units"] == 3
    with pytest.raises(DataError, match="limit is 0"):
        evaluate(vlm, tiny_set(samples), HERE, tmp_path / "none", limit=0)


def test_pictures_are_read_when_their_turn_comes(vlm: VLM, tmp_path: Path) -> None:
    read: list[int] = []
    ahead: list[int] = []

    def open_one(number: int) -> Image.Image:
        read.append(number)
        return picture(number)

    parts = [(sample(n, pictures=()), lambda n=n: open_one(n)) for n in range(20)]
    evaluate(
        vlm,
        tiny_set(Samples(parts)),
        HERE,
        tmp_path,
        batch_size=2,
        progress=lambda stage, done, _: ahead.append(len(read) - done) if stage == "asking" else None,
    )
    assert read == list(range(20)), "each once, in order"
    assert ahead[0] == 0
    assert max(ahead) <= 4


def test_the_rendered_world_is_a_set_like_any_other(vlm: VLM, tmp_path: Path) -> None:
    record = evaluate(vlm, rendered_world(("digits", "objects")), Path("test"), tmp_path, limit=8)
    assert {row["group"] for row in record.rows} == {"digits", "objects"} == set(list(record.header["scores"])[1:])
    known = [item for family in ("digits", "objects") for item in items(family, "test")]
    by_question = {(f"{item.family}/{item.scene}", item.question.text): item for item in known}
    asked = [by_question[row["unit"], row["prompt"].split("\n")[1].split("<learnable>")[0]] for row in record.rows]
    assert len({item.scene for item in asked}) < len(asked)
    assert [row["said"] for row in record.rows] == predict(vlm, asked)
    assert [row["said_blind"] for row in record.rows] == predict(vlm, asked, blank=True)


def nano_asked(out: Path) -> None:
    """Ask nano in this process."""
    torch.set_num_threads(1)
    evaluate(saccade.load("nano", device="cpu"), rendered_world(("digits",)), Path("test"), out, limit=25, batch_size=3)


def lines(out: Path) -> int:
    return (out / ROWS).read_bytes().count(b"\n") if (out / ROWS).exists() else 0


def test_a_killed_run_ends_with_the_same_record(tmp_path: Path) -> None:
    start = server(PRELOAD)
    straight = start(nano_asked, tmp_path / "straight")
    straight.join()
    assert straight.exitcode == 0
    out, killed = tmp_path / "killed", 0
    for reached in (1, 12, 24):
        process = start(nano_asked, out)
        while process.is_alive() and lines(out) < reached:
            time.sleep(0.001)
        process.kill()
        process.join()
        killed += process.exitcode != 0
    assert killed >= 2, "the runs were too quick to be killed"
    last = start(nano_asked, out)
    last.join()
    assert last.exitcode == 0
    assert files(out) == files(tmp_path / "straight")
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "straight").iterdir()}


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_record(tmp_path: Path) -> None:
    start = server(PRELOAD)
    seconds = seconds_of(start(nano_asked, tmp_path / "straight"))
    wanted = files(tmp_path / "straight")
    for out in killed_and_repeated(start, nano_asked, tmp_path, KILLS, seconds):
        assert files(out) == wanted
        for line in (out / ROWS).read_text().splitlines():
            json.loads(line)
        shutil.rmtree(out)
