"""Rows in training: checked before the first step, in an order that resumes, each as often as the stage says."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.encoder import Encoder
from saccade.data.mixed import Mixed
from saccade.data.sources import Source
from saccade.errors import ConfigError, DataError
from saccade.train import rows as rows_module
from saccade.train.loop import train_stage
from saccade.train.progress import StopOnInterrupt
from saccade.train.rows import Checked, open_checked
from saccade.train.stages import Group, Lora, Stage
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Listed, Preferences, Tuning, World
from saccade.train.tuning import TuningDataset, collator
from test_train import small_model

ALL = Group(pattern="compressor|projector|language_model|lm_head|query", lr=1e-3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five rows: two turns on a picture, two pictures, text alone, a tall picture, and another text."""
    for name, size in (("a", (60, 40)), ("b", (30, 90)), ("c", (50, 50))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    rows = [
        ("a.png", ["<image>\nWhich color?", "red", "And the shape?", "none"]),
        (["a.png", "b.png"], ["<image><image>\nAre both red?", "yes, both of them are red"]),
        (None, ["Say one.", "one"]),
        ("b.png", ["<image>\nTall?", "yes"]),
        (None, ["Say two.", "two"]),
    ]
    with (tmp_path / "talks.jsonl").open("w") as file:
        for pictures, texts in rows:
            talk = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
            row = {"conversations": talk} | ({} if pictures is None else {"image": pictures})
            file.write(json.dumps(row) + "\n")
    return tmp_path


def stage(folder: Path, **changes: Any) -> Stage:
    task = {"data": (Source(path=str(folder / "talks.jsonl"), kind="chat"),), "max_length": 120}
    task |= changes.pop("task", {})
    fields = {"name": "rows", "task": Tuning(**task), "groups": (ALL,), "steps": 4, "batch": 2} | changes
    return Stage(**{name: value for name, value in fields.items() if value is not None})


def encoder() -> Encoder:
    return Encoder(small_model().config, load_tokenizer("nano"))


class Numbers:
    """Rows that are their numbers."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def arranged(folder: Path, lengths: list[int], **changes: Any) -> tuple[TuningDataset, Mixed]:
    mixture = Mixed([Numbers(len(lengths))], [None], seed=3)
    return TuningDataset(Checked(mixture, [np.array(lengths)]), encoder(), stage(folder, **changes), 3), mixture


@pytest.mark.parametrize("order", ["drawn", "lengths", "packed"])
def test_every_row_comes_once_in_a_pass(folder: Path, order: str) -> None:
    lengths = np.random.default_rng(0).integers(10, 60, 390).tolist()
    data, mixture = arranged(folder, lengths, steps=None, epochs=2, batch=4, task={"order": order})
    groups = [data.rows_of(number) for number in range(len(data))]
    if order == "packed":
        groups = groups[: data.ends[-1]]
        assert max(sum(lengths[mixture[row]] for row in rows) for rows in groups) <= 120
        assert len(groups) < 0.7 * 780
    else:
        assert len(groups) == 780
    assert Counter(mixture[row] for rows in groups for row in rows) == dict.fromkeys(range(390), 2)
    assert len(data) == 4 * data.steps


def test_the_rows_of_a_step_are_of_one_length(folder: Path) -> None:
    lengths = np.random.default_rng(0).integers(10, 110, 400).tolist()
    gaps = {}
    for order in ("drawn", "lengths"):
        data, mixture = arranged(folder, lengths, steps=100, batch=4, task={"order": order})
        of_rows = np.array([lengths[mixture[data.rows_of(number)[0]]] for number in range(400)]).reshape(100, 4)
        gaps[order] = np.ptp(of_rows, axis=1).mean()
        assert len(set(of_rows.mean(axis=1)[:10])) > 3, "long and short steps take turns"
    assert gaps["lengths"] < 0.2 * gaps["drawn"]


def test_steps_without_passes_go_on_with_further_ones(folder: Path) -> None:
    for order in ("drawn", "lengths", "packed"):
        data, mixture = arranged(folder, [20] * 10, steps=30, batch=4, task={"order": order})
        seen = Counter(mixture[row] for number in range(len(data)) for row in data.rows_of(number))
        assert max(seen.values()) - min(seen.values()) <= 2, order


def test_bad_rows_stop_a_run_and_are_listed(folder: Path) -> None:
    file = folder / "talks.jsonl"
    for number in range(12):
        bad = {"image": f"missing{number}.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}
        bad["conversations"].append({"from": "gpt", "value": "it"})
        file.write_text(file.read_text() + json.dumps(bad) + "\n")
    asked = {"data": folder, "seed": 0}
    task = stage(folder).task
    with pytest.raises(
        DataError, match=r"12 of 17 rows.*talks\.jsonl:6 .*talks\.jsonl:15 .*; \.\.\..*--skip-bad"
    ) as told:
        open_checked(task, encoder(), folder / "notes", **asked)
    assert "talks.jsonl:16" not in str(told.value)
    checked = open_checked(task, encoder(), folder / "notes", skip_bad=True, **asked)
    assert len(checked.rows) == 5
    listed = [json.loads(line)["where"] for line in (folder / "notes" / "bad_rows.jsonl").read_text().splitlines()]
    assert [where.rpartition(":")[2] for where in listed] == [str(line) for line in range(6, 18)]
    assert all(checked.length(number) > 0 for number in range(5))


def test_a_check_is_recalled_until_the_rows_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = rows_module.check_rows
    monkeypatch.setattr(rows_module, "check_rows", lambda *args, **rest: calls.append(1) or real(*args, **rest))
    asked = {"data": folder, "seed": 0}
    task, speaker = stage(folder).task, encoder()
    lengths = [open_checked(task, speaker, folder / "notes", **asked).lengths[0].tolist() for _ in range(2)]
    assert lengths[0] == lengths[1]
    assert len(calls) == 1
    talks = (folder / "talks.jsonl").read_text().splitlines()
    (folder / "talks.jsonl").write_text("\n".join(talks[:3]) + "\n")
    assert len(open_checked(task, speaker, folder / "notes", **asked).rows) == 3
    assert len(calls) == 2


def test_sources_that_a_task_does_not_read_are_refused(folder: Path) -> None:
    asked = {"notes": folder / "notes", "data": folder, "seed": 0}
    wrong = Preferences(data=(Source(path=str(folder / "talks.jsonl"), kind="chat"),), max_length=99)
    with pytest.raises(ConfigError, match="holds chat, but a stage of preferences reads preferences"):
        open_checked(wrong, encoder(), **asked)
    with pytest.raises(DataError, match="nothing of the mixture"):
        open_checked(Tuning(data=(Listed(mixture="flashsloth"),), max_length=99), encoder(), **asked)
    with pytest.raises(DataError, match="data fetch flashsloth-llava"):
        open_checked(Tuning(data=(Listed(mixture="flashsloth-llava"),), max_length=99), encoder(), **asked)


def test_the_rendered_world_is_a_source_of_rows(folder: Path) -> None:
    task = Tuning(data=(World(families={"reasoning": 1.0}, rows=3, pictures=False),), max_length=400)
    checked = open_checked(task, encoder(), folder / "notes", data=folder, seed=0)
    assert len(checked.rows) == 3
    assert not checked.rows[0].pictures


def test_a_batch_asks_for_no_logits_and_holds_what_is_shown(folder: Path) -> None:
    speaker = encoder()
    for order in ("drawn", "packed"):
        asked = stage(folder, epochs=1, steps=None, task={"order": order})
        checked = open_checked(asked.task, speaker, folder / "notes", data=folder, seed=0)
        data = TuningDataset(checked, speaker, asked, 0)
        batch = collator(speaker, asked.task)([data[number] for number in range(len(data))])
        assert batch["logits_to_keep"] == 1
        assert len(batch["pixel_values"]) >= 4
        assert ("attention_mask" in batch) == (order == "drawn")


class _InterruptAt(StopOnInterrupt):
    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)
        return super().on_step_end(args, state, control, **rest)


@pytest.mark.parametrize("low", [False, True], ids=["whole", "lora"])
def test_resumed_equals_uninterrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, low: bool) -> None:
    """Over the end of a pass, with text-only rows, dropout and adapters."""
    groups = (ALL.model_copy(update={"lora": Lora(rank=2, dropout=0.1) if low else None}),)
    asked = stage(folder, groups=groups, task={"order": "drawn" if low else "lengths"})
    rest = {"log": folder / "log.jsonl", "seed": 3, "workers": 0}
    whole, parts, again = (small_model() for _ in range(3))
    tokenizer = load_tokenizer("nano")
    train_stage(whole, tokenizer, asked, folder / "whole", **rest)
    monkeypatch.setattr("saccade.train.loop.StopOnInterrupt", _InterruptAt)
    with pytest.raises(KeyboardInterrupt):
        train_stage(parts, tokenizer, asked, folder / "parts", **rest)
    monkeypatch.undo()
    train_stage(again, tokenizer, asked, folder / "parts", **rest)
    start = small_model().state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in whole.state_dict().items())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_stage_may_see_pictures_in_another_way_from_then_on(folder: Path) -> None:
    model = small_model()
    tiles = {"layout": "tiles", "tiles_per_side": 2}
    asked = stage(folder, steps=None, epochs=0.4, batch=1, image=tiles, task={"max_length": 400, "order": "packed"})
    train_stage(model, load_tokenizer("nano"), asked, folder / "stage", log=folder / "log.jsonl", seed=0, workers=0)
    assert model.config.image.layout == "tiles"
    assert {"rows.npz", "bad_rows.jsonl"} <= {path.name for path in (folder / "stage").iterdir()}
