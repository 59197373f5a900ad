"""Pictures on their way to the tower: opened and cut by a few threads, seen once, and kept for the next question."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.config import ImageConfig
from saccade.engine.kept import Counts, Kept
from saccade.engine.prompts import Seen
from saccade.errors import ConfigError, PlaceholderMismatchError
from saccade.image.fast import FastPicture, fast_views, normalize_views, open_fast
from saccade.image.geometry import num_views
from saccade.image.transform import ImageSource, open_image, read_file, to_views
from saccade.vlm.answers import Stopwatch
from saccade.vlm.inputs import CutImage, EncodedImage, Picture

# A source as the threads take it: nobody else can change it.
_Owned = str | PathLike[str] | bytes | NDArray[Any]


@dataclass(eq=False)
class StoredPicture:
    """A picture that was opened; all questions about the same picture share one.

    Attributes:
        key: Equal for pictures that look equal to the tower.
        size: Width and height in pixels.
        num_views: Views it is cut into.
        waiting: What the tower will be shown; None once it has seen it, or where the caller brought the patches.
        patches: Raw patches that the caller brought, until the projector has seen them.
        seen: What tower and projector made of it; None before.
        seconds: Time spent on it by stage, as in `saccade.vlm.Timings`: `open` (hashing included) and `preprocess`.
    """

    key: str
    size: tuple[int, int]
    num_views: int
    waiting: CutImage | FastPicture | None = None
    patches: Tensor | None = None
    seen: Seen | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class PictureStore:
    """Opens, cuts and hashes pictures in threads, and keeps what the tower made of them.

    `submit` may be called from any thread. `look` belongs to the one thread that runs the model: no other thread ever
    touches the device, whose graphs do not bear allocations of others while they are captured.

    Files, bytes and arrays are hashed as they come, so that what is known is not decoded again; in the exact mode views
    are hashed too, and a picture that looks the same in another format is not shown to the tower again. A picture that
    is being opened or shown, or that somebody still holds, is known as well as one that is kept.

    What was opened waits for the tower in memory, however much it is: submit only what will be asked about next.

    Args:
        image: How pictures become views.
        device: Where the model is.
        patch_shape: Patches of a view and their width; an `EncodedImage` of another model is refused by it.
        fast: Whether to take the fast mode, see `saccade.image.fast`, instead of the exact one.
        max_bytes: Room for pictures that nobody asks about at the moment; those asked about longest ago make room.
        threads: Pictures that are opened at the same time.

    Raises:
        ConfigError: for a negative bound, or no thread.
    """

    def __init__(
        self,
        image: ImageConfig,
        device: torch.device,
        *,
        patch_shape: tuple[int, int] | None = None,
        fast: bool = False,
        max_bytes: int,
        threads: int = 4,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"pictures cannot be opened by {threads} threads: give 1 or more")
        self.image = image
        self.patch_shape = patch_shape
        self.device = device
        self.fast = fast
        self._kept: Kept[StoredPicture] = Kept(max_bytes)
        self._hits = self._misses = 0
        self._salt = f"{image.model_dump_json()} {fast}".encode()
        self._lock = threading.Lock()
        self._by_source: WeakValueDictionary[str, StoredPicture] = WeakValueDictionary()
        self._by_key: WeakValueDictionary[str, StoredPicture] = WeakValueDictionary()
        self._opening: dict[str, list[Future[StoredPicture]]] = {}
        self._unanswered: set[Future[StoredPicture]] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="saccade-pictures")

    def submit(self, source: Picture) -> Future[StoredPicture]:
        """Take a picture; the future tells it when it is open, or raises why it cannot be.

        Files and bytes are decoded by the threads. An array is copied and a Pillow picture is brought to RGB before
        this returns: both may be changed or closed then. Someone who does not want it any more may cancel the future.

        Raises:
            RuntimeError: when the store is closed.
        """
        future: Future[StoredPicture] = Future()
        if isinstance(source, EncodedImage):
            try:
                future.set_result(self._adopt(source))
            except PlaceholderMismatchError as error:
                future.set_exception(error)
            return future
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        try:
            owned = self._own(source)
        except Exception as error:  # noqa: BLE001  (told to who asked, like what goes wrong in a thread)
            future.set_exception(error)
            return future
        self._pool.submit(self._open, owned, future)
        return future

    def look(
        self, pictures: Iterable[StoredPicture], encode: Callable[[Tensor], Tensor], project: Callable[[Tensor], Tensor]
    ) -> list[Seen]:
        """Show the tower those pictures that it has not seen, all at once, and return what it made of each.

        Args:
            pictures: What the futures of `submit` gave; one may occur several times.
            encode: From normalized views `[views, 3, side, side]`, float32, to raw patches `[views, patches,
                vision_dim]`.
            project: From raw patches to visual tokens `[views, tokens, text_dim]`.
        """
        asked = list(pictures)
        seen = {picture: picture.seen for picture in asked if picture.seen is not None}
        unseen = [picture for picture in dict.fromkeys(asked) if picture not in seen]
        if unseen:
            patches = self._patches(unseen, encode)
            tokens = project(torch.cat(patches)).split([len(rows) for rows in patches])
            for picture, own_patches, own_tokens in zip(unseen, patches, tokens, strict=True):
                # A slice would keep the whole batch alive.
                seen[picture] = Seen(picture.key, own_patches.clone(), own_tokens.clone())
                self._keep(picture, seen[picture])
        return [seen[picture] for picture in asked]

    @property
    def counts(self) -> Counts:
        """What happened so far: a picture that was known, to whoever holds it, is a hit, one that was not a miss."""
        with self._lock:
            kept = self._kept.counts
            return Counts(self._hits, self._misses, kept.evictions, kept.num_bytes)

    def close(self) -> None:
        """Cancel what has not begun, and finish what is being opened."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for future in list(self._unanswered):
            future.cancel()
        self._pool.shutdown(wait=True)

    def _adopt(self, image: EncodedImage) -> StoredPicture:
        """Return the picture of this key, or a new one for patches that the caller brought."""
        views, shape = num_views(*image.size, self.image), tuple(image.patches.shape)
        if self.patch_shape is not None and shape != (views, *self.patch_shape):
            raise PlaceholderMismatchError(
                f"an encoded picture of {image.size[0]} x {image.size[1]} has patches of shape {shape}, but this model "
                f"makes {(views, *self.patch_shape)} of it: encode it with this model"
            )
        with self._lock:
            picture = self._by_key.get(image.key)
            if picture is None:
                self._misses += 1
                picture = self._by_key[image.key] = StoredPicture(image.key, image.size, views, patches=image.patches)
            else:
                self._use(picture)
            return picture

    def _own(self, source: ImageSource) -> _Owned:
        if isinstance(source, str | PathLike | bytes):
            return source
        if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.size:
            return np.array(source, order="C")
        return np.array(open_image(source, self.image.max_pixels))  # a Pillow picture, or what is refused

    def _open(self, source: _Owned, future: Future[StoredPicture]) -> None:
        """Open a picture for everybody who asks for it meanwhile; runs in a thread of the pool."""
        if not future.set_running_or_notify_cancel():
            return
        stopwatch = Stopwatch(torch.device("cpu"))
        hashed = ""
        try:
            with stopwatch.stage("open"):
                name = str(source) if isinstance(source, str | PathLike) else None
                content = read_file(source) if isinstance(source, str | PathLike) else source
                hashed = self._hash(content)
            if self._joined(hashed, future):
                return
            waiting = self._cut(content, name and repr(name), stopwatch)
            picture, asking = self._enter(hashed, waiting, stopwatch.seconds)
        except Exception as error:  # noqa: BLE001  (told to all who asked for this picture)
            with self._lock:
                asking = self._opening.pop(hashed, [future])
            for one in asking:
                one.set_exception(error)
            return
        for one in asking:
            one.set_result(picture)

    def _hash(self, content: bytes | NDArray[Any]) -> str:
        if isinstance(content, np.ndarray):
            kind, data = f"array {content.shape}", content.data
        else:
            kind, data = "file", memoryview(content)
        digest = hashlib.sha256(self._salt + kind.encode())
        digest.update(data)
        return digest.hexdigest()

    def _joined(self, hashed: str, future: Future[StoredPicture]) -> bool:
        """Answer from what is known, or wait for who opens the picture already; else whoever asks is to open it."""
        with self._lock:
            picture = self._by_source.get(hashed)
            if picture is None:
                self._opening.setdefault(hashed, []).append(future)
                return len(self._opening[hashed]) > 1
            self._use(picture)
        future.set_result(picture)
        return True

    def _cut(self, content: bytes | NDArray[Any], name: str | None, stopwatch: Stopwatch) -> CutImage | FastPicture:
        if self.fast:
            with stopwatch.stage("open"):
                return open_fast(content, self.image, name=name)
        with stopwatch.stage("open"):
            opened = open_image(content, self.image.max_pixels, name=name)
        with stopwatch.stage("preprocess"):
            return CutImage(to_views(opened, self.image), opened.size)

    def _enter(
        self, hashed: str, waiting: CutImage | FastPicture, seconds: dict[str, float]
    ) -> tuple[StoredPicture, Sequence[Future[StoredPicture]]]:
        """Return the picture that was opened, and who waits for it."""
        key = waiting.key(self.image) if isinstance(waiting, CutImage) else hashed
        with self._lock:
            asking = self._opening.pop(hashed)
            picture = self._by_key.get(key)
            if picture is None:
                views = num_views(*waiting.size, self.image)
                picture = self._by_key[key] = StoredPicture(key, waiting.size, views, waiting, seconds=seconds)
                self._misses += 1
                self._hits += len(asking) - 1
            else:
                self._use(picture, len(asking))
            self._by_source[hashed] = picture
        return picture, asking

    def _use(self, picture: StoredPicture, times: int = 1) -> None:
        """Count questions about a picture that is known, and keep it from making room soon."""
        self._hits += times
        if self._kept.get(picture.key) is None and picture.seen is not None:
            self._kept.put(picture.key, picture, picture.seen.num_bytes)

    def _patches(self, unseen: Sequence[StoredPicture], encode: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Return the raw patches of each picture: those that were brought, and of the others those of the tower."""
        shown = [(picture, picture.waiting) for picture in unseen if picture.waiting is not None]
        encoded: dict[StoredPicture, Tensor] = {}
        if shown:
            views = torch.cat([self._views(waiting) for _, waiting in shown])
            patches = encode(normalize_views(views, self.image))
            counts = [picture.num_views for picture, _ in shown]
            encoded = {picture: rows for (picture, _), rows in zip(shown, patches.split(counts), strict=True)}
        brought = {picture: picture.patches.to(self.device) for picture in unseen if picture.patches is not None}
        return [(encoded | brought)[picture] for picture in unseen]

    def _views(self, waiting: CutImage | FastPicture) -> Tensor:
        """Return the views of a picture `[views, 3, side, side]`, uint8, on the device."""
        if isinstance(waiting, FastPicture):
            return fast_views(torch.from_numpy(waiting.pixels).to(self.device), self.image, waiting.size)
        return torch.from_numpy(waiting.views).to(self.device)

    def _keep(self, picture: StoredPicture, seen: Seen) -> None:
        with self._lock:
            picture.seen, picture.waiting, picture.patches = seen, None, None
            self._kept.put(picture.key, picture, seen.num_bytes)
