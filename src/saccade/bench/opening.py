"""Opening what is to be timed: models of this package and peers, only where their weights fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from saccade.bench.engined import Engined, Room
from saccade.bench.feeds import OwnFeed
from saccade.bench.memory import free_bytes
from saccade.bench.peers import peer
from saccade.bench.plan import PRESET, configuration
from saccade.bench.skeleton import parameters, random_model
from saccade.bench.subjects import Generating, Subject
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError
from saccade.vlm import load


def open_own(model: str, device: str, dtype: torch.dtype, seed: int) -> Generating:
    """Open a model of this package behind plain `generate`; `preset:NAME` gets random weights."""
    if model.startswith(PRESET):
        config = configuration(model)
        return Generating(model.removeprefix(PRESET), random_model(config, device, dtype, seed), OwnFeed(config))
    opened = load(model, device=device, dtype=dtype).model
    return Generating(model, opened, OwnFeed(opened.config))


def open_subjects(
    models: Sequence[str],
    peers: Sequence[str],
    device: str,
    dtype: torch.dtype,
    seed: int,
    *,
    small: bool = False,
    room: Callable[[SaccadeConfig], Room] | None = None,
    on_open: Callable[[str], None] | None = None,
) -> list[Subject]:
    """Open models and peers on one device.

    Args:
        models: As `open_own` takes them.
        peers: Names of peers.
        device: Where they run.
        dtype: Of their weights.
        seed: Of random weights.
        small: Build small copies of the peers, to try a command.
        room: Makes room in an engine for a model of this package, which then follows the same model without; None opens
            no engine.
        on_open: Called with the name before each is opened.

    Raises:
        ConfigError: for an unknown name, a name twice, or when the weights do not fit the memory that is free.
    """
    names = [*models, *peers]
    if not names:
        raise ConfigError("there is nothing to measure: name a model or a peer")
    if len(set(names)) < len(names):
        raise ConfigError(f"a name stands twice in {', '.join(names)}: name each once")
    configs = [*map(configuration, models), *(peer(name).configuration(small=small) for name in peers)]
    needed = sum(map(parameters, configs)) * dtype.itemsize
    free = free_bytes(torch.device(device))
    if needed > free:
        raise ConfigError(
            f"the weights of {', '.join(names)} take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: all stay "
            "in memory to take turns, so name fewer with --model and --peer"
        )
    tell = on_open or (lambda _: None)
    subjects: list[Subject] = []
    for name in models:
        tell(name)
        plain = open_own(name, device, dtype, seed)
        subjects += [plain] if room is None else [plain, Engined(plain, room(plain.model.config))]
    for name in peers:
        tell(name)
        subjects.append(peer(name).open(name, device, dtype, seed, small=small))
    return subjects
