"""How the papers' toolkits ask each benchmark, as data: the words, the longest answer, the metric."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import NonNegativeFloat, PositiveInt

from saccade.config import Frozen
from saccade.config.frozen import to_part
from saccade.errors import ConfigError

FILE = Path(__file__).parent / "tasks.yaml"


class Task(Frozen):
    """How a toolkit asks a benchmark.

    Attributes:
        prompt: What stands around the question, whose place is marked by `{question}`.
        max_new_tokens: Answers end there at the latest.
        metric: What the toolkit reports.
        temperature: 0 is greedy.
        options: What today's toolkit must be told to ask as the paper's did.
    """

    prompt: str
    max_new_tokens: PositiveInt
    metric: str
    temperature: NonNegativeFloat = 0
    options: str = ""


def tasks(paper: str) -> dict[str, Task]:
    """Return the tasks of a paper by the columns of its tables.

    Raises:
        ConfigError: for an unknown paper.
    """
    if paper not in _all():
        raise ConfigError(f"no tasks of {paper!r} are known: choose one of {', '.join(_all())}")
    return {column: to_part(f"task {column}", Task, fields) for column, fields in _all()[paper].items()}


@cache
def _all() -> Mapping[str, Mapping[str, Any]]:
    held: Mapping[str, Mapping[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return held
