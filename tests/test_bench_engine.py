"""The engine in the benches: cold unless it is to find something, on the weights of plain generation, with verdicts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers_vlm import tiny_config, tiny_vlm
from saccade.bench import rounds
from saccade.bench.engined import Engined, Room, engine_name, room_for
from saccade.bench.feeds import OwnFeed, lay_out
from saccade.bench.report import Target
from saccade.bench.rounds import Budget, interleaved
from saccade.bench.subjects import Generating, Pixels
from saccade.bench.tasks import Ask, picture
from saccade.cli.goals import verdicts
from saccade.cli.measuring import kept_result
from saccade.errors import ConfigError, PromptError
from saccade.model.model import SaccadeModel

ASK = Ask(60, 40, 20)


def plain(dtype: torch.dtype = torch.float32) -> Generating:
    model: Any = tiny_vlm().model.to(dtype)
    return Generating("tiny", model, OwnFeed(model.config))


def shown(rows: int) -> list[Pixels]:
    return [picture(ASK.width, ASK.height, seed) for seed in range(rows)]


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of views of every call of the tower."""
    calls: list[int] = []
    encode = SaccadeModel.encode_views

    def counted(self: SaccadeModel, pixel_values: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixel_values))
        return encode(self, pixel_values)

    monkeypatch.setattr(SaccadeModel, "encode_views", counted)
    return calls


def test_every_answer_begins_with_pixels(views: list[int]) -> None:
    subject = plain()
    engine = Engined(subject, room_for(subject.model.config, [ASK], new_tokens=5, rows=3))
    assert engine.name == engine_name("tiny")
    assert engine.weights == subject.weights
    assert engine.held > 0
    prepared = engine.prepare(shown(3), ASK.text_tokens)
    for _ in range(2):
        timeline = engine.generate(prepared, 5, watched=True)
        assert len(timeline.tokens) == 5
        assert list(timeline.tokens) == sorted(timeline.tokens)
        assert 0 < sum(timeline.stages.values()) < timeline.tokens[0]
        assert timeline.stages.keys() == {"preprocess", "vision", "compress"}
    assert views == [3, 3]
    assert engine.generate(prepared, 1).stages == {}


def test_a_second_question_finds_picture_and_prompt(views: list[int]) -> None:
    subject = plain()
    engine = Engined(subject, room_for(subject.model.config, [ASK], new_tokens=2))
    fed: list[int] = []
    handle = subject.model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args: fed.append(args[0].shape[1])
    )
    for _ in range(2):  # stores begin empty each time
        engine.second_question(shown(1)[0], ASK.text_tokens)
    engine.generate(engine.prepare(shown(1), ASK.text_tokens), 1)
    handle.remove()
    whole = engine.prepare(shown(1), ASK.text_tokens)
    beginning = ASK.text_tokens // 2 + whole.visual_tokens
    assert fed == [whole.prompt_tokens, whole.prompt_tokens - beginning] * 2 + [whole.prompt_tokens]
    assert views == [1, 1, 1]


def test_questions_differ_behind_the_picture_alone() -> None:
    config = tiny_config()
    first, second = (lay_out(config, 2, 20, reworded=reworded) for reworded in (False, True))
    changed = [place for place, pair in enumerate(zip(first.ids, second.ids, strict=True)) if pair[0] != pair[1]]
    assert changed
    assert changed[0] >= 10 + first.visual_tokens
    assert first.roles == second.roles
    assert len(first.ids) == 20 + first.visual_tokens + first.query_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_does_the_work_of_plain_generation(dtype: torch.dtype) -> None:
    subject = plain(dtype)
    engine = Engined(subject, room_for(subject.model.config, [ASK], new_tokens=1))
    counted = [way.count(way.prepare(shown(1), ASK.text_tokens)) for way in (subject, engine)]
    assert counted[0] == counted[1] > 0


def test_an_answer_that_does_not_fit_is_refused() -> None:
    engine = Engined(plain(), Room(slots=1, length=30))
    with pytest.raises(PromptError, match="slot holds 30"):
        engine.generate(engine.prepare(shown(1), ASK.text_tokens), 5)


def test_a_budget_is_shared_by_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(rounds, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += 10

    budget = Budget(90, parts=3)
    assert len(interleaved({"a": work}, 5, 0, spent=budget.share())["a"]) == 3
    assert budget.cut
    assert len(interleaved({"a": work}, 1, 0, spent=budget.share())["a"]) == 1
    assert len(interleaved({"a": work}, 9, 0, spent=budget.share())["a"]) == 5  # what the part before it left over
    now[0] = 1000
    assert len(interleaved({"a": work}, 5, 0, spent=budget.share())["a"]) == 1
    endless = Budget(None, parts=0)
    assert len(interleaved({"a": work}, 5, 0, spent=endless.share())["a"]) == 5
    assert not endless.cut


def measured(**changes: Any) -> dict[str, Any]:
    """A result of one model: the engine twice as fast to the first token, eight rows three times one."""
    ways = [
        {"rounds": {"first token": [4.0, 40.0, 4.0], "per token": [1.0, 1.0, 1.0]}},
        {
            "rounds": {"first token": [2.0, 20.0, 2.0], "per token": [0.5, 0.5, 0.5], "second question": [1.5] * 3},
            "share_of_read_rate": {"median": 0.85},
            "second_question_least_seconds": 1.2,
            "stages": [
                {"name": "decode image"},
                {"name": "first token", "least_seconds": 1.6},
                {"name": "per token", "least_seconds": 0.4},
            ],
        },
    ]
    batches = [
        {"batch": batch, "rounds": [rate * batch] * 3, "least_seconds": 0.1 * batch**0.5}
        for batch, rates in ((1, (1, 2)), (8, (0.5, 0.7)))
        for rate in rates
    ]
    result = {
        "bench": "model",
        "device": "cpu",
        "machine": "a machine",
        "model": "tiny",
        "new_tokens": 64,
        "views": 5,
        "ways": ways,
    }
    return result | {"batches": batches} | changes


def test_a_processor_is_measured_against_itself() -> None:
    found = [target.to_dict() for target in verdicts(measured())]
    assert [(target["value"], target["target"], target["met"], target["at_ceilings"]) for target in found] == [
        (0.5, 0.7, True, 0.4),
        (0.5, 0.6, True, 0.4),
        (0.85, 0.8, True, None),
        (0.85, 0.88, False, None),
        (3.0, 2.0, False, 3.0),
        (2.8, 3.0, False, 2.82843),
    ]
    assert len(verdicts(measured(new_tokens=32))) == 5
    assert verdicts(measured(device="cuda")) == []


def test_an_accelerator_is_measured_by_name() -> None:
    fast = {"device": "cuda", "machine": "NVIDIA H200", "new_tokens": 128}
    batches = [{"batch": 64, "rounds": [rate] * 3, "least_seconds": 0.64} for rate in (10.0, 70.0)]
    found = verdicts(measured(**fast, model="flashsloth", batches=batches))
    assert [(target.value, target.target, target.unit, target.at_ceilings) for target in found] == [
        (2000.0, 8.0, "ms", 1600.0),
        (2.0, 400.0, "tokens/s", 2.5),
        (7.0, 4.0, "ratio", 10.0),
        (7.0, 8.0, "ratio", 10.0),
        (70.0, 60.0, "answers/s", 100.0),
        (70.0, 120.0, "answers/s", 100.0),
    ]
    assert len(verdicts(measured(**fast, model="flashvl_iss"))) == 1
    assert verdicts(measured(**fast, model="flashvl_iss", views=3)) == []
    assert verdicts(measured(**fast)) == []
    assert verdicts(measured(**fast | {"machine": "another"}, model="flashsloth")) == []


def test_the_engine_is_compared_with_peers() -> None:
    rows = [
        {"task": task, "subject": name, "rounds": {"ttft": [seconds] * 5}}
        for task, seconds in (("1024 x 768", 1.0), ("448 x 448", 3.0))
        for name, seconds in ((engine_name("flashvl_static"), seconds), ("flashvl_static", 9.0), ("qwen2-vl-2b", 10.0))
    ]
    found = [target.to_dict() for target in verdicts({"bench": "flashvl", "rows": rows})]
    assert [(target["target"], target["met"]) for target in found] == [(0.12, True), (0.1, True), (None, None)]
    assert [target["value"] for target in found] == [0.1, 0.1, 0.3]
    assert verdicts({"bench": "flashvl", "rows": rows[:2]}) == []
    assert verdicts({"bench": "train", "exercises": []}) == []


def test_a_kept_file_of_an_earlier_version_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    ways = [{"rounds": {"first token": [1.0]}}, {"rounds": {"first token": [1.0]}}]
    kept.write_text(json.dumps(measured(ways=ways, targets=[])))
    with pytest.raises(ConfigError, match="lacks 'stages': an earlier version"):
        kept_result(kept)


def test_a_value_without_a_bound_has_no_verdict() -> None:
    assert Target("ratio", 0.3, None).to_dict()["met"] is None


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few"):
        room_for(tiny_config(), [Ask(60, 40, 3)], new_tokens=1)
