"""Archives of pictures are unpacked member by member; what is there already is not unpacked again."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saccade.data.watched import watched
from saccade.errors import DataError


def unpack(archives: Sequence[Path], folder: Path, *, flat: bool = False) -> None:
    """Unpack a zip, a tar, or a tar that was cut into several files, into a folder.

    A file `ARCHIVE.unpacked` says that it is done; one that was stopped goes on with the members that are missing.

    Args:
        archives: One archive, or the pieces of one in order.
        folder: Where its members go.
        flat: Leave out the folders inside the archive.

    Raises:
        DataError: when it is damaged, of a kind that Python cannot unpack, or its folder takes no more files.
    """
    done = archives[0].with_name(archives[0].name + ".unpacked")
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if len(archives) == 1 and zipfile.is_zipfile(archives[0]):
            _unzip(archives[0], folder, flat)
        else:
            _untar(archives, folder, flat)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the machine, such as a full disk
            raise DataError(
                f"{archives[0]} cannot be unpacked into {folder} ({error}): make room, then run it again"
            ) from error
        raise DataError(f"{archives[0]} cannot be unpacked ({error}): remove it and fetch again") from error
    done.touch()


def _unzip(archive: Path, folder: Path, flat: bool) -> None:
    with zipfile.ZipFile(archive) as opened, watched(f"unpacking {archive.name}", len(opened.infolist())) as advance:
        for member in opened.infolist():
            if not member.is_dir():
                if flat:
                    member.filename = PurePosixPath(member.filename).name
                if not _whole(folder / member.filename, member.file_size):
                    opened.extract(member, folder)
            advance(1)


def _untar(pieces: Sequence[Path], folder: Path, flat: bool) -> None:
    size = sum(piece.stat().st_size for piece in pieces)
    with (
        watched(f"unpacking {pieces[0].name}", size) as advance,
        _Joined(pieces, advance) as stream,
        tarfile.open(fileobj=stream, mode="r|*") as opened,
    ):
        for member in opened:
            if member.isdir():
                continue
            place = PurePosixPath(PurePosixPath(member.name).name if flat else member.name)
            content = opened.extractfile(member) if member.isfile() else None
            if content is None or place.is_absolute() or ".." in place.parts:
                raise tarfile.ExtractError(f"{member.name!r} is no file inside the folder")
            if not _whole(folder / place, member.size):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                with (folder / place).open("wb") as file:
                    shutil.copyfileobj(content, file)


def _whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


class _Joined(io.RawIOBase):
    """Several files read as one, from start to end."""

    def __init__(self, paths: Sequence[Path], advance: Callable[[int], None]) -> None:
        self._waiting, self._advance = list(paths), advance
        self._open = self._waiting.pop(0).open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, less than whole at the end of a piece."""
        count = self._open.readinto(buffer)
        while not count and self._waiting:
            self._open.close()
            self._open = self._waiting.pop(0).open("rb")
            count = self._open.readinto(buffer)
        self._advance(count)
        return count

    def close(self) -> None:
        self._open.close()
        super().close()
