"""What the papers trained on, as data: which sets, from where, under which license, and how they become our rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from saccade.config import Frozen
from saccade.config.frozen import to_part
from saccade.data.convert.formats import Columns, FormatName
from saccade.data.rows import Kind
from saccade.data.sources import Source
from saccade.errors import ConfigError, DataError

FILES = Path(__file__).parent / "mixtures"


class Download(Frozen):
    """Files of one data set of the hub, or one file of another site.

    Attributes:
        hub: Name of the data set.
        url: Address of a file that is not on the hub.
        files: Patterns of the files that are wanted of the data set.
        ignore: Patterns of those that are not.
        archives: Names or patterns of the files that are unpacked.
        joined: The archives are the pieces of one.
        flat: Leave out the folders inside the archives.
        to: Folder the archives are unpacked to; by default the one they lie in.
        gigabytes: Size, where it is known.
        license: As the set's card says; None where it says nothing.
    """

    hub: str | None = None
    url: str | None = None
    files: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    joined: bool = False
    flat: bool = False
    to: str | None = None
    gigabytes: PositiveFloat | None = None
    license: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Download:
        if (self.hub is None) == (self.url is None):
            raise ValueError("name either `hub` or `url`")
        return self

    @property
    def name(self) -> str:
        """What people know it by."""
        return self.hub or self.url or ""

    @property
    def folder(self) -> str:
        """Folder it lies in, below that of everything fetched."""
        if self.hub is not None:
            return f"hub/{self.hub.replace('/', '--')}"
        address = urlsplit(self.url or "")
        return f"web/{address.netloc}{address.path.rpartition('/')[0]}".rstrip("/")


class Entry(Frozen):
    """One data set of a mixture.

    Attributes:
        name: What `--only` calls it.
        stage: Stage of the training that uses it.
        kind: What its rows are.
        get: What is downloaded; the records lie in the first. Nothing for what was never published.
        records: Patterns of the files that hold the records, from the folder of the first download.
        pictures: Folder that names of pictures start from, below that of everything fetched; by default that of the
            first download.
        format: How records are published; None for shards, which are read as they are.
        columns: Where the records keep what.
        where: Only records whose columns have these values.
        drop: Positions of records, counted from 0, that are left out on purpose.
        share: Its share of the mixture's rows; by default each row once.
        rows: Number of records without those of `drop`, where it is known.
        sure: "exact": the paper names this set and this is it. "ours": the paper names it, but which release of it, or
            which part, is our choice. "unknown": the paper does not say, or the format could not be seen.
        note: What a person should know, such as pictures that no command can fetch.
    """

    name: str
    stage: str
    kind: Kind
    get: tuple[Download, ...] = ()
    records: tuple[str, ...] = ()
    pictures: str | None = None
    format: FormatName | None = None
    columns: Columns = Columns()
    where: dict[str, str] = Field(default_factory=dict)
    drop: frozenset[int] = frozenset()
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    rows: PositiveInt | None = None
    sure: Literal["exact", "ours", "unknown"]
    note: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Entry:
        if bool(self.get) != bool(self.records):
            raise ValueError(f"{self.name}: `get` and `records` belong together")
        if not self.get and self.sure != "unknown":
            raise ValueError(f"{self.name}: what cannot be fetched is not known")
        return self

    @property
    def gigabytes(self) -> float | None:
        """Size of all downloads, None where one is not known."""
        sizes = [one.gigabytes for one in self.get]
        return sum(size for size in sizes if size) if sizes and all(sizes) else None

    @property
    def licenses(self) -> str:
        """Licenses of all downloads."""
        return ", ".join(dict.fromkeys(one.license or "not stated" for one in self.get))


class Listing(Frozen):
    """A mixture as it was published.

    Attributes:
        name: What `saccade data fetch` calls it.
        title: One line for people.
        paper: Where it is described.
        note: What is not known about it.
        entries: Its data sets.
    """

    name: str
    title: str
    paper: str
    note: str | None = None
    entries: tuple[Entry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Listing:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError(f"entries share a name: {names}")
        return self

    def choose(self, only: Sequence[str] = ()) -> tuple[Entry, ...]:
        """Return the entries of given names, or of given stages; all of them if none is given.

        Raises:
            DataError: when a name is neither that of an entry nor of a stage.
        """
        known = {name for entry in self.entries for name in (entry.name, entry.stage)}
        for name in only:
            if name not in known:
                raise DataError(f"{self.name} has neither an entry nor a stage {name!r}: it has {sorted(known)}")
        return tuple(entry for entry in self.entries if not only or {entry.name, entry.stage} & set(only))

    def rows_file(self, entry: Entry) -> str:
        """Name of the file, in the folder of everything fetched, of an entry's rows; or of one that says it is whole.

        Rows of shards stay in these; without such a file one could train on those that came before an interruption.
        """
        return f"{self.name}.{entry.name}.{'fetched' if entry.format is None else 'jsonl'}"

    def sources(self, folder: Path, only: Sequence[str] = ()) -> tuple[Source, ...]:
        """Return what a recipe trains on, from the folder that the mixture was fetched to.

        Raises:
            DataError: when something is not there yet.
        """
        found = []
        for entry in self.choose(only):
            if entry.get:
                paths = self._paths(folder, entry)
                found += [Source(path=str(path), kind=entry.kind, share=entry.share) for path in paths]
        return tuple(found)

    def _paths(self, folder: Path, entry: Entry) -> list[Path]:
        mark = folder / self.rows_file(entry)
        paths = [mark] if entry.format else [folder / entry.get[0].folder / pattern for pattern in entry.records]
        if not mark.is_file():
            raise DataError(
                f"{entry.name} is not in {folder}: fetch it with saccade data fetch {self.name} --only {entry.name} "
                f"--out {folder}"
            )
        return paths


def names() -> list[str]:
    """Return the names of all mixtures."""
    return sorted(path.stem for path in FILES.glob("*.yaml"))


@cache
def listing(name: str) -> Listing:
    """Return a mixture.

    Raises:
        ConfigError: when there is none of this name.
    """
    path = FILES / f"{name}.yaml"
    if name not in names():
        raise ConfigError(f"there is no mixture {name!r}: known are {', '.join(names())}")
    return to_part(f"mixture {name}", Listing, {"name": name} | yaml.safe_load(path.read_text(encoding="utf-8")))
