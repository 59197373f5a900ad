"""Work that is killed at random moments and begun again where it stood."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

Start = Callable[..., BaseProcess]


def server(preload: Sequence[str]) -> Start:
    """What starts processes in which modules are loaded already: once, not after every kill."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))

    def start(task: Callable[..., object], *given: object) -> BaseProcess:
        process = context.Process(target=task, args=given)
        process.start()
        return process

    start(time.sleep, 0).join()  # the server is ready
    return start


def seconds_of(process: BaseProcess) -> float:
    """How long a process takes to its good end."""
    before = time.perf_counter()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - before


def killed_and_repeated(
    start: Start, task: Callable[[Path], object], folder: Path, kills: int, longest: float
) -> Iterator[Path]:
    """Yield the folder of every run that came to its end, until so many kills fell among them.

    A run is killed within `longest` seconds of its start, and begun again in the same folder.
    """
    dice, killed, ends = np.random.default_rng(20251121), 0, 0
    while killed < kills or not ends:
        out = folder / f"killed-{ends}"
        process = start(task, out)
        process.join(dice.uniform(0, longest) if killed < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
            continue
        assert process.exitcode == 0
        ends += 1
        yield out
