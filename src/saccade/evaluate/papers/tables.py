"""The score tables of the papers as data, and the means that they print, computed again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from saccade.config import Frozen
from saccade.config.frozen import to_part
from saccade.data.mixtures import Download
from saccade.errors import ConfigError

FILES = Path(__file__).parent

Number = int | float


class Row(Frozen):
    """A system's figures in one table.

    Attributes:
        name: What the table calls it, told apart where the table does not.
        scores: One for each column; None where the paper prints none.
        group: Block of the table that it stands in.
        facts: What else its row says.
        model: Rows of this name, in whichever tables, are about one model; empty for a model that is met once.
    """

    name: str
    scores: tuple[Number | None, ...]
    group: str = ""
    facts: dict[str, str] = Field(default_factory=dict)
    model: str = ""


class Mean(Frozen):
    """A printed mean over all other columns of a table.

    Attributes:
        column: Its own column, the last.
        divide: What figures of a column are divided by first, to bring them to percent.
        differs: Rows whose printed mean is not what their figures give, with what they give.
    """

    column: str
    divide: dict[str, Number] = Field(default_factory=dict)
    differs: dict[str, float] = Field(default_factory=dict)


class Table(Frozen):
    """One table of a paper, systems in rows.

    Attributes:
        name: What code calls it.
        source: What the paper calls it.
        title: What it compares.
        columns: Benchmarks or measures.
        rows: Systems.
        mean: The mean that it prints, if it prints one.
    """

    name: str
    source: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    mean: Mean | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Table:
        if len({row.name for row in self.rows}) < len(self.rows):
            raise ValueError(f"{self.name} has two rows of one name")
        for row in self.rows:
            if len(row.scores) != len(self.columns):
                raise ValueError(f"{self.name}, {row.name}: {len(row.scores)} figures for {len(self.columns)} columns")
        if self.mean is not None and self.mean.column != self.columns[-1]:
            raise ValueError(f"{self.name}: the mean {self.mean.column!r} is not the last column")
        return self

    def figures(self, row: str) -> dict[str, Number]:
        """Return what the table prints for a row, by column.

        Raises:
            ConfigError: when there is no such row.
        """
        for one in self.rows:
            if one.name == row:
                return {name: score for name, score in zip(self.columns, one.scores, strict=True) if score is not None}
        raise ConfigError(f"{self.name} has no row {row!r}: it has {', '.join(one.name for one in self.rows)}")

    def places(self, column: int) -> int:
        """Return how many decimals a column is printed with."""
        return max(
            (len(repr(row.scores[column]).partition(".")[2]) for row in self.rows if row.scores[column]), default=0
        )

    def means(self) -> dict[str, float]:
        """Return the mean of each row computed from its figures; empty for a table that prints none."""
        return {} if self.mean is None else {row.name: self.mean_of(self.figures(row.name)) for row in self.rows}

    def mean_of(self, figures: Mapping[str, Number]) -> float:
        """Return the mean that this table prints, of one's own figures by column.

        Raises:
            ConfigError: when the table prints no mean, or a column is missing.
        """
        if self.mean is None:
            raise ConfigError(f"{self.name} prints no mean")
        missing = [name for name in self.columns[:-1] if name not in figures]
        if missing:
            raise ConfigError(f"the {self.mean.column} of {self.name} needs {', '.join(missing)} as well")
        parts = [figures[name] / self.mean.divide.get(name, 1) for name in self.columns[:-1]]
        return sum(parts) / len(parts)


class Conflict(Frozen):
    """A model that two tables print different figures for.

    Attributes:
        model: The rows' `model`.
        column: Where they differ.
        values: The figures, in the order of the tables.
    """

    model: str
    column: str
    values: tuple[Number, ...]


class Weights(Frozen):
    """A released checkpoint.

    Attributes:
        row: Name of its row in the paper's tables.
        hub: Name on the hub.
        gigabytes: Size of its weights.
    """

    row: str
    hub: str
    gigabytes: float


class Scored(Frozen):
    """A benchmark that the paper reports, and how one's own score of it is obtained.

    Attributes:
        column: What the paper's tables call it.
        task: What the paper's toolkit calls it.
        split: Split that is asked about.
        get: What is downloaded.
        set: What `saccade eval` calls it; None for one that needs the toolkit.
        copy_name: Name of its local copy; by default that of the set.
        samples: Questions; None where that is not known.
        out_of: What the paper prints for a perfect model.
        judge: Whether the toolkit asks another model, over a network, to judge the answers.
        note: What keeps scores apart, or is not known.
    """

    column: str
    task: str
    split: str
    get: tuple[Download, ...] = Field(min_length=1)
    set: str | None = None
    copy_name: str | None = None
    samples: PositiveInt | None = None
    out_of: PositiveInt = 100
    judge: bool = False
    note: str | None = None

    @property
    def local(self) -> str | None:
        """Name of a local copy; None for a benchmark that needs the toolkit."""
        return self.copy_name or self.set

    @property
    def gigabytes(self) -> float | None:
        """Size of the download, None where it is not known."""
        sizes = [one.gigabytes for one in self.get]
        return sum(size for size in sizes if size) if all(sizes) else None


class Paper(Frozen):
    """A paper's tables, and what repeating their scores takes.

    Attributes:
        name: What `saccade eval paper` calls it, and the wording of prompts as well.
        title: Of the paper.
        cited: Where it appeared.
        note: What readers of its figures should know.
        headline: Names of the tables that report the released checkpoints.
        tool: The toolkit it was scored with.
        command: How that is called, with {model}, {task} and {out}.
        weights: Released checkpoints.
        benchmarks: What it reports.
        conflicts: Where its tables differ from each other; a test finds all of them.
        tables: Its tables.
    """

    name: str
    title: str
    cited: str
    note: str
    headline: tuple[str, ...]
    tool: str
    command: str
    weights: tuple[Weights, ...] = Field(min_length=1)
    benchmarks: tuple[Scored, ...] = Field(min_length=1)
    conflicts: tuple[Conflict, ...] = ()
    tables: tuple[Table, ...] = Field(min_length=1)

    def table(self, name: str) -> Table:
        """Return a table by name.

        Raises:
            ConfigError: when there is none of that name.
        """
        for one in self.tables:
            if one.name == name:
                return one
        raise ConfigError(f"{self.name} has no table {name!r}: it has {', '.join(one.name for one in self.tables)}")

    def published(self, column: str) -> dict[str, Number]:
        """Return what the paper prints about a benchmark for the released checkpoints, by row."""
        released = [one.row for one in self.weights]
        rows = [(row.name, table.figures(row.name)) for table in map(self.table, self.headline) for row in table.rows]
        return {name: figures[column] for name, figures in rows if name in released and column in figures}


def printed(name: str, table: str, rows: Mapping[str, str], columns: Sequence[str]) -> dict[str, dict[str, Number]]:
    """Return some columns of a paper's table for some rows, by one's own names for these.

    Raises:
        ConfigError: when there is no such paper, table or row, or it prints nothing in one of the columns.
    """
    found = {}
    for own, theirs in rows.items():
        figures = paper(name).table(table).figures(theirs)
        missing = [column for column in columns if column not in figures]
        if missing:
            raise ConfigError(f"{name}, {table} prints no {', '.join(missing)} for {theirs}")
        found[own] = {column: figures[column] for column in columns}
    return found


def names() -> list[str]:
    """Return the names of all papers."""
    return sorted(path.stem for path in FILES.glob("*.json"))


@cache
def paper(name: str) -> Paper:
    """Return a paper's data.

    Raises:
        ConfigError: when there is none of this name.
    """
    if name not in names():
        raise ConfigError(f"there is no paper {name!r}: known are {', '.join(names())}")
    return to_part(f"paper {name}", Paper, json.loads((FILES / f"{name}.json").read_text(encoding="utf-8")))
