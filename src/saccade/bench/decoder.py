"""The decoder of a model alone, without a picture: each way of running it over the same prompt, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from saccade.bench.ceilings import Ceilings, ReadProbe, Shape
from saccade.bench.compare import Settings
from saccade.bench.count import Analysis, Workload
from saccade.bench.feeds import text_ids
from saccade.bench.plan import shapes_of
from saccade.bench.proof import Judge
from saccade.bench.rounds import Budget, interleaved, ratio, significant, spread
from saccade.bench.speakers import Speaker, Spoken
from saccade.bench.waterfall import MEMORY_READ
from saccade.config import SaccadeConfig

FIRST, LATER = "first token", "per token"


def decoder_shapes(config: SaccadeConfig, prompt_tokens: int) -> dict[str, Shape]:
    """Return the products that decide a decoder's speed: its inner layer over a prompt, and over one token."""
    shapes = shapes_of(config, Workload(0, prompt_tokens))
    return {name: shapes[name] for name in ("prefill", LATER)}


def measure_decoder(
    speakers: Sequence[Speaker],
    model: Any,
    step_bytes: int,
    ceilings: Ceilings,
    prompt_tokens: int,
    settings: Settings,
    on_run: Callable[[str], None] | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Measure ways of running a decoder, batch 1, nothing kept from one answer to the next.

    Each is proven right first, which is a run of its own.

    Args:
        speakers: With names of their own.
        model: What all of them run.
        step_bytes: Bytes of the weights that a decoding step reads.
        ceilings: Of this machine; how fast memory is read is measured anew beside every answer.
        prompt_tokens: Tokens of the prompt.
        settings: How it is measured.
        on_run: Called with a speaker's name after it was proven right, and after every answer.
        budget: Of which this takes a share; without it there is no bound.

    Returns:
        Plain JSON types: what is asked, `ceilings`, FLOPs and MACs to the first token in closed form, and `speakers`,
        each with `proof`, see `Judge.judge`; `first_token` and `per_token` in seconds, spreads over the rounds; what
        the prefill computes and a step reads in a second, with the share of the ceiling; `rounds`, what the spreads
        summarize.

    Raises:
        EngineError: when one of them gives wrong answers.
    """
    tell = on_run or (lambda _: None)
    config: SaccadeConfig = model.config
    ids = text_ids(prompt_tokens, config.text_config.vocab_size)
    proofs = _proofs(speakers, Judge(model, ids), settings.new_tokens, tell)
    probe = ReadProbe(model.device)
    runs = {
        speaker.name: partial(probe.around, partial(speaker.answer, ids, settings.new_tokens)) for speaker in speakers
    }
    spent = (budget or Budget(None, 0)).share()
    found = interleaved(runs, settings.rounds, settings.warm_up, tell, spent)
    reads = {name: [rate for _, rate in answers] for name, answers in found.items()}
    seconds = {name: _seconds([answer for answer, _ in answers]) for name, answers in found.items()}
    ceilings = replace(ceilings, memory_read=spread([rate for rates in reads.values() for rate in rates]).median)
    macs = Analysis(config).decode(prompt_tokens) + Analysis(config).head(1)
    return {
        "ceilings": ceilings.to_dict(),
        "prompt_tokens": prompt_tokens,
        "flops": 2 * macs,
        "macs": macs,
        "step_bytes": step_bytes,
        "speakers": [
            {"subject": speaker.name, "way": speaker.way, "proof": proofs[speaker.name]}
            | _times(seconds[speaker.name], reads[speaker.name])
            | _rates(seconds[speaker.name], reads[speaker.name], 2 * macs, step_bytes, ceilings)
            for speaker in speakers
        ],
    }


def runs_of(speakers: int, settings: Settings) -> int:
    """Count the calls of `on_run`, for a progress bar."""
    return speakers * (1 + settings.warm_up + settings.rounds)


def _proofs(
    speakers: Sequence[Speaker], judge: Judge, new_tokens: int, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    proofs = {}
    for speaker in speakers:
        proofs[speaker.name] = judge.judge(speaker, new_tokens)
        tell(speaker.name)
    return proofs


def _seconds(answers: Sequence[Spoken]) -> dict[str, list[float]]:
    timelines = [answer.timeline for answer in answers]
    return {
        FIRST: [timeline.tokens[0] for timeline in timelines],
        LATER: [timeline.per_token or 0.0 for timeline in timelines],
    }


def _times(seconds: dict[str, list[float]], reads: Sequence[float]) -> dict[str, Any]:
    return {
        "first_token": spread(seconds[FIRST]).to_dict(),
        "per_token": spread(seconds[LATER]).to_dict(),
        "rounds": {name: list(map(significant, values)) for name, values in {**seconds, MEMORY_READ: reads}.items()},
    }


def _rates(
    seconds: dict[str, list[float]], reads: Sequence[float], flops: int, step_bytes: int, ceilings: Ceilings
) -> dict[str, float]:
    computed, steps = flops / spread(seconds[FIRST]).median, [step_bytes / each for each in seconds[LATER]]
    best = max([ceilings.square, *ceilings.matrix.values()])
    return {
        "prefill_flops_per_second": significant(computed),
        "share_of_matrix_rate": significant(computed / best, 3),
        "step_bytes_per_second": significant(spread(steps).median),
        "share_of_read_rate": significant(ratio(steps, reads).median, 3),
    }
