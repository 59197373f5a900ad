"""The queue: every variant of every study from every seed, each cell stored once it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from saccade.ablate.cell import run_cell
from saccade.ablate.studies import Study
from saccade.ablate.table import render
from saccade.errors import DataError
from saccade.vlm import VLM

PAGE = "README.md"


def run_studies(studies: Sequence[Study], out: Path, seeds: int, base: VLM, cache: Path) -> Path:
    """Run the cells that have no result yet, and write the page anew after each.

    A cell that was interrupted begins again.

    Args:
        studies: What to run.
        out: Folder of the results, one JSON file per cell.
        seeds: Seeds 0 to `seeds` - 1, all variants from one before the next.
        base: Gives the frozen tower.
        cache: Folder for what can be computed again.

    Returns:
        The page.

    Raises:
        DataError: when a stored result cannot be read.
    """
    console = Console(stderr=True, highlight=False)
    waiting = [cell for cell in _cells(studies, seeds) if not _file(out, *cell).exists()]
    for done, (study, variant, seed) in enumerate(waiting):
        console.print(f"[bold]{study.name}: {variant}[/], seed {seed} ({len(waiting) - done} to go)")
        result = run_cell(study, variant, seed, base, cache)
        file = _file(out, study, variant, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        _write_page(out, studies)
    return _write_page(out, studies)


def read_results(out: Path, study: Study) -> list[dict[str, Any]]:
    """Return the stored results of a study.

    Raises:
        DataError: when one cannot be read.
    """
    results = []
    for file in sorted((out / study.name).glob("*.json")):
        try:
            results.append(json.loads(file.read_text()))
        except ValueError as error:
            raise DataError(f"{file} is not a result ({error}): remove it, and it is computed again") from error
    return results


def _cells(studies: Sequence[Study], seeds: int) -> Iterator[tuple[Study, str, int]]:
    for seed in range(seeds):
        for study in studies:
            for variant in study.variants:
                yield study, variant, seed


def _file(out: Path, study: Study, variant: str, seed: int) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in variant.lower())
    return out / study.name / f"{name}-{seed}.json"


def _write_page(out: Path, studies: Sequence[Study]) -> Path:
    page = out / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render([(study, read_results(out, study)) for study in studies]))
    return page
