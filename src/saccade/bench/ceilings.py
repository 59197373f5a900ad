"""What this machine can do at most, measured: how fast it reads memory, and how fast it multiplies matrices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

import saccade.engine.cpu  # noqa: F401 (registers the operators)
from saccade.bench.memory import free_bytes
from saccade.bench.rounds import significant
from saccade.errors import ConfigError
from saccade.evaluate.provenance import machine
from saccade.vlm.answers import Stopwatch

Shape = tuple[int, int, int]
_Result = TypeVar("_Result")

SAMPLES = 5
LEAST_SECONDS = 0.05  # of a sample: far above the resolution of the clock and the cost of a launch
READ_BYTES = {"cpu": 1 << 30, "cuda": 1 << 32}  # far more than the last cache holds
SQUARES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
SLOW = 2.0  # seconds of one product after which no larger square is tried


@dataclass(frozen=True)
class Ceilings:
    """Rates that nothing on this machine can pass.

    Attributes:
        machine: Its name.
        device: cpu or cuda.
        threads: Threads of a CPU.
        dtype: Of the matrices.
        memory_read: Bytes per second of a reduction that reads a buffer once and writes nothing; where it was measured
            beside every round, the median.
        square: FLOPs per second of the best large square product; on a processor also of those in float32.
        matrix: FLOPs per second of the products a model needs, by stage.
        shapes: Rows, inner width and columns of those.
    """

    machine: str
    device: str
    threads: int
    dtype: str
    memory_read: float
    square: float
    matrix: dict[str, float]
    shapes: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        rates = {name: significant(rate) for name, rate in self.matrix.items()}
        own = {"memory_read": significant(self.memory_read), "square": significant(self.square), "matrix": rates}
        return asdict(self) | own

    def least_seconds(self, flops: float, read: float) -> float:
        """Seconds below which work cannot take: by the best matrix rate or by the memory, whichever is later."""
        return max(flops / max([self.square, *self.matrix.values()]), read / self.memory_read)


class ReadProbe:
    """How fast memory is read right now: a processor's may be shared with other machines, and changes within seconds.

    Args:
        device: Whose memory; a buffer in it is held as long as the probe.
    """

    def __init__(self, device: torch.device) -> None:
        size = min(READ_BYTES[device.type], free_bytes(device) // 4)
        self._buffer = torch.ones(size // 4, dtype=torch.float32, device=device)
        self._steady = None if device.type == "cpu" else self.rate()

    def rate(self) -> float:
        """Return the bytes per second of the fastest of several reductions."""
        buffer, device = self._buffer, self._buffer.device
        return max(buffer.nbytes / _seconds(partial(call, buffer), device) for call in (torch.sum, torch.amax))

    def around(self, run: Callable[[], _Result]) -> tuple[_Result, float]:
        """Return what a run returns and the rate beside it: the greater of those before and after, where it changes."""
        if self._steady is not None:
            return run(), self._steady
        before = self.rate()
        result = run()
        return result, max(before, self.rate())


def measure_ceilings(
    device: torch.device,
    dtype: torch.dtype,
    shapes: Mapping[str, Shape],
    on_step: Callable[[], None] | None = None,
) -> Ceilings:
    """Measure the ceilings of a device; medians of several samples each, after a warm-up.

    Args:
        device: The device.
        dtype: Type of the matrices.
        shapes: Products to measure beside the squares: rows, inner width, columns.
        on_step: Called after every measurement.

    Raises:
        ConfigError: for a device that is neither a CPU nor CUDA.
    """
    if device.type not in READ_BYTES:
        raise ConfigError(f"the ceilings of {device.type} are not known how to measure: use cpu or cuda")
    tell = on_step or (lambda: None)
    read = ReadProbe(device).rate()
    tell()
    matrix = {}
    for name, shape in shapes.items():
        matrix[name] = _matrix_rate(device, dtype, shape)
        tell()
    # A processor without a unit for short numbers multiplies long ones faster, and the engine makes use of that.
    square = max(_square_rate(device, kind, tell) for kind in _kinds(device, dtype))
    return Ceilings(
        machine=machine(),
        device=device.type,
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        memory_read=read,
        square=square,
        matrix=matrix,
        shapes={name: list(shape) for name, shape in shapes.items()},
    )


def steps_of(device: torch.device, dtype: torch.dtype, shapes: Mapping[str, Shape]) -> int:
    """Count the measurements of `measure_ceilings`, for a progress bar; slow machines make fewer."""
    return 1 + len(shapes) + len(_kinds(device, dtype)) * len(SQUARES[device.type])


def read_ceilings(path: Path) -> Ceilings:
    """Read ceilings out of a JSON file that `saccade bench --out` wrote, or `saccade plan --measure --json`.

    Raises:
        ConfigError: when the file holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        held = found.get("ceilings", found)
        return Ceilings(**{field.name: held[field.name] for field in fields(Ceilings)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} holds no ceilings ({type(error).__name__}: {error}): write one with `saccade bench --out`"
        ) from error


def _kinds(device: torch.device, dtype: torch.dtype) -> set[torch.dtype]:
    return {dtype, torch.float32} if device.type == "cpu" else {dtype}


def _square_rate(device: torch.device, dtype: torch.dtype, tell: Callable[[], None]) -> float:
    """Return the best rate of the squares, as many as do not take too long."""
    best = 0.0
    for side in SQUARES[device.type]:
        rate = _matrix_rate(device, dtype, (side, side, side))
        best = max(best, rate)
        tell()
        if 2 * (2 * side) ** 3 / rate > SLOW:
            break
    return best


def _matrix_rate(device: torch.device, dtype: torch.dtype, shape: Shape) -> float:
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)  # as a linear layer keeps it
    output = torch.empty(rows, columns, dtype=dtype, device=device)
    products: list[Callable[[], object]] = [lambda: torch.mm(left, right.T, out=output)]
    if device.type == "cpu" and dtype == torch.bfloat16:  # of which the engine has kernels of its own
        products.append(partial(torch.ops.saccade.linear, left, right))
    return 2 * rows * inner * columns / min(_seconds(product, device) for product in products)


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Median seconds of one call, over samples of as many calls as take `LEAST_SECONDS`."""
    watch = Stopwatch(device)

    def sample(repeats: int) -> float:
        start = watch.now()
        for _ in range(repeats):
            call()
        return (watch.now() - start) / repeats

    sample(1)
    repeats = max(1, math.ceil(LEAST_SECONDS / sample(1)))
    return median(sample(repeats) for _ in range(SAMPLES))
