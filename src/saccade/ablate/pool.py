"""Cells one after the other, or several at once: small models train faster side by side than on many threads."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from saccade.ablate.cell import run_cell
from saccade.ablate.stored import course_patches
from saccade.ablate.study import Study
from saccade.vlm import VLM


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    study: Study
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.study.name}: {self.variant}, seed {self.seed}"


def run_cells(
    cells: Sequence[Cell], base: VLM, cache: Path, jobs: int, console: Console
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Run cells and yield each with its result, as they end.

    Args:
        cells: What to run; the first ones begin first.
        base: Gives the frozen tower and the tokenizer.
        cache: Folder for the patches of the training pictures.
        jobs: How many run at once. Of several, each is a process of one thread, which shows no progress of its own.
        console: Where progress is shown.
    """
    if jobs == 1:
        for done, cell in enumerate(cells):
            console.print(f"[bold]{cell}[/] ({len(cells) - done} to go)")
            yield cell, run_cell(cell.study, cell.variant, cell.seed, base, cache)
        return
    for study, variant in {(cell.study.name, cell.variant): (cell.study, cell.variant) for cell in cells}.values():
        course_patches(study.course(variant), base, cache)  # here, so that no two processes compute the same
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as bar,
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (base,)) as pool,
    ):
        task = bar.add_task("cells", total=len(cells))
        running: dict[Future[dict[str, Any]], Cell] = {pool.submit(_run, cell, cache): cell for cell in cells}
        left, failure = set(running), None
        try:
            while left:
                ended, left = wait(left, return_when=FIRST_COMPLETED)
                for one in ended:
                    if (error := one.exception()) is not None:
                        failure = failure or error
                        continue
                    yield running[one], one.result()
                    bar.console.print(f"done: [bold]{running[one]}[/]")
                    bar.advance(task)
                if failure is not None:  # those that run are kept, and no other begins
                    left = {one for one in left if not one.cancel()}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failure is not None:
            raise failure


_base: VLM | None = None  # of a process of the pool


def _begin(base: VLM) -> None:
    """Set up a process of the pool."""
    global _base  # noqa: PLW0603 (what a pool offers to keep something between calls)
    _base = base
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (bars of several processes would mix)


def _run(cell: Cell, cache: Path) -> dict[str, Any]:
    assert _base is not None
    return run_cell(cell.study, cell.variant, cell.seed, _base, cache)
