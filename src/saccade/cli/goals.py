"""What the benches are to reach, as data, and the verdicts on what they measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.bench.report import Result, Target


@dataclass(frozen=True)
class Bound:
    """What a figure is to reach.

    Attributes:
        target: First.
        stretch: Once that is reached.
        unit: Of both; "ratio" where there is none.
        at_most: Whether less is better.
    """

    target: float
    stretch: float
    unit: str = "ratio"
    at_most: bool = True


# The first of these are for a processor, the absolute ones for one accelerator alone.
FIRST_TOKEN_OVER_PLAIN = Bound(0.70, 0.60)
SHARE_OF_READ_RATE = Bound(0.80, 0.88, at_most=False)
SECOND_QUESTION_STEPS = Bound(2.0, 1.5)
EIGHT_OVER_ONE = Bound(3.0, 4.0, at_most=False)
EIGHT_TOKENS = 64

ACCELERATOR = "H200"
MANY_ROWS = 64
MANY_TOKENS = 128
MANY_OVER_PLAIN = Bound(4.0, 8.0, at_most=False)
MANY_ANSWERS_PER_SECOND = Bound(60.0, 120.0, "answers/s", at_most=False)


@dataclass(frozen=True)
class Absolute:
    """What a model is to reach on the accelerator.

    Attributes:
        first_token: Time to the first token.
        tokens_per_second: Rate of one row; None where none is set.
        views: Views of the picture that this is meant for; None for any.
        many: Whether there are bounds for `MANY_ROWS` rows.
    """

    first_token: Bound
    tokens_per_second: Bound | None = None
    views: int | None = None
    many: bool = False


# With four tiles comes the thumbnail.
ABSOLUTE = {
    "flashvl_static": Absolute(Bound(8.0, 5.0, "ms"), Bound(650.0, 1000.0, "tokens/s", at_most=False), many=True),
    "flashvl_iss": Absolute(Bound(40.0, 28.0, "ms"), views=5),
    "flashsloth": Absolute(Bound(8.0, 5.0, "ms"), Bound(400.0, 560.0, "tokens/s", at_most=False), many=True),
    "flashsloth_hd": Absolute(Bound(16.0, 10.0, "ms")),
}


@dataclass(frozen=True)
class Ratio:
    """A model through the engine and a peer: the ratio of their times to the first token.

    Attributes:
        model: The model.
        peer: What it is divided by.
        task: Where; None for all tasks.
        bound: Of the ratio; None to report it alone.
    """

    model: str
    peer: str
    task: str | None = None
    bound: Bound | None = None


# Peers that no bound is set for are told alone.
PAPERS = {
    "table1": (
        Ratio("flashsloth", "llava-1.5-7b", bound=Bound(0.20, 0.16)),
        Ratio("flashsloth", "qwen2-vl-2b"),
        Ratio("flashsloth", "internvl2-2b-6-tiles"),
        Ratio("flashsloth", "mobilevlm-v2-1.7b"),
        Ratio("flashsloth", "imp-v1-3b"),
        Ratio("flashsloth", "mobilevlm-v2-3b"),
    ),
    "flashvl": (
        Ratio("flashvl_static", "qwen2-vl-2b", "1024 x 768", Bound(0.12, 0.10)),
        Ratio("flashvl_static", "qwen2-vl-2b", "448 x 448"),
        Ratio("flashvl_static", "internvl2-2b"),
        Ratio("flashvl_static", "aquila-vl-2b"),
    ),
}


def verdicts(result: Result) -> list[Target]:
    """Compare what was measured with what was to be reached; what is reached is held against the next bound, too."""
    kind = result["bench"]
    if kind == "model":
        return list(_on_model(result))
    if kind == "decoder":
        return list(_on_decoder(result))
    return list(_on_rows(PAPERS.get(kind, ()), result))


def _against(name: str, value: float, bound: Bound | None, at_ceilings: float | None = None) -> Iterator[Target]:
    from saccade.bench.report import Target

    if bound is None:
        yield Target(name, value, None)
        return
    first = Target(name, value, bound.target, bound.unit, bound.at_most, at_ceilings)
    yield first
    if first.met:
        yield Target(f"{name}, raised", value, bound.stretch, bound.unit, bound.at_most, at_ceilings)


def _on_rows(goals: Sequence[Ratio], result: Result) -> Iterator[Target]:
    """Compare a paper's rows with the goals, where both models were measured."""
    from saccade.bench.compare import over
    from saccade.bench.engined import engine_name

    for goal in goals:
        name = engine_name(goal.model)
        ratio = over([row for row in result["rows"] if goal.task in (None, row["task"])], name, goal.peer)
        if ratio is not None:
            where = goal.task or "all tasks"
            figure = f"time to first token, {name} over {goal.peer}, {where}"
            yield from _against(figure, ratio["median"], goal.bound)


def _on_model(result: Result) -> Iterator[Target]:
    """Compare one model's result, plain `generate` and engine, with the goals of its machine."""
    if result["device"] == "cpu":
        yield from _on_processor(result)
    elif ACCELERATOR in result["machine"]:
        yield from _on_accelerator(result)


def _on_processor(result: Result) -> Iterator[Target]:
    plain, engine = (way["rounds"] for way in result["ways"])
    name, least = result["model"], _least(result)
    first = _ratio(engine["first token"], plain["first token"])
    best = _ratio([least["first token"]] * len(plain["first token"]), plain["first token"])
    yield from _against(f"{name}: time to first token, engine over plain generate", first, FIRST_TOKEN_OVER_PLAIN, best)
    share = result["ways"][1]["share_of_read_rate"]["median"]
    yield from _against(f"{name}: decode, share of the memory's read rate", share, SHARE_OF_READ_RATE)
    second = _ratio(engine["second question"], engine["per token"])
    best = _rounded(result["ways"][1]["second_question_least_seconds"] / least["per token"])
    figure = f"{name}: second question about a picture, time to first token over a decode step"
    yield from _against(figure, second, SECOND_QUESTION_STEPS, best)
    rates = _rates(result)
    if result["new_tokens"] == EIGHT_TOKENS and {1, 8} <= rates.keys():
        figure = f"{name}: answers per second, batch 8 over batch 1, {EIGHT_TOKENS} tokens"
        best = _rounded(_least_rate(result, 8) / _least_rate(result, 1))
        yield from _against(figure, _ratio(rates[8][1], rates[1][1]), EIGHT_OVER_ONE, best)


def _on_accelerator(result: Result) -> Iterator[Target]:
    name = result["model"]
    goal = ABSOLUTE.get(name)
    if goal is None:
        return
    rounds, least = result["ways"][1]["rounds"], _least(result)
    if goal.views in (None, result["views"]):
        best = _rounded(least["first token"] * 1e3)
        figure = f"{name}: time to first token"
        yield from _against(figure, median(rounds["first token"]) * 1e3, goal.first_token, best)
    if goal.tokens_per_second is not None:
        best = _rounded(1 / least["per token"])
        yield from _against(f"{name}: decode, batch 1", 1 / median(rounds["per token"]), goal.tokens_per_second, best)
    rates = _rates(result)
    if goal.many and result["new_tokens"] == MANY_TOKENS and MANY_ROWS in rates:
        plain, engine = rates[MANY_ROWS]
        where, best = f"{name}: batch {MANY_ROWS}, {MANY_TOKENS} tokens", _least_rate(result, MANY_ROWS)
        over = _rounded(best / median(plain))
        yield from _against(f"{where}, engine over plain generate", _ratio(engine, plain), MANY_OVER_PLAIN, over)
        yield from _against(where, median(engine), MANY_ANSWERS_PER_SECOND, _rounded(best))


def _least(result: Result) -> dict[str, float]:
    """Return the engine's least seconds by stage."""
    return {stage["name"]: stage["least_seconds"] for stage in result["ways"][1]["stages"] if "least_seconds" in stage}


def _least_rate(result: Result, batch: int) -> float:
    """Return the answers per second at the ceilings."""
    seconds: float = next(row["least_seconds"] for row in result["batches"] if row["batch"] == batch)
    return batch / seconds


def _on_decoder(result: Result) -> Iterator[Target]:
    """Divide the engine's times by those of llama.cpp, where that was measured; no bound is set."""
    from saccade.bench.decoder import FIRST, LATER
    from saccade.bench.engined import engine_name
    from saccade.bench.llamacpp import NAME

    rounds = {row["subject"]: row["rounds"] for row in result["speakers"]}
    if NAME not in rounds:
        return
    engine = rounds[engine_name(result["model"])]
    for figure in (FIRST, LATER):
        ratio = _ratio(engine[figure], rounds[NAME][figure])
        yield from _against(f"{result['model']}, decoder alone: {figure}, engine over {NAME}", ratio, None)


def _rates(result: Mapping[str, Any]) -> dict[int, list[list[float]]]:
    """Return answers per second by batch, of plain `generate` and of the engine, round by round."""
    rates: dict[int, list[list[float]]] = {}
    for row in result["batches"]:
        rates.setdefault(row["batch"], []).append(row["rounds"])
    return rates


def _rounded(value: float) -> float:
    from saccade.bench.rounds import significant

    return significant(value)


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    from saccade.bench.rounds import ratio, significant

    return significant(ratio(over, under).median)
