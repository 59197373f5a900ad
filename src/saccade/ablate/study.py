"""What a study is: models trained side by side, the rows they leave in tables, and what is claimed of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.config import SaccadeConfig
from saccade.train.stages import Stage

Build = Callable[[], SaccadeConfig]
TOWER = ("model.vision_tower",)
QUESTIONS = 500


@dataclass(frozen=True)
class Claim:
    """That one row is ahead of another, as the paper found or as it would follow.

    Attributes:
        better: The row that should be ahead.
        worse: The other one.
        on: Heading in `Study.scored_apart` of the questions on which it should; empty for all.
        cut: Of the other's errors it should avoid more than so many percent; 0 for no goal of that kind.
        behind: It should lack fewer than so many points; 0 for no goal of that kind.
    """

    better: str
    worse: str
    on: str = ""
    cut: float = 0.0
    behind: float = 0.0


@dataclass(frozen=True)
class Block:
    """Rows that one block of a paper's table compares.

    Attributes:
        title: What is varied.
        variants: Names of rows, in the table's order.
        claims: What the paper concludes.
    """

    title: str
    variants: tuple[str, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Course:
    """Stages one after the other, with the tower frozen in all of them, and a score after each.

    Attributes:
        stages: By the name of the model that each leaves: a row of the tables.
        build: Returns the configuration of a model that is fresh but for what it keeps; None for the base itself.
        start: Row of the model as it is before the first stage; empty if that is not scored.
        keeps: Modules of a fresh model that start from the base's weights, its tower among them.
    """

    stages: Mapping[str, Stage]
    build: Build | None = None
    start: str = ""
    keeps: tuple[str, ...] = TOWER

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the tables that it leaves, in order."""
        return (*([self.start] if self.start else []), *self.stages)

    def config(self, base: SaccadeConfig) -> SaccadeConfig:
        """Return the configuration of the model that is trained."""
        return base if self.build is None else self.build()


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """Courses that are scored alike, and the tables that compare what they leave.

    Attributes:
        name: What `saccade train ablate` calls it.
        title: Heading of its page.
        source: Where in a paper it stands.
        families: Families of the rendered world that are asked about.
        variants: What the courses are made from, by name; a cell of the study is one of these from one seed.
        blocks: Tables.
        published: The paper's own figures, row by benchmark.
        scored_apart: Questions that get a column of their own, by its heading: families, or forms as
            `family.form`; the first words of a form stand for all forms that begin so.
        questions: At most so many of each family, spread evenly over the frozen test; None for all.
        presumes: What the base must have learned for the study to mean anything; such a study runs only when named.
        note: What a reader of the tables should know besides.
    """

    name: str
    title: str
    source: str
    families: Collection[str]
    variants: Mapping[str, Any]
    blocks: tuple[Block, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scored_apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: int | None = QUESTIONS
    presumes: str = ""
    note: str = ""

    @abstractmethod
    def course(self, variant: str) -> Course:
        """Return what is trained for a variant."""
