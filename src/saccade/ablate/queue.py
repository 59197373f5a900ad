"""The queue: every variant of every study from every seed, each cell stored once it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from saccade.ablate.cell import settings
from saccade.ablate.pool import Cell, run_cells
from saccade.ablate.studies import STUDIES
from saccade.ablate.study import Study
from saccade.ablate.table import render
from saccade.errors import ConfigError, DataError
from saccade.vlm import VLM

PAGE = "README.md"
SETTINGS = "settings.json"


def run_studies(studies: Sequence[Study], out: Path, seeds: int, base: VLM, cache: Path, jobs: int = 1) -> Path:
    """Run the cells that have no result yet, and write the page anew after each.

    A cell that was interrupted begins again. The page shows every known study that has results in the folder.

    Args:
        studies: What to run.
        out: Folder of the results, one JSON file per cell, and beside them the settings they share.
        seeds: Seeds 0 to `seeds` - 1, all variants from one before the next.
        base: Gives the frozen tower, the tokenizer, and what else a course keeps.
        cache: Folder for what can be computed again.
        jobs: Cells that run at once, each in a process of one thread; 1 runs them here, with all threads.

    Returns:
        The page.

    Raises:
        ConfigError: when the base has another tower, stored results have other settings, or two variants of a study
            share a file; before anything runs.
        DataError: when a stored result cannot be read; before anything runs.
    """
    chosen = {study.name: study for study in studies}  # one that is named twice is run once
    studies, shown = list(chosen.values()), list((STUDIES | chosen).values())
    for study in shown:
        read_results(out, study)
    shared = {study.name: _checked_settings(out, study, base) for study in studies}
    for name, values in shared.items():
        _write_json(out / name / SETTINGS, values)
    console = Console(stderr=True, highlight=False)
    for study in studies:
        if study.presumes:
            console.print(f"[bold]{study.name}[/] presumes {study.presumes}; this is not checked")
    waiting = [cell for cell in _cells(studies, seeds) if not _file(out, cell).exists()]
    for cell, result in run_cells(waiting, base, cache, jobs, console):
        _write_json(_file(out, cell), result)
        _write_page(out, shown)
    return _write_page(out, shown)


def read_results(out: Path, study: Study) -> list[dict[str, Any]]:
    """Return the stored results of a study.

    Raises:
        DataError: when one cannot be read, or is that of another study or of no cell.
    """
    files = sorted(file for file in (out / study.name).glob("*.json") if file.name != SETTINGS)
    results = [_read_json(file) for file in files]
    for file, result in zip(files, results, strict=True):
        if not (result.get("rows") and result.get("study") == study.name):
            raise DataError(f"{file} holds no cell of {study.name}: remove it, and it is computed again")
    return results


def _checked_settings(out: Path, study: Study, base: VLM) -> dict[str, Any]:
    """Return the settings of a study, those of variants it had earlier included, once they fit what is stored."""
    files = {_file(out, Cell(study, variant, 0)) for variant in study.variants}
    if len(files) < len(study.variants):
        raise ConfigError(f"two variants of {study.name} would share a file: let their names differ in a letter")
    current, file = settings(study, base), out / study.name / SETTINGS
    if not file.exists() and read_results(out, study):
        raise ConfigError(f"{file.parent} holds results without their {SETTINGS}: choose an empty folder, or remove it")
    stored = _read_json(file) if file.exists() else {}
    other = [name for name, value in current.items() if stored.get(name, value) != value]
    if other:
        raise ConfigError(
            f"{file.parent} holds results of other settings ({', '.join(other)}; see {file}): choose an empty folder, "
            "or remove it"
        )
    return stored | current


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): remove it, and it is computed again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} cannot be read (it holds no object): remove it, and it is computed again")
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    _write(file, json.dumps(content, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def _cells(studies: Sequence[Study], seeds: int) -> Iterator[Cell]:
    for seed in range(seeds):
        for study in studies:
            for variant in study.variants:
                yield Cell(study, variant, seed)


def _file(out: Path, cell: Cell) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in cell.variant.lower())
    return out / cell.study.name / f"{name}-{cell.seed}.json"


def _write_page(out: Path, studies: Sequence[Study]) -> Path:
    page = out / PAGE
    _write(page, render([(study, read_results(out, study)) for study in studies]))
    return page
