"""Shards: tar files with the members of a row side by side, read in place; only where they stand is kept in memory.

A row is what webdataset calls a sample: members in a row whose names agree up to the first dot after the last slash.
`KEY.json` holds its fields, or `KEY.txt` a caption; `KEY.jpg`, `KEY.png`, `KEY.webp` and so on are its pictures. An
empty one stands for no picture: so rows of text alone are packed.
"""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.formats import picture_field
from saccade.data.json_files import parse_object
from saccade.data.records import Record, check_index
from saccade.data.rows import RowError
from saccade.data.watched import watched
from saccade.errors import DataError

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_NOWHERE = -1


class Shards:
    """The rows of tar files, one file after the other.

    Args:
        paths: The files, not compressed.

    Raises:
        DataError: when one cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        shards, records, firsts, pictures = array("i"), array("q"), array("q", [0]), array("q")
        with watched("reading shards", len(paths)) as advance:
            for number, path in enumerate(paths):
                for sample in _samples(path):
                    shards.append(number)
                    records.append(sample.record)
                    pictures.extend(sample.pictures)
                    firsts.append(len(pictures))
                advance(1)
        self.shards, self.records = np.asarray(shards), np.asarray(records)
        self.firsts, self.pictures = np.asarray(firsts), np.asarray(pictures)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """Read a row with the bytes of its pictures; raises RowError where they do not belong together."""
        check_index(index, len(self))
        path = self.paths[self.shards[index]]
        places = self.pictures[self.firsts[index] : self.firsts[index + 1]].tolist()
        with tarfile.open(path, "r:") as archive:
            shown = [_member(archive, place) for place in places]
            if self.records[index] == _NOWHERE:
                raise RowError.at(f"{path}:{shown[0].name}", "has neither a .json nor a .txt beside it: add one")
            own = _member(archive, int(self.records[index]))
        where = f"{path}:{own.name}"
        fields = parse_object(own.data, where) if own.name.endswith(".json") else _caption(own.data, where)
        ordered = _in_order(where, picture_field(where, fields), shown)
        return Record(where, {**fields, "image": ordered, "images": None}, None)


class _Sample(NamedTuple):
    """Where the headers of the members of a row stand in their shard."""

    record: int
    pictures: list[int]


class _Member(NamedTuple):
    name: str
    data: bytes


def _samples(path: Path) -> Iterator[_Sample]:
    """Find the rows of a shard by the headers of its members.

    Raises:
        DataError: when it cannot be read to its end.
    """
    key, found = "", dict[str, int]()
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if not member.isfile() or not stem:
                    continue
                if f"{folder}/{stem}" != key:
                    yield from _sample(found)
                    key, found = f"{folder}/{stem}", {}
                if member.size or not _is_picture(suffix):
                    found[suffix] = member.offset
            yield from _sample(found)
            _check_end(archive)
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path} is not a whole tar file ({error}): unpack it if compressed, or fetch it again"
        ) from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros follow the last member: the library takes a damaged header for the end."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    rest = archive.fileobj.read(2 * tarfile.RECORDSIZE)
    if len(rest) < tarfile.BLOCKSIZE or any(rest):
        raise tarfile.ReadError(f"at byte {archive.offset} it neither goes on nor ends")


def _sample(found: dict[str, int]) -> Iterator[_Sample]:
    """Yield the row that some members make, by their suffixes; members of other kinds are no part of a row."""
    pictures = [place for suffix, place in found.items() if _is_picture(suffix)]
    record = found.get("json", found.get("txt", _NOWHERE))
    if pictures or record != _NOWHERE:
        yield _Sample(record, pictures)


def _is_picture(suffix: str) -> bool:
    return suffix.lower().rpartition(".")[2] in PICTURES


def _member(archive: tarfile.TarFile, place: int) -> _Member:
    """Read the member whose header stands at a place."""
    assert archive.fileobj is not None
    archive.fileobj.seek(place)
    member = tarfile.TarInfo.fromtarfile(archive)
    content = archive.extractfile(member)
    assert content is not None
    return _Member(member.name, content.read())


def _caption(text: bytes, where: str) -> dict[str, Any]:
    try:
        return {"caption": text.decode("utf-8").removesuffix("\n")}
    except UnicodeDecodeError as error:
        raise RowError.at(where, f"is not text in UTF-8 ({error}): convert it") from error


def _in_order(where: str, names: Any, shown: Sequence[_Member]) -> list[bytes]:
    """Return the pictures beside a record in the order in which it names them, or that of the shard.

    Records keep the names that their pictures had before they were packed, so names that are not those of the members
    beside it are no error where there is only one way to read them.

    Raises:
        RowError: when the record names another number of pictures, or several whose order cannot be told.
    """
    if names is None:
        return [member.data for member in shown]
    wanted = [str(name).rpartition("/")[2] for name in (names if isinstance(names, list) else [names])]
    if len(wanted) != len(shown):
        raise RowError.at(
            where, f"names {len(wanted)} pictures, {len(shown)} lie beside it: pack all", "missing picture"
        )
    beside = {member.name.rpartition("/")[2]: member.data for member in shown}
    if beside.keys() == set(wanted):
        return [beside[name] for name in wanted]
    if len(shown) > 1:
        raise RowError.at(where, f"names {', '.join(wanted)}, beside it lie {', '.join(beside)}: name these in order")
    return [member.data for member in shown]
