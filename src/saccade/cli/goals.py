"""What the benches are to reach, as data, and the verdicts on what they measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.bench.report import Result, Target

# The first of these are for a processor, the absolute ones for one accelerator alone.
FIRST_TOKEN_OVER_PLAIN = 0.70
SHARE_OF_READ_RATE = 0.80
SECOND_QUESTION_STEPS = 2.0
EIGHT_OVER_ONE = 3.0
EIGHT_TOKENS = 64

ACCELERATOR = "H200"
MANY_ROWS = 64
MANY_TOKENS = 128
MANY_OVER_PLAIN = 4.0
MANY_ANSWERS_PER_SECOND = 60.0


@dataclass(frozen=True)
class Absolute:
    """What a model is to reach on the accelerator.

    Attributes:
        first_token: Milliseconds to the first token at most.
        tokens_per_second: Least rate of one row; None where none is set.
        views: Views of the picture that this is meant for; None for any.
        many: Whether there are bounds for `MANY_ROWS` rows.
    """

    first_token: float
    tokens_per_second: float | None = None
    views: int | None = None
    many: bool = False


# With four tiles comes the thumbnail.
ABSOLUTE = {
    "flashvl_static": Absolute(8.0, 650.0, many=True),
    "flashvl_iss": Absolute(40.0, views=5),
    "flashsloth": Absolute(8.0, 400.0, many=True),
    "flashsloth_hd": Absolute(16.0),
}


@dataclass(frozen=True)
class Ratio:
    """A model through the engine and a peer: the ratio of their times to the first token.

    Attributes:
        model: The model.
        peer: What it is divided by.
        task: Where; None for all tasks.
        bound: The most; None to report it alone.
    """

    model: str
    peer: str
    task: str | None
    bound: float | None


TABLE1 = (Ratio("flashsloth", "llava-1.5-7b", None, 0.20),)
FLASHVL = (
    Ratio("flashvl_static", "qwen2-vl-2b", "1024 x 768", 0.12),
    Ratio("flashvl_static", "qwen2-vl-2b", "448 x 448", None),
)


def verdicts_on_rows(goals: Sequence[Ratio], rows: Sequence[dict[str, Any]]) -> list[Target]:
    """Compare a paper's rows with the goals, where both models were measured."""
    from saccade.bench.compare import over
    from saccade.bench.engined import engine_name
    from saccade.bench.report import Target

    found = []
    for goal in goals:
        name = engine_name(goal.model)
        ratio = over([row for row in rows if goal.task in (None, row["task"])], name, goal.peer)
        if ratio is not None:
            where = goal.task or "all tasks"
            found.append(Target(f"time to first token, {name} over {goal.peer}, {where}", ratio["median"], goal.bound))
    return found


def verdicts_on_model(result: Result) -> list[Target]:
    """Compare one model's result, plain `generate` and engine, with the goals of its machine."""
    if result["device"] == "cpu":
        return list(_on_processor(result))
    if ACCELERATOR in result["machine"]:
        return list(_on_accelerator(result))
    return []


def _on_processor(result: Result) -> Iterator[Target]:
    from saccade.bench.report import Target

    plain, engine = (way["rounds"] for way in result["ways"])
    name = result["model"]
    first = _ratio(engine["first token"], plain["first token"])
    yield Target(f"{name}: time to first token, engine over plain generate", first, FIRST_TOKEN_OVER_PLAIN)
    share = result["ways"][1]["share_of_read_rate"]["median"]
    yield Target(f"{name}: decode, share of the memory's read rate", share, SHARE_OF_READ_RATE, at_most=False)
    second = _ratio(engine["second question"], engine["per token"])
    yield Target(
        f"{name}: second question about a picture, time to first token over a decode step",
        second,
        SECOND_QUESTION_STEPS,
    )
    rates = _rates(result)
    if result["new_tokens"] == EIGHT_TOKENS and {1, 8} <= rates.keys():
        scaled = _ratio(rates[8][1], rates[1][1])
        yield Target(
            f"{name}: answers per second, batch 8 over batch 1, {EIGHT_TOKENS} tokens",
            scaled,
            EIGHT_OVER_ONE,
            at_most=False,
        )


def _on_accelerator(result: Result) -> Iterator[Target]:
    from saccade.bench.report import Target

    name = result["model"]
    goal = ABSOLUTE.get(name)
    if goal is None:
        return
    rounds = result["ways"][1]["rounds"]
    if goal.views in (None, result["views"]):
        first = median(rounds["first token"]) * 1e3
        yield Target(f"{name}: time to first token", first, goal.first_token, "ms")
    if goal.tokens_per_second is not None:
        rate = 1 / median(rounds["per token"])
        yield Target(f"{name}: decode, batch 1", rate, goal.tokens_per_second, "tokens/s", at_most=False)
    rates = _rates(result)
    if goal.many and result["new_tokens"] == MANY_TOKENS and MANY_ROWS in rates:
        plain, engine = rates[MANY_ROWS]
        where = f"batch {MANY_ROWS}, {MANY_TOKENS} tokens"
        gained = _ratio(engine, plain)
        yield Target(f"{name}: {where}, engine over plain generate", gained, MANY_OVER_PLAIN, at_most=False)
        yield Target(f"{name}: {where}", median(engine), MANY_ANSWERS_PER_SECOND, "answers/s", at_most=False)


def verdicts_on_decoder(result: Result) -> list[Target]:
    """Divide the engine's times by those of llama.cpp, where that was measured; no bound is set."""
    from saccade.bench.decoder import FIRST, LATER
    from saccade.bench.engined import engine_name
    from saccade.bench.llamacpp import NAME
    from saccade.bench.report import Target

    rounds = {row["subject"]: row["rounds"] for row in result["speakers"]}
    if NAME not in rounds:
        return []
    engine = rounds[engine_name(result["model"])]
    ratios = {figure: _ratio(engine[figure], rounds[NAME][figure]) for figure in (FIRST, LATER)}
    return [
        Target(f"{result['model']}, decoder alone: {figure}, engine over {NAME}", ratio, None)
        for figure, ratio in ratios.items()
    ]


def _rates(result: Mapping[str, Any]) -> dict[int, list[list[float]]]:
    """Return answers per second by batch, of plain `generate` and of the engine, round by round."""
    rates: dict[int, list[list[float]]] = {}
    for row in result["batches"]:
        rates.setdefault(row["batch"], []).append(row["rounds"])
    return rates


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    from saccade.bench.rounds import ratio, significant

    return significant(ratio(over, under).median)
