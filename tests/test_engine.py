"""The engine gives the answers of plain generation, whoever is answered beside, and keeps what it may."""

import copy
import dataclasses
import random
import threading

import pytest
import torch
from transformers import Qwen2Config

from helpers_vlm import picture, tiny_vlm
from saccade.config import ImageConfig, PixelShuffleConfig, PromptConfig, QueryConfig
from saccade.engine import Engine
from saccade.engine.cpu import choose
from saccade.engine.loop import Loop
from saccade.engine.prompts import Prompt, Seen
from saccade.engine.runner import Runner
from saccade.engine.sampling import choose_tokens
from saccade.errors import ConfigError, EngineError, ImageError, PlaceholderMismatchError, PromptError
from saccade.vlm import VLM, Conversation, Event, Sampling

FAMILIES = {
    "pooled, queried": {},
    "queried twice": {"query": QueryConfig(num_queries=2, hidden_size=12, num_heads=2, before_layers=(1, 2))},
    "first instruction": {
        "prompt": PromptConfig(
            system="Be brief. ", query_token="<learnable>", num_queries=2, history_instruction="first"
        )
    },
    "tiled, shuffled": {
        "text_config": Qwen2Config(
            vocab_size=272,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=400,
            eos_token_id=258,
        ),
        "compressor": PixelShuffleConfig(window=2),
        "query": None,
        "query_token_id": None,
        "prompt": PromptConfig(system="Be brief. "),
        "image": ImageConfig(side=24, layout="dynamic", max_tiles=4),
    },
}
QUESTIONS = (
    "What is it?",
    "How many?",
    "What color is the thing on the left side?",
    "?",
    "Why do you say so, my friend?",
)


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def vlm(request: pytest.FixtureRequest) -> VLM:
    return tiny_vlm(**FAMILIES[request.param])


@pytest.fixture(scope="module")
def one() -> VLM:
    return tiny_vlm()


def requests(count: int, seed: int = 0) -> list[tuple]:
    """Questions about pictures of many shapes, some without one."""
    dice = random.Random(seed)
    shapes = [(31, 20), (24, 24), (20, 60), (70, 25)]
    return [
        (
            None if dice.random() < 0.2 else picture(dice.randrange(4), *dice.choice(shapes)),
            dice.choice(QUESTIONS),
        )
        for _ in range(count)
    ]


def ids(answers: list) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


def test_answers_are_those_of_plain_generation(vlm: VLM) -> None:
    asked = requests(9)
    expected = vlm.ask_batch(asked, max_new_tokens=12)
    assert len(set(ids(expected))) > 4
    engine = Engine(vlm, slots=3, length=300)
    for _ in range(2):  # the second time from what was kept
        answers = engine.ask_batch(asked, max_new_tokens=12)
        assert ids(answers) == ids(expected)
        assert [str(answer) for answer in answers] == [str(answer) for answer in expected]
        assert [answer.finish_reason for answer in answers] == [answer.finish_reason for answer in expected]
        assert [(a.prompt_tokens, a.image_tokens) for a in answers] == [
            (a.prompt_tokens, a.image_tokens) for a in expected
        ]


@pytest.mark.slow
def test_compiled_steps_choose_the_tokens_of_plain_ones(vlm: VLM) -> None:
    asked = requests(3)
    engine = Engine(vlm, slots=2, length=300, path="compiled")
    assert ids(engine.ask_batch(asked, max_new_tokens=8)) == ids(vlm.ask_batch(asked, max_new_tokens=8))
    drawn = {"max_new_tokens": 8, "temperature": 0.7, "seed": 1}
    assert ids(engine.ask_batch(asked, **drawn)) == ids(Engine(vlm, slots=2, length=300).ask_batch(asked, **drawn))


def test_weights_in_bfloat16_answer_as_the_same_weights_in_float32_do(
    vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor has no unit for bfloat16; one that has takes the same way if it is not told."""
    monkeypatch.setattr(choose, "_matrix_unit", lambda: None)
    half, whole = copy.deepcopy(vlm), copy.deepcopy(vlm)
    half.model.to(torch.bfloat16)
    whole.model.to(torch.bfloat16).float()
    asked = requests(6)
    engine = Engine(half, slots=3, length=300)
    assert "float32 activations" in engine.report()["linear"]
    assert ids(engine.ask_batch(asked, max_new_tokens=8)) == ids(whole.ask_batch(asked, max_new_tokens=8))


def test_turns_and_pictures_of_a_conversation(vlm: VLM) -> None:
    talk = Conversation().ask("What is it?", [picture(1), picture(2, 60, 20)]).reply("A dog.")
    talks = [
        talk.ask("And now?"),
        talk.ask("And this?", [picture(3)]),
        Conversation().ask("Hello!").reply("Hi.").ask("What is it?", [picture(1)]).reply("A cat.").ask("Sure?"),
    ]
    sampling = Sampling(max_new_tokens=10)
    expected = [vlm.answer([one], sampling)[0] for one in talks]
    engine = Engine(vlm, slots=2, length=399)
    for _ in range(2):
        tickets = [engine.submit(one, sampling) for one in talks]
        engine.drain()
        assert ids([ticket.result(0) for ticket in tickets]) == ids(expected)


def test_a_second_question_reuses_the_picture_and_the_prompt_before_it(one: VLM) -> None:
    engine = Engine(one, slots=2, length=200)
    first = engine.ask_batch([(picture(1), "What is it?")], max_new_tokens=4)
    assert engine.report()["prefixes"]["hits"] == 0
    engine.ask_batch([(picture(2), "What is it?")], max_new_tokens=4)
    assert engine.report()["prefixes"]["hits"] == 1  # the opening, which all prompts share
    second = engine.ask_batch([(picture(1), "How many?")], max_new_tokens=4)
    report = engine.report()
    assert report["prefixes"]["hits"] == 2
    assert report["pictures"]["hits"] == 1
    assert ids(first + second) == ids(
        one.ask_batch([(picture(1), "What is it?"), (picture(1), "How many?")], max_new_tokens=4)
    )


def test_without_room_nothing_is_kept_and_nothing_is_lost(one: VLM) -> None:
    engine = Engine(one, slots=2, length=200, prefix_megabytes=0, picture_megabytes=0)
    asked = requests(5)
    for _ in range(2):
        assert ids(engine.ask_batch(asked, max_new_tokens=6)) == ids(one.ask_batch(asked, max_new_tokens=6))
    assert engine.report()["prefixes"]["hits"] == 0


def test_a_drawn_answer_does_not_depend_on_what_is_answered_beside_it(one: VLM) -> None:
    options = {"max_new_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 3}
    alone = Engine(one, slots=1, length=200).ask_batch([(picture(1), "What is it?")], **options)[0]
    engine = Engine(one, slots=4, length=200)
    greedy = [engine.submit(Conversation().ask(text), Sampling(max_new_tokens=5)) for text in QUESTIONS[:3]]
    drawn = engine.submit(Conversation().ask("What is it?", [picture(1)]), Sampling(**options))
    engine.drain()
    assert drawn.result(0).token_ids == alone.token_ids
    assert ids([ticket.result(0) for ticket in greedy]) == ids(
        one.ask_batch([(None, text) for text in QUESTIONS[:3]], max_new_tokens=5)
    )
    other = Engine(one).ask_batch([(picture(1), "What is it?")], **{**options, "seed": 4})[0]
    assert other.token_ids != alone.token_ids


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    draws = (torch.arange(4000) + 0.5) / 4000
    each = torch.ones_like(draws)
    drawn = choose_tokens(logits.expand(4000, -1), each * 0.7, each, draws)
    expected = (logits[0] / 0.7).softmax(-1)
    assert torch.allclose(torch.bincount(drawn, minlength=4) / 4000, expected, atol=1e-3)
    kept = choose_tokens(logits.expand(4000, -1), each, each * 0.8, draws)
    mass = logits[0].softmax(-1)[1:3] / logits[0].softmax(-1)[1:3].sum()
    assert torch.allclose(torch.bincount(kept, minlength=4)[1:3] / 4000, mass, atol=1e-3)
    assert set(kept.tolist()) == {1, 2}
    assert choose_tokens(logits, torch.zeros(1), torch.ones(1), torch.rand(1)).tolist() == [1]


def test_the_answer_comes_in_pieces(one: VLM) -> None:
    with Engine(one, slots=2, length=200) as engine:
        events = list(engine.submit(Conversation().ask("What is it?", [picture(1)]), Sampling(max_new_tokens=12)))
    answer = events[-1].answer
    assert answer is not None
    assert (
        "".join(event.text for event in events)
        == answer.text
        == str(one.ask(picture(1), "What is it?", max_new_tokens=12))
    )
    assert all(event.answer is None for event in events[:-1])
    assert answer.timings.first_token > 0 < answer.timings.decode


def test_what_goes_wrong_is_told_to_whom_it_concerns(one: VLM) -> None:
    engine = Engine(one, slots=2, length=100)
    good = engine.submit(Conversation().ask("What is it?", [picture(1)]), Sampling(max_new_tokens=4))
    broken = engine.submit(Conversation().ask("What is it?", [b"no picture"]))
    long = engine.submit(Conversation().ask("?" * 90), Sampling(max_new_tokens=20))
    engine.drain()
    assert good.result(0).token_ids == one.ask(picture(1), "What is it?", max_new_tokens=4).token_ids
    with pytest.raises(ImageError):
        broken.result(0)
    with pytest.raises(ImageError):
        list(broken)
    with pytest.raises(PromptError, match="a slot holds 100 in all"):
        long.result(0)


def test_a_model_that_fails_fails_its_questions_and_the_engine_goes_on(
    one: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(one, slots=2, length=100)
    with monkeypatch.context() as patch:
        patch.setattr(one.model.model.language_model, "forward", lambda **_: 1 / 0)
        ticket = engine.submit(Conversation().ask("What?"))
        engine.drain()
    with pytest.raises(ZeroDivisionError):
        ticket.result(0)
    assert ids(engine.ask_batch([(None, "What?")], max_new_tokens=3)) == ids(
        one.ask_batch([(None, "What?")], max_new_tokens=3)
    )


def test_a_question_that_is_called_off_leaves_its_slot(one: VLM) -> None:
    engine = Engine(one, slots=1, length=300)
    ticket = engine.submit(Conversation().ask("What is it?"), Sampling(max_new_tokens=200))
    after = engine.submit(Conversation().ask("How many?"), Sampling(max_new_tokens=3))
    never = engine.submit(Conversation().ask("Why?"))
    for _ in range(5):
        engine.step()
    ticket.cancel()
    never.cancel()
    engine.drain()
    answer = ticket.result(0)
    assert answer.finish_reason == "cancelled"
    assert 4 <= answer.new_tokens <= 7
    assert after.result(0).token_ids == one.ask(None, "How many?", max_new_tokens=3).token_ids
    assert never.result(0).new_tokens == 0


def test_bad_settings_are_named(one: VLM) -> None:
    with pytest.raises(ConfigError, match="at least 1 slot"):
        Engine(one, slots=0)
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        Engine(one, path="graphs")
    with pytest.raises(ConfigError, match="no path 'quick'"):
        Engine(one, path="quick")
    with pytest.raises(ConfigError, match="0 to keep nothing"):
        Engine(one, prefix_megabytes=-1)
    engine = Engine(one)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(Conversation().ask("What?"))


def test_questions_behind_one_that_fails_are_answered(one: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(one, slots=1, length=200)
    encode = type(one.model.model).encode_views
    failures = iter([True, False, False])

    def sometimes(model: object, pixels: torch.Tensor) -> torch.Tensor:
        if next(failures):
            raise ZeroDivisionError
        return encode(model, pixels)

    monkeypatch.setattr(type(one.model.model), "encode_views", sometimes)
    tickets = [engine.submit(Conversation().ask("What?", [picture(n)]), Sampling(max_new_tokens=3)) for n in range(3)]
    engine.drain()
    failed = 0
    for ticket in tickets:  # the first to enter is the one whose picture was open first: any of the three
        try:
            assert ticket.result(0).new_tokens == 3
        except ZeroDivisionError:
            failed += 1
    assert failed == 1


def test_a_question_that_fails_does_not_fail_those_that_enter_with_it(one: VLM) -> None:
    engine = Engine(one, slots=4, length=200)
    good = one.encode(picture(1))
    bad = dataclasses.replace(good, patches=good.patches[:, :-1], key="bad")
    running = engine.submit(Conversation().ask("How many?"), Sampling(max_new_tokens=20))
    engine.step()
    tickets = [
        engine.submit(Conversation().ask("What?", [image]), Sampling(max_new_tokens=4)) for image in (good, bad, good)
    ]
    engine.drain()
    expected = one.ask(good, "What?", max_new_tokens=4).token_ids
    assert tickets[0].result(0).token_ids == tickets[2].result(0).token_ids == expected
    with pytest.raises(PlaceholderMismatchError, match="encode it with this model"):
        tickets[1].result(0)
    assert running.result(0).token_ids == one.ask(None, "How many?", max_new_tokens=20).token_ids


def test_numbers_that_are_not_finite_reach_nobody_else(one: VLM) -> None:
    engine = Engine(one, slots=1, length=200)
    spoiled = one.encode(picture(1))
    spoiled = dataclasses.replace(spoiled, patches=spoiled.patches * torch.nan, key="spoiled")
    broken = engine.submit(Conversation().ask("What?" * 8, [spoiled]), Sampling(max_new_tokens=4))
    engine.drain()
    with pytest.raises(EngineError, match="not finite"):
        broken.result(0)
    assert ids(engine.ask_batch([(None, "How many?")], max_new_tokens=8)) == ids(
        one.ask_batch([(None, "How many?")], max_new_tokens=8)
    )


def test_an_answer_may_end_where_its_slot_does_while_steps_are_on_their_way(
    one: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of fixed sizes, whose tokens are read one step late, as on a device that works on its own."""
    late = Runner.collect

    def collect(runner: Runner, *, wait: bool) -> list:
        return (
            late(runner, wait=wait)
            if len(runner._flights) > 2 or not any(e and e.wants for e in runner._in_work)
            else []
        )

    monkeypatch.setattr(Runner, "collect", collect)
    prompt = one.ask(None, "Why?", max_new_tokens=1).prompt_tokens
    for options in ({}, {"temperature": 0.7, "seed": 1}):
        engine = Engine(one, slots=3, length=prompt + 12)
        path = engine._runner.path
        engine._runner.path = dataclasses.replace(path, sizes=(1, 2, 3), stride=16)
        plain = Engine(one, slots=3, length=prompt + 12).ask_batch([(None, "Why?")] * 4, max_new_tokens=12, **options)
        assert ids(engine.ask_batch([(None, "Why?")] * 4, max_new_tokens=12, **options)) == ids(plain)


def test_an_engine_whose_thread_dies_leaves_nobody_waiting(one: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(one, slots=1, length=200)
    monkeypatch.setattr(Loop, "_let_in", lambda _: 1 / 0)
    ticket = engine.submit(Conversation().ask("What?"))
    with engine:
        with pytest.raises(ZeroDivisionError):
            ticket.result(30)
        engine._thread.join(30)
        with pytest.raises(EngineError, match="closed"):
            engine.submit(Conversation().ask("What?"))


def test_the_work_belongs_to_one_thread(one: VLM) -> None:
    with Engine(one, slots=1, length=200) as engine:
        with pytest.raises(EngineError, match="has a thread"):
            engine.drain()
        ticket = engine.submit(Conversation().ask("What?"), Sampling(max_new_tokens=3))
        first, second = list(ticket), list(ticket)
    assert second == [Event("", first[-1].answer)]


def test_rules_of_the_model_that_the_engine_does_not_follow_are_refused(one: VLM) -> None:
    model = copy.deepcopy(one)
    model.model.generation_config.repetition_penalty = 1.5
    with pytest.raises(ConfigError, match="sets repetition_penalty"):
        Engine(model)


@pytest.mark.parametrize("field", [{"temperature": 1e-5}, {"temperature": float("nan")}, {"top_p": 1e-9}])
def test_sampling_that_float32_cannot_hold_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(field))):
        Sampling(**field)


class TestReusable:
    """Up to where a prompt can be reused, by its roles: 1 is a visual token, 2 is read by 3, and 4 by 5."""

    def prompt(self, roles: list[int], *views: int) -> Prompt:
        seen = [Seen(str(n), torch.zeros(1, 4, 2), torch.zeros(1, n, 2)) for n in views]
        return Prompt(list(range(len(roles))), roles, tuple(seen))

    def test_after_each_picture_and_after_the_opening(self) -> None:
        assert self.prompt([0, 0, 1, 1, 0, 1, 1, 1, 0], 2, 3).reusable([0, 1, 9]) == [8, 4, 2]

    def test_not_between_what_a_query_reads_and_the_query(self) -> None:
        assert self.prompt([0, 2, 1, 1, 2, 3, 3, 0], 2).reusable([0]) == [1]
        assert self.prompt([0, 1, 1, 2, 3, 3, 0], 2).reusable([0]) == [3, 1]

    def test_later_queries_that_read_the_first_instruction_forbid_what_comes_after_it(self) -> None:
        first = [0, 1, 1, 2, 3, 0, 1, 1, 0, 3, 0]
        assert self.prompt(first, 2, 2).reusable([0]) == [3, 1]
        own = [0, 1, 1, 2, 3, 0, 1, 1, 4, 5, 0]
        assert self.prompt(own, 2, 2).reusable([0]) == [8, 3, 1]

    def test_keys_differ_with_what_is_shown(self) -> None:
        one, other = self.prompt([0, 1, 1, 0], 2), self.prompt([0, 1, 1, 0], 2)
        assert one.key(3) == other.key(3)
        changed = Prompt(one.ids, one.roles, (Seen("x", torch.zeros(1, 4, 2), torch.zeros(1, 2, 2)),))
        assert one.key(3) != changed.key(3)
        assert one.key(1) == changed.key(1)


def test_many_threads_ask_and_call_off(one: VLM) -> None:
    dice = random.Random(1)
    expected = {text: one.ask(None, text, max_new_tokens=6).token_ids for text in QUESTIONS}
    wrong: list[str] = []

    def ask(engine: Engine, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(12):
            text, image = dice.choice(QUESTIONS), dice.choice([None, None, picture(1), b"broken"])
            talk = Conversation().ask(text, () if image is None else (image,))
            ticket = engine.submit(talk, Sampling(max_new_tokens=6))
            if dice.random() < 0.2:
                ticket.cancel()
            try:
                answer = ticket.result(60)
            except ImageError:
                continue
            if image is None and answer.finish_reason != "cancelled" and answer.token_ids != expected[text]:
                wrong.append(text)

    with Engine(one, slots=3, length=200) as engine:
        threads = [threading.Thread(target=ask, args=(engine, dice.random())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert not engine.step()
