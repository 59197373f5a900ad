"""One model from the bytes of a picture file to its tokens, each way of running it stage by stage, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from saccade.bench.ceilings import Ceilings, ReadProbe
from saccade.bench.compare import Sample, Settings, measure
from saccade.bench.count import Analysis, Workload
from saccade.bench.engined import Engined
from saccade.bench.memory import peak_memory
from saccade.bench.plan import stages
from saccade.bench.rounds import Budget, interleaved, percentiles, ratio, significant, spread
from saccade.bench.subjects import Pixels, Subject
from saccade.bench.tasks import Ask, encoded, picture
from saccade.image import num_views, open_image

# "first token" counts from a decoded picture in memory, so without the stage before "preprocess".
STAGES = ("decode image", "preprocess", "vision", "compress", "prefill", "first token", "per token")
INSIDE = ("preprocess", "vision", "compress")  # what a subject tells of its own stages
WATCHED = "{}: stages"
SECOND = "{}: second question"
MEMORY_READ = "memory read"


def measure_waterfall(
    subjects: Sequence[Subject],
    analysis: Analysis,
    ceilings: Ceilings,
    ask: Ask,
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Measure the stages of a model, each way of running it.

    Answers with watched stages take turns with others, which times of tokens come from: watching makes devices wait.

    Args:
        subjects: Ways of running the same model, plain `generate` first.
        analysis: Counts it.
        ceilings: Of this machine; how fast memory is read is measured anew beside every answer.
        ask: What is asked.
        settings: How it is measured.
        on_run: Called after every answer.
        budget: Of which this takes a share; without it there is no bound.

    Returns:
        Plain JSON types: what is asked, `ceilings`, FLOPs and MACs to the first token in closed form, and `ways`, each
        with `stages`, in the order of `STAGES`: seconds, FLOPs and MACs in closed form, bytes read, least seconds and
        the share of the ceiling that was reached (least over measured seconds); percentiles of answers and tokens; the
        engine's second question about the picture; FLOPs to the first tokens of both, counted by running; peak memory;
        the bytes that a step reads in a second, and their share of what was read beside the answer; `rounds`, what was
        measured in each, in seconds and bytes.
    """
    shown, spent = picture(ask.width, ask.height, settings.seed), (budget or Budget(None, 0)).share()
    file, limit = encoded(shown), analysis.config.image.max_pixels
    facts = [_facts(subject, ask, shown, settings.new_tokens) for subject in subjects]
    runs: dict[str, Callable[[], Any]] = {}
    probe = ReadProbe(subjects[0].device)
    for subject in subjects:
        runs[WATCHED.format(subject.name)] = partial(_fall, subject, ask, shown, file, limit, settings.new_tokens)
        runs[subject.name] = partial(probe.around, partial(measure, subject, ask, [shown], settings.new_tokens))
        if isinstance(subject, Engined):
            runs[SECOND.format(subject.name)] = partial(subject.second_question, shown, ask.text_tokens)
    found = interleaved(runs, settings.rounds, settings.warm_up, on_run, spent)
    reads = [rate for subject in subjects for _, rate in found[subject.name]]
    ceilings = replace(ceilings, memory_read=spread(reads).median)
    planned = _planned(subjects[0], analysis, ceilings, ask, settings)
    return {
        "ceilings": ceilings.to_dict(),
        "views": num_views(ask.width, ask.height, analysis.config.image),
        **_asked(subjects[0], ask, shown),
        "weight_bytes": subjects[0].weights.total,
        **{kind: planned["first token"][kind] for kind in ("flops", "macs")},
        "ways": [
            fact | _summary(found, subject, planned) | _second(found, fact, ceilings, planned)
            for subject, fact in zip(subjects, facts, strict=True)
        ],
    }


def measure_batches(
    subjects: Sequence[Subject],
    analysis: Analysis,
    ceilings: Ceilings,
    ask: Ask,
    batches: Sequence[int],
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Measure tokens and answers per second at several numbers of rows, preprocessing included, interleaved.

    Every row of a batch shows a picture of its own. `rounds` holds the answers per second that are summarized;
    `least_seconds` is what all of a batch's answers take at the ceilings.
    """
    shown = [picture(ask.width, ask.height, settings.seed + row) for row in range(max(batches))]
    runs = {
        (subject.name, batch): partial(measure, subject, ask, shown[:batch], settings.new_tokens)
        for batch in batches
        for subject in subjects
    }
    spent = (budget or Budget(None, 0)).share()
    named = {f"{name}, batch {batch}": run for (name, batch), run in runs.items()}
    found = interleaved(named, settings.rounds, settings.warm_up, on_run, spent)
    rows = []
    for (name, batch), samples in zip(runs, found.values(), strict=True):
        rates = [batch / sample.total for sample in samples]
        planned = _planned(subjects[0], analysis, ceilings, ask, settings, batch)
        first, each = (planned[stage]["least_seconds"] for stage in STAGES[-2:])
        rows.append(
            {
                "subject": name,
                "batch": batch,
                "samples_per_second": spread(rates).to_dict(),
                "tokens_per_second": spread([rate * settings.new_tokens for rate in rates]).to_dict(),
                "least_seconds": significant(first + (settings.new_tokens - 1) * each),
                "rounds": list(map(significant, rates)),
            }
        )
    return rows


def runs_per_round(ways: int, batches: int) -> int:
    """Count the calls of `on_run` in a round of both measurements of `ways`, of which all but the first are engines."""
    return 2 * ways + (ways - 1) + ways * batches


def _asked(subject: Subject, ask: Ask, shown: Pixels) -> dict[str, Any]:
    prepared = subject.prepare([shown], ask.text_tokens)
    return {
        "picture": [ask.width, ask.height],
        "text_tokens": ask.text_tokens,
        "visual_tokens": prepared.visual_tokens,
        "query_tokens": prepared.query_tokens,
        "prompt_tokens": prepared.prompt_tokens,
    }


def _facts(subject: Subject, ask: Ask, shown: Pixels, new_tokens: int) -> dict[str, Any]:
    """What does not vary from round to round."""
    prepared = subject.prepare([shown], ask.text_tokens)
    subject.generate(prepared, new_tokens)  # what compiles at its first use does not take that memory again
    with peak_memory(subject.device) as peak:
        subject.generate(prepared, new_tokens)
    memory = None if peak.working is None else subject.weights.total + subject.held + peak.working
    second = subject.count_second_question(shown, ask.text_tokens) if isinstance(subject, Engined) else None
    return {
        "subject": subject.name,
        "way": subject.way,
        "memory_bytes": memory,
        "counted_flops": subject.count(prepared),
        "second_question_flops": second,
    }


def _fall(subject: Subject, ask: Ask, shown: Pixels, file: bytes, max_pixels: int, new_tokens: int) -> dict[str, float]:
    start = perf_counter()
    open_image(file, max_pixels)
    opened = perf_counter()
    prepared = subject.prepare([shown], ask.text_tokens)
    ready = perf_counter()
    timeline = subject.generate(prepared, new_tokens, watched=True)
    inside = {name: timeline.stages.get(name, 0.0) for name in INSIDE}
    prefill = timeline.tokens[0] - sum(inside.values())
    inside["preprocess"] += ready - opened
    return {"decode image": opened - start, **inside, "prefill": prefill}


def _planned(
    subject: Subject, analysis: Analysis, ceilings: Ceilings, ask: Ask, settings: Settings, batch: int = 1
) -> dict[str, dict[str, Any]]:
    """Return the stages in closed form, by name."""
    work = Workload(num_views(ask.width, ask.height, analysis.config.image), ask.text_tokens, batch)
    size = round(subject.weights.total / sum(analysis.parameters.values()))
    return {row["name"]: row for row in stages(analysis, work, settings.new_tokens, size, ceilings)}


def _summary(found: dict[str, list[Any]], subject: Subject, planned: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Summarize what was measured of a subject, each stage beside what was planned for it."""
    falls: list[dict[str, float]] = found[WATCHED.format(subject.name)]
    answers: list[tuple[Sample, float]] = found[subject.name]
    samples, reads = [sample for sample, _ in answers], [rate for _, rate in answers]
    second: list[float] = found.get(SECOND.format(subject.name), [])
    seconds = {name: [fall[name] for fall in falls] for name in STAGES[:-2]}
    seconds["first token"] = [sample.first_token for sample in samples]
    seconds["per token"] = [sample.timeline.per_token or 0.0 for sample in samples]
    rounds = {name: seconds[name] for name in STAGES[-2:]} | ({"second question": second} if second else {})
    steps = [subject.weights.step / each for each in seconds["per token"]]
    return {
        "stages": [_row(name, seconds[name], _merged(planned, name)) for name in STAGES],
        "ttft_percentiles": percentiles(seconds["first token"]),
        "tpot_percentiles": percentiles([gap for sample in samples for gap in sample.gaps]),
        "step_bytes_per_second": significant(spread(steps).median),
        "share_of_read_rate": ratio(steps, reads).to_dict(),
        "rounds": {name: list(map(significant, values)) for name, values in (rounds | {MEMORY_READ: reads}).items()},
    }


def _second(
    found: dict[str, list[Any]], fact: dict[str, Any], ceilings: Ceilings, planned: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Summarize the second question, which reads what a step reads."""
    flops = fact["second_question_flops"]
    if flops is None:
        return {"second_question": None}
    seconds = spread(found[SECOND.format(fact["subject"])]).to_dict()
    least = significant(ceilings.least_seconds(flops, planned["per token"]["bytes_read"]))
    return {"second_question": seconds, "second_question_least_seconds": least}


def _merged(planned: dict[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return what was planned for a measured stage; its prefill holds the query module and the head."""
    names = ("embedded query", "prefill", "head") if name == "prefill" else (name,)
    rows = [planned[name] for name in names if name in planned]
    return (
        {key: sum(row[key] for row in rows) for key in ("macs", "flops", "bytes_read", "least_seconds")}
        if rows
        else None
    )


def _row(name: str, seconds: Sequence[float], planned: dict[str, Any] | None) -> dict[str, Any]:
    found = spread(seconds)
    share = None if planned is None else significant(planned["least_seconds"] / found.median, 3)
    return {"name": name, "seconds": found.to_dict()} | (planned or {}) | {"share_of_ceiling": share}
