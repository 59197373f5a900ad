"""Records: intervals draw what hangs together as one, a record that is not whole is refused, and two are told apart."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval_small import judge, sample, tiny_set
from helpers_vlm import tiny_vlm
from saccade.errors import DataError
from saccade.evaluate.benchmarks import Sample
from saccade.evaluate.bootstrap import intervals
from saccade.evaluate.compare import Change, compare
from saccade.evaluate.records import RECORD, ROWS, Record, load_record, scores, write_record
from saccade.vlm.ledger import fingerprint, weights_hash

CONDITIONS: dict[str, Any] = {
    "benchmark": "tiny",
    "model": {"weights": "abc", "config": {"compressor": {"window": 3}}},
    "prompt": {"protocol": "paper", "texts": "hash"},
    "decoding": {"max_new_tokens": 5},
    "image": {"side": 24},
    "dtype": "float32",
    "engine": {"path": "plain"},
    "versions": {"torch": "2"},
    "set": {"samples": 4, "fingerprint": "hash"},
    "made": {"machine": "here"},
}


def row(asked: Sample, said: str, blind: str = "") -> dict[str, Any]:
    return {
        **{"key": asked.key, "group": asked.group, "unit": asked.unit, "prompt": asked.prompt},
        **{"answers": list(asked.answers), "details": dict(asked.details), "pictures": ["aa"]},
        **{"said": said, "finish_reason": "stop", "judged": judge(asked, said)},
        **{"said_blind": blind, "judged_blind": judge(asked, blind)},
    }


def rows(right: Sequence[bool], each: int = 1) -> list[dict[str, Any]]:
    """A row per sample, `each` following ones a unit."""
    asked = [sample(n, "yes", unit=f"unit {n // each}", pictures=()) for n in range(len(right))]
    return [row(one, "yes" if good else "no", "yes") for one, good in zip(asked, right, strict=True)]


def record(folder: Path, content: Sequence[dict[str, Any]], **conditions: Any) -> Record:
    folder.mkdir()
    (folder / ROWS).write_text("".join(json.dumps(line) + "\n" for line in content))
    return write_record(folder, tiny_set([]), CONDITIONS | conditions, {"model": "m"})


def test_an_interval_of_a_mean_is_what_statistics_says() -> None:
    """100 fair coins: the mean is 0.5, its standard error 0.05, and 95 % lie within 1.96 of it."""
    coins = np.arange(100) % 2
    low, high = intervals(100, lambda drawn: coins[drawn].mean())
    assert low == pytest.approx(0.5 - 0.098, abs=0.015)
    assert high == pytest.approx(0.5 + 0.098, abs=0.015)
    again = intervals(100, lambda drawn: [coins[drawn].mean(), 1 - coins[drawn].mean()])
    assert again.shape == (2, 2)
    assert again[:, 0].tolist() == [low, high]


def test_what_hangs_together_is_drawn_as_one() -> None:
    """Ten answers in two units, one all right and one all wrong: a draw of two units is 0, 1/2 or 1."""
    found = scores(tiny_set([]), rows([True] * 5 + [False] * 5, each=5))["accuracy"]
    assert found == {"value": 0.5, "interval": [0, 1], "blank": 1}
    low, high = scores(tiny_set([]), rows([True] * 5 + [False] * 5))["accuracy"]["interval"]
    assert 0 < low < 0.5 < high < 1


def test_a_group_that_a_draw_leaves_out_has_an_interval_all_the_same() -> None:
    found = scores(tiny_set([]), rows([True, False, True]))
    assert list(found) == ["accuracy", "even", "odd"]
    assert found["odd"] == {"value": 0, "interval": [0, 0], "blank": 1}
    assert found["even"]["value"] == 1


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record(tmp_path / "a", rows([True, False]))
    assert load_record(tmp_path / "a") == written
    assert {path.name for path in (tmp_path / "a").iterdir()} == {RECORD, ROWS}
    assert written.headline == ("accuracy", {"value": 0.5, "interval": [0, 1], "blank": 1})


def test_a_path_that_is_no_text_does_not_cost_the_record(tmp_path: Path) -> None:
    folder = record(tmp_path / "a", rows([True])).folder
    written = write_record(folder, tiny_set([]), CONDITIONS, {"path": "caf\udce9"})
    assert load_record(folder).header["origin"] == written.header["origin"] == {"path": "caf\udce9"}


def test_a_record_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no record: name the folder"):
        load_record(tmp_path / "nowhere")
    folder = record(tmp_path / "a", rows([True, False])).folder
    with pytest.raises(DataError, match="holds no record: name the folder"):
        load_record(folder / RECORD)
    lines = (folder / ROWS).read_text()
    (folder / ROWS).write_text(lines.replace('"no"', '"yes"'))
    with pytest.raises(DataError, match=r"is not what record\.json beside it was made of"):
        load_record(folder)
    (folder / ROWS).write_text(lines)
    header = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(header | {"record": 99}))
    with pytest.raises(DataError, match="form 99"):
        load_record(folder)
    (folder / RECORD).write_text("[]")
    with pytest.raises(DataError, match="cannot be read"):
        load_record(folder)
    (folder / RECORD).unlink()
    with pytest.raises(DataError, match="no finished record: repeat the command"):
        load_record(folder)


def test_the_same_record_differs_in_nothing(tmp_path: Path) -> None:
    a = record(tmp_path / "a", rows([True, False, True]))
    found = compare(a, a, tiny_set([]))
    assert (found.changes, found.flips, found.both, found.only_a, found.only_b) == ((), (), 3, 0, 0)
    assert all(shift.difference == 0 and shift.interval == (0, 0) and not shift.sure for shift in found.shifts)


def test_what_differs_is_told_most_telling_first(tmp_path: Path) -> None:
    a = record(tmp_path / "a", rows([True, False]))
    other = rows([True, False])
    other[1] = other[1] | {"prompt": "What, exactly?", "pictures": ["bb"]}
    b = record(
        tmp_path / "b",
        other,
        dtype="bfloat16",
        versions={"torch": "3"},
        prompt={"protocol": "paper", "texts": "other"},
        model={"weights": "abc", "config": {"compressor": {"window": 2, "dropout": 0.5}}},
    )
    assert compare(a, b, tiny_set([])).changes == (
        Change("model.config.compressor.window", 3, 2),
        Change("model.config.compressor.dropout", None, 0.5),
        Change("prompt.text", a.rows[1]["prompt"], "What, exactly?", samples=1),
        Change("dtype", "float32", "bfloat16"),
        Change("versions.torch", "2", "3"),
        Change("set.pictures", ["aa"], ["bb"], samples=1),
    )


def test_a_difference_is_a_paired_one(tmp_path: Path) -> None:
    """In each of 20 units of four, B has one answer more right: however units are drawn, it is better by a quarter."""
    a = record(tmp_path / "a", rows([number % 8 < 4 and number % 4 < 2 for number in range(80)], each=4))
    better = [(number % 8 < 4 and number % 4 < 2) or number % 4 == 3 for number in range(80)]
    found = compare(a, record(tmp_path / "b", rows(better, each=4)), tiny_set([]))
    shift = found.shifts[0]
    assert (shift.name, shift.a, shift.b, shift.difference) == ("accuracy", 0.25, 0.5, 0.25)
    assert shift.interval == (0.25, 0.25)
    assert shift.sure
    assert [flip.key for flip in found.flips] == [f"tiny/{number}" for number in range(3, 80, 4)]
    assert {(flip.said_a, flip.said_b, flip.score_a, flip.score_b) for flip in found.flips} == {("no", "yes", 0, 1)}
    assert json.loads(json.dumps(found.to_dict()))["shifts"][0]["difference"] == 0.25


def test_a_part_is_compared_with_the_same_part_of_the_whole(tmp_path: Path) -> None:
    whole = record(tmp_path / "a", rows([True, True, False, False]))
    part = record(tmp_path / "b", rows([True, False, False])[1:])
    found = compare(whole, part, tiny_set([]))
    assert (found.both, found.only_a, found.only_b) == (2, 2, 0)
    assert (found.shifts[0].a, found.shifts[0].b) == (0.5, 0)


def test_records_with_nothing_in_common_are_not_compared(tmp_path: Path) -> None:
    a = record(tmp_path / "a", rows([True, True])[:1])
    b = record(tmp_path / "b", rows([True, True])[1:])
    with pytest.raises(DataError, match="share no sample"):
        compare(a, b, tiny_set([]))
    other = replace(b, header={**b.header, "benchmark": "other"})
    with pytest.raises(DataError, match="records of other, tiny cannot be compared"):
        compare(a, other, tiny_set([]))


def test_weights_have_one_name_in_every_dtype_that_holds_them() -> None:
    vlm = tiny_vlm()
    name, whole = weights_hash(vlm.model), fingerprint(vlm.model)
    assert name == weights_hash(tiny_vlm().model) != weights_hash(tiny_vlm(1).model)
    narrow = vlm.model.to(torch.bfloat16)
    rounded = weights_hash(narrow)
    assert rounded != name
    assert weights_hash(narrow.float()) == rounded
    with torch.no_grad():
        next(vlm.model.parameters()).view(-1)[0] += 1
    assert weights_hash(vlm.model) != rounded
    assert fingerprint(vlm.model) != whole


@pytest.mark.parametrize("side", [0, 1])
def test_weights_in_another_order_have_another_name(side: int) -> None:
    layer = torch.nn.Linear(3, 4)
    name = weights_hash(layer)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.flip(side))
    assert weights_hash(layer) != name
