"""Cells one after the other, or several at once: small models train faster side by side than on many threads."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
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
        base: Gives the frozen tower, the tokenizer, and what else a course keeps.
        cache: Folder for the patches of the training pictures.
        jobs: How many run at once. Of several, each is a process of one thread, which shows no progress of its own.
        console: Where progress is shown.

    Raises:
        Exception: the first that a cell raised. Of several jobs, those that already run are waited for and yielded
            first, and no other begins; if one of them fails too, that is printed.
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
        waiting, failure = iter(cells), None
        running: dict[Future[dict[str, Any]], Cell] = {}

        def begin(most: int) -> None:  # no more than can run: what a pool has taken in cannot be taken back
            running.update({pool.submit(_run, cell, cache): cell for cell in islice(waiting, most)})

        begin(jobs)
        while running:
            for one in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(one)
                if (error := one.exception()) is None:
                    yield cell, one.result()
                    bar.console.print(f"done: [bold]{cell}[/]")
                    bar.advance(task)
                else:
                    bar.console.print(f"failed: [bold]{cell}[/]: {escape(str(error))}")
                    failure = failure or error
            if failure is None:
                begin(jobs - len(running))
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
