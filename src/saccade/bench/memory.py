"""Memory that is free, and the most that a block of code takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
MACHINE = Path("/proc/meminfo")
RESET_PEAK = "5"  # what Linux takes as the word to forget a process's largest resident size
UNKNOWN_FREE = 4 << 30  # assumed where the system does not say


@dataclass
class Peak:
    """The most memory a block took beyond what was taken before it.

    Attributes:
        working: Bytes; None where the system does not tell, and until the block has ended.
    """

    working: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak of a block: allocated on a CUDA device, resident on a CPU.

    What an allocator kept from earlier blocks and hands out again is not seen on a CPU.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.working = torch.cuda.max_memory_allocated(device) - before
        return
    resettable = _reset_peak()
    held = _kilobytes(STATUS, "VmRSS")
    yield peak
    most = _kilobytes(STATUS, "VmHWM")
    if resettable and held is not None and most is not None:
        peak.working = max(0, most - held) << 10


def free_bytes(device: torch.device) -> int:
    """Bytes that can be taken without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    kilobytes = _kilobytes(MACHINE, "MemAvailable")
    return UNKNOWN_FREE if kilobytes is None else kilobytes << 10


def _reset_peak() -> bool:
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _kilobytes(file: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1])
