"""Mixtures of the papers are fetched: downloaded, unpacked and converted, each step going on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from saccade.data.convert.archives import unpack
from saccade.data.convert.formats import FORMATS
from saccade.data.convert.records import find_files, read_records
from saccade.data.convert.write import Progress, write_rows
from saccade.data.mixtures import Download, Entry, Listing
from saccade.data.records import Record
from saccade.data.rows import RowError
from saccade.data.watched import watched
from saccade.errors import DataError

# Puts the files of a download into a folder.
Downloader = Callable[[Download, Path], None]

_RANGE_DONE = 416  # what a server answers when asked for bytes behind the last one
_PARTIAL = 206


@dataclass(frozen=True)
class Fetched:
    """What became of an entry.

    Attributes:
        entry: The entry.
        paths: Its files of rows or patterns of shards; none where nothing was ever published.
        progress: What was converted; None for shards, and for what had been converted before.
    """

    entry: Entry
    paths: tuple[str, ...]
    progress: Progress | None = None


def fetch(
    listing: Listing,
    out: Path,
    *,
    only: Sequence[str] = (),
    skip_bad: bool = False,
    download: Downloader | None = None,
) -> Iterator[Fetched]:
    """Fetch a mixture into a folder, entry by entry; the same call again goes on where it was stopped.

    Args:
        listing: The mixture.
        out: Folder of everything fetched, shared by mixtures, so that what two of them use is fetched once.
        only: Names of entries or stages; all if empty.
        skip_bad: Leave out records that cannot be used instead of stopping.
        download: How files are downloaded; from the hub and the web by default.

    Yields:
        What became of each entry.

    Raises:
        DataError: when something cannot be reached, unpacked or converted, or was asked for by name and never
            published.
    """
    for entry in listing.choose(only):
        if not entry.get:
            if entry.name in only:
                raise DataError(f"{entry.name} cannot be fetched: {entry.note or 'it was never published'}")
            yield Fetched(entry, ())
            continue
        target, progress = out / listing.rows_file(entry), None
        if not target.exists():
            for get in entry.get:
                (download or download_files)(get, out / get.folder)
                _unpack(get, out)
            if entry.format is not None:
                progress = _convert(entry, out, target, skip_bad)
            else:
                find_files(out / entry.get[0].folder, entry.records)
                target.touch()
        yield Fetched(entry, tuple(source.path for source in listing.sources(out, [entry.name])), progress)


def download_files(get: Download, folder: Path) -> None:
    """Download from the hub, or from another site.

    Raises:
        DataError: when it cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if get.url is not None:
        _from_web(get.url, folder)
    else:
        _from_hub(get, folder)


def _from_hub(get: Download, folder: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # An archive that was unpacked may have been removed to save space.
    unpacked = [path.relative_to(folder).as_posix().removesuffix(".unpacked") for path in folder.rglob("*.unpacked")]
    unpacked += get.archives if get.joined and unpacked else ()
    try:
        snapshot_download(
            get.hub or "",
            repo_type="dataset",
            local_dir=folder,
            allow_patterns=list(get.files) or None,
            ignore_patterns=[*get.ignore, *unpacked],
        )
    except GatedRepoError as error:
        raise DataError(
            f"{get.hub} has conditions: accept them on https://huggingface.co/datasets/{get.hub}, then run "
            "`hf auth login` and fetch again"
        ) from error
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise DataError(_unreachable(get.name, error)) from error


def _from_web(url: str, folder: Path) -> None:
    target = folder / urlsplit(url).path.rpartition("/")[2]
    if target.exists() or target.with_name(target.name + ".unpacked").exists():
        return
    part = target.with_name(target.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(request, timeout=60) as answer:
            resumed = getattr(answer, "status", None) == _PARTIAL
            start = start if resumed else 0
            length = answer.headers.get("Content-Length")
            expected = start + int(length) if length else None
            with (
                part.open("ab" if resumed else "wb") as file,
                watched(f"fetching {target.name}", expected or 0) as advance,
            ):
                advance(start)
                while block := answer.read(1 << 20):
                    file.write(block)
                    advance(len(block))
    except HTTPError as error:
        if error.code != _RANGE_DONE:
            raise DataError(_unreachable(url, error)) from error
    except (URLError, OSError) as error:
        raise DataError(_unreachable(url, error)) from error
    else:
        if expected is not None and part.stat().st_size != expected:
            raise DataError(f"{url} broke off: run the same command again, it goes on from there")
    part.replace(target)


def _unreachable(name: str, error: Exception) -> str:
    said = str(error).strip().splitlines()
    return (
        f"{name} cannot be fetched from here ({said[0] if said else type(error).__name__}): check the connection "
        "and run the same command again, it goes on where it stopped; --dry-run shows what is needed without a network"
    )


def _unpack(get: Download, out: Path) -> None:
    folder = out / get.folder
    found = [path for pattern in get.archives for path in _archives(folder, pattern)]
    for group in [found] if get.joined else [[path] for path in found]:
        unpack(group, out / get.to if get.to else folder, flat=get.flat)


def _archives(folder: Path, pattern: str) -> list[Path]:
    """Archives of a pattern, those included that were unpacked and removed since."""
    found = {path.with_name(path.name.removesuffix(".unpacked")) for path in folder.glob(f"{pattern}.unpacked")}
    found |= {path for path in folder.glob(pattern) if path.suffix != ".unpacked"}
    if not found:
        raise DataError(f"{folder} holds no archive {pattern}: fetch it again")
    return sorted(found)


def _convert(entry: Entry, out: Path, target: Path, skip_bad: bool) -> Progress:
    home = out / entry.get[0].folder
    files = [read_records(path) for path in find_files(home, entry.records)]
    with watched(f"converting {entry.name}", sum(count for count, _ in files)) as advance:
        progress = write_rows(
            _wanted(entry, chain.from_iterable(records for _, records in files), advance),
            lambda fields: FORMATS[entry.format or ""](fields, entry.columns, entry.kind),
            target,
            pictures=out / entry.pictures if entry.pictures is not None else home,
            skip_bad=skip_bad,
        )
    if not progress.rows:
        target.unlink()
        raise DataError(
            f"{entry.name} has no usable record among {sum(count for count, _ in files)}: see what {home} holds"
        )
    return progress


def _wanted(
    entry: Entry, records: Iterable[Record | RowError], advance: Callable[[int], None]
) -> Iterator[Record | RowError]:
    for position, record in enumerate(records):
        advance(1)
        if position in entry.drop:
            continue
        if isinstance(record, RowError) or all(record.fields.get(name) == one for name, one in entry.where.items()):
            yield record
