"""`saccade bench decoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from saccade.cli.measuring import (
    NONE,
    EnginePath,
    From,
    Markdown,
    Out,
    Plot,
    Rounds,
    Seconds,
    Seed,
    WarmUp,
    deliver,
    kept_result,
    to_place,
)
from saccade.cli.planning import PLAN_MODELS
from saccade.cli.shell import prepare_libraries, progress
from saccade.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import ExitStack

    import torch

    from saccade.bench.compare import Settings
    from saccade.bench.report import Result
    from saccade.bench.speakers import Speaker
    from saccade.bench.subjects import Generating
    from saccade.config import SaccadeConfig
    from saccade.engine.paths import PathChoice


def decoder(
    model: Annotated[str, typer.Option("--model", "-m", help=PLAN_MODELS)] = "preset:flashvl_static",
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 304,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of every answer; none stops earlier.")] = 32,
    peer: Annotated[str, typer.Option(help="llama.cpp, or none.")] = "llama.cpp",
    dtype: Annotated[str, typer.Option(help="Of the weights: bfloat16 or float32.")] = "bfloat16",
    path: EnginePath = "auto",
    rounds: Rounds = 5,
    warm_up: WarmUp = 1,
    seconds: Seconds = None,
    seed: Seed = 0,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = None,
    kept: From = None,
) -> None:
    """Measure a model's decoder alone, without a picture, beside llama.cpp on the same weights, on a processor.

    Plain `generate`, the engine and llama.cpp answer one prompt by turns, on as many threads each. Before a time is
    told, the logits and answers of each are compared with those of the model in float32.

    Example:  saccade bench decoder --out decoder.json --plot decoder.png

    Without llama.cpp:  saccade bench decoder --model nano --peer none
    """
    if kept is None:
        from saccade.bench.compare import Settings

        settings = Settings(new_tokens, rounds, warm_up, seed, seconds)
        result = _measured(model, prompt, peer, dtype, path, settings)
    else:
        result = kept_result(kept)
    deliver(result, out, plot, markdown)


def _measured(model: str, prompt: int, peer: str, dtype: str, path: str, settings: Settings) -> Result:
    prepare_libraries()
    from contextlib import ExitStack

    import torch

    from saccade.bench.ceilings import measure_ceilings, steps_of
    from saccade.bench.decoder import decoder_shapes, measure_decoder, runs_of
    from saccade.bench.opening import open_own
    from saccade.bench.plan import configuration
    from saccade.bench.report import new_result
    from saccade.bench.rounds import Budget
    from saccade.engine.paths import check_path

    where, number = to_place("cpu", dtype)
    way = check_path(path, where)
    if number not in (torch.float32, torch.bfloat16):
        raise ConfigError(f"--dtype is {dtype}: llama.cpp and the engine are compared in bfloat16 or float32")
    config = configuration(model)
    _check(config, peer, number)
    _check_room(config, prompt, settings.new_tokens)
    shapes, budget = decoder_shapes(config, prompt), Budget(settings.seconds, parts=1)
    with ExitStack() as stack, progress() as bar:
        plain = open_own(model, "cpu", number, settings.seed)
        speakers = _opened(plain, peer, prompt + settings.new_tokens, way, stack)
        steps = steps_of(where, number, shapes) + runs_of(len(speakers), settings)
        task = bar.add_task("measuring", total=steps)
        ceilings = measure_ceilings(where, number, shapes, lambda: bar.advance(task))
        found = measure_decoder(
            speakers,
            plain.model,
            plain.weights.step,
            ceilings,
            prompt,
            settings,
            lambda _: bar.advance(task),
            budget,
        )
    content = {"model": plain.name, "cut": budget.cut, **found}
    return new_result("decoder", where, number, settings, **content)


def _check(config: SaccadeConfig, peer: str, dtype: torch.dtype) -> None:
    """Raise ConfigError for what cannot be measured, before anything is built."""
    import torch

    from saccade.bench.gguf import check_decoder
    from saccade.bench.llamacpp import NAME, check_packages
    from saccade.bench.memory import free_bytes
    from saccade.bench.skeleton import parameters

    if peer not in (NAME, NONE):
        raise ConfigError(f"--peer is {peer!r}: write {NAME} or {NONE}")
    if peer == NAME:
        check_decoder(config)
        check_packages()
    # The peer holds a second copy, of the decoder at most.
    needed = parameters(config) * dtype.itemsize * (2 if peer == NAME else 1)
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise ConfigError(f"the weights take up to {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free")


def _check_room(config: SaccadeConfig, prompt: int, new_tokens: int) -> None:
    """Raise ConfigError for a prompt that is too short to be drawn, or too long for the decoder with its answer."""
    from saccade.bench.feeds import text_ids

    text_ids(prompt, config.text_config.vocab_size)
    most = config.text_config.max_position_embeddings
    if prompt + new_tokens > most:
        raise ConfigError(
            f"--prompt {prompt} and --new-tokens {new_tokens} are more than the {most} positions that the decoder "
            "knows: lower one of them"
        )


def _opened(plain: Generating, peer: str, length: int, path: PathChoice, stack: ExitStack) -> list[Speaker]:
    """Open the ways of running a decoder; what has to be closed goes onto the stack."""
    from saccade.bench.llamacpp import open_llamacpp
    from saccade.bench.speakers import EngineSpeaker, PlainSpeaker

    speakers: list[Speaker] = [PlainSpeaker(plain), EngineSpeaker(plain, length, path)]
    # Last: the engine's kernel must find torch's OpenMP, not that of llama.cpp.
    if peer != NONE:
        speakers.append(stack.enter_context(open_llamacpp(plain.model, length)))
    return speakers
