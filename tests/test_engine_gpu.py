"""The engine on a CUDA device: recorded steps choose the tokens of plain ones."""

import pytest
import torch

from helpers_vlm import picture, tiny_vlm
from saccade.engine import Engine
from saccade.vlm import VLM, Sampling
from saccade.vlm.chat import Conversation
from test_engine import FAMILIES, QUESTIONS, ids, requests

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(params=FAMILIES, ids=str)
def vlm(request: pytest.FixtureRequest) -> VLM:
    made = tiny_vlm(**FAMILIES[request.param])
    made.model.to("cuda")
    return made


def test_graphs_choose_the_tokens_of_plain_generation(vlm: VLM) -> None:
    asked = requests(20)
    engine = Engine(vlm, slots=5, length=300)
    assert engine.report()["path"] == "graphs"
    expected = ids(vlm.ask_batch(asked, max_new_tokens=12))
    assert ids(engine.ask_batch(asked, max_new_tokens=12)) == expected
    assert ids(engine.ask_batch(asked, max_new_tokens=12)) == expected  # from what was kept
    drawn = {"max_new_tokens": 12, "temperature": 0.7, "top_p": 0.9, "seed": 1}
    plain = Engine(vlm, slots=5, length=300, path="plain")
    assert ids(engine.ask_batch(asked, **drawn)) == ids(plain.ask_batch(asked, **drawn))


def test_in_bfloat16_the_paths_agree_as_far_as_rounding_lets_them() -> None:
    vlm = tiny_vlm()
    vlm.model.to("cuda", torch.bfloat16)
    asked = [(picture(1), text) for text in QUESTIONS]
    graphs, plain = (Engine(vlm, slots=4, length=300, path=path) for path in ("graphs", "plain"))
    first = [ids(engine.ask_batch(asked, max_new_tokens=1)) for engine in (graphs, plain)]
    assert first[0] == first[1]


def test_rows_that_enter_and_leave_do_not_disturb_the_others(vlm: VLM) -> None:
    engine = Engine(vlm, slots=3, length=300)
    lengths = [3, 17, 5, 11, 2, 9, 8]
    talks = [Conversation().ask(QUESTIONS[n % len(QUESTIONS)]) for n in range(len(lengths))]
    tickets = [engine.submit(talk, Sampling(max_new_tokens=n)) for talk, n in zip(talks, lengths, strict=True)]
    engine.drain()
    for talk, length, ticket in zip(talks, lengths, tickets, strict=True):
        expected = vlm.answer([talk], Sampling(max_new_tokens=length))[0]
        assert ticket.result(0).token_ids == expected.token_ids
