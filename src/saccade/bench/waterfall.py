"""One model from the bytes of a picture file to its tokens, stage by stage, each beside the least time it can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from saccade.bench.ceilings import Ceilings
from saccade.bench.compare import Sample, Settings, measure
from saccade.bench.count import Analysis, Workload
from saccade.bench.memory import peak_memory
from saccade.bench.plan import stages
from saccade.bench.rounds import interleaved, percentiles, significant, spread
from saccade.bench.subjects import Pixels, Subject
from saccade.bench.tasks import Ask, encoded, picture
from saccade.image import num_views, open_image

# "first token" counts from a decoded picture in memory, so without the stage before "preprocess".
STAGES = ("decode image", "preprocess", "vision", "compress", "prefill", "first token", "per token")


def measure_waterfall(
    subject: Subject,
    analysis: Analysis,
    ceilings: Ceilings,
    ask: Ask,
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure the stages of a model.

    Answers with watched stages and answers without take turns: watching makes an accelerator wait, so times to the
    first token and per token come from the others.

    Args:
        subject: Runs the model.
        analysis: Counts it.
        ceilings: Of this machine.
        ask: What is asked.
        settings: How it is measured.
        on_run: Called after every answer.

    Returns:
        Plain JSON types: `stages`, in the order of `STAGES`, each with seconds, FLOPs and MACs in closed form, bytes
        read, least seconds and the share of the ceiling that was reached (least over measured seconds); percentiles
        of single answers and tokens; FLOPs to the first token in closed form and counted by running; peak memory.
    """
    shown = picture(ask.width, ask.height, settings.seed)
    file, image = encoded(shown), analysis.config.image

    def watched() -> dict[str, float]:
        return _fall(subject, ask, shown, file, image.max_pixels, settings.new_tokens)

    def plain() -> Sample:
        return measure(subject, ask, shown, settings.new_tokens)

    prepared = subject.prepare([shown], ask.text_tokens)
    with peak_memory(subject.device) as peak:
        subject.generate(prepared, settings.new_tokens)
    counted = subject.count(prepared)
    runs: dict[str, Callable[[], Any]] = {"watched": watched, "plain": plain}
    found = interleaved(runs, settings.rounds, settings.warm_up, on_run)
    return {
        "picture": [ask.width, ask.height],
        "text_tokens": ask.text_tokens,
        "visual_tokens": prepared.visual_tokens,
        "query_tokens": prepared.query_tokens,
        "prompt_tokens": prepared.prompt_tokens,
        "weight_bytes": subject.weights.total,
        "memory_bytes": None if peak.working is None else subject.weights.total + peak.working,
        **_summary(found["watched"], found["plain"], subject, _planned(subject, analysis, ceilings, ask, settings)),
        "counted_flops": counted,
    }


def measure_batches(
    subject: Subject,
    ask: Ask,
    batches: Sequence[int],
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure tokens and answers per second at several numbers of rows, preprocessing included, interleaved."""
    shown = picture(ask.width, ask.height, settings.seed)

    def run(batch: int) -> Callable[[], Sample]:
        return lambda: measure(subject, ask, shown, settings.new_tokens, batch)

    found = interleaved({str(batch): run(batch) for batch in batches}, settings.rounds, settings.warm_up, on_run)
    rows = []
    for batch in batches:
        rates = [batch / sample.total for sample in found[str(batch)]]
        rows.append(
            {
                "batch": batch,
                "samples_per_second": spread(rates).to_dict(),
                "tokens_per_second": spread([rate * settings.new_tokens for rate in rates]).to_dict(),
            }
        )
    return rows


def _fall(subject: Subject, ask: Ask, shown: Pixels, file: bytes, max_pixels: int, new_tokens: int) -> dict[str, float]:
    start = perf_counter()
    open_image(file, max_pixels)
    opened = perf_counter()
    prepared = subject.prepare([shown], ask.text_tokens)
    ready = perf_counter()
    timeline = subject.generate(prepared, new_tokens, watched=True)
    inside = {name: timeline.stages.get(name, 0.0) for name in ("vision", "compress")}
    return {
        "decode image": opened - start,
        "preprocess": ready - opened,
        **inside,
        "prefill": timeline.tokens[0] - sum(inside.values()),
    }


def _planned(
    subject: Subject, analysis: Analysis, ceilings: Ceilings, ask: Ask, settings: Settings
) -> dict[str, dict[str, Any]]:
    """Return the stages in closed form, by name."""
    work = Workload(num_views(ask.width, ask.height, analysis.config.image), ask.text_tokens)
    size = round(subject.weights.total / sum(analysis.parameters.values()))
    return {row["name"]: row for row in stages(analysis, work, settings.new_tokens, size, ceilings)}


def _summary(
    falls: Sequence[dict[str, float]],
    samples: Sequence[Sample],
    subject: Subject,
    planned: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Summarize what was measured, each stage beside what was planned for it."""
    seconds = {name: [fall[name] for fall in falls] for name in STAGES[:-2]}
    seconds["first token"] = [sample.first_token for sample in samples]
    seconds["per token"] = [sample.timeline.per_token or 0.0 for sample in samples]
    return {
        "stages": [_row(name, seconds[name], _merged(planned, name)) for name in STAGES],
        "flops": planned["first token"]["flops"],
        "macs": planned["first token"]["macs"],
        "ttft_percentiles": percentiles(seconds["first token"]),
        "tpot_percentiles": percentiles([gap for sample in samples for gap in sample.gaps]),
        "step_bytes_per_second": significant(subject.weights.step / spread(seconds["per token"]).median),
    }


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
