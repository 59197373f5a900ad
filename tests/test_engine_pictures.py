"""Pictures of the engine: opened in threads, seen once, kept within bounds; what goes wrong concerns who asked."""

import gc
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers_vlm import count_views, picture, tiny_vlm
from saccade.config import ImageConfig
from saccade.engine import pictures as module
from saccade.engine.pictures import PictureStore, StoredPicture
from saccade.engine.prompts import Seen
from saccade.errors import ConfigError, ImageError
from saccade.vlm import VLM

WAIT = 30
MANY = 10**9
TILED = ImageConfig(side=24, layout="dynamic", max_tiles=4)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm(image=TILED)


@pytest.fixture
def towers(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_views(vlm, monkeypatch)


@pytest.fixture
def stores() -> Iterator[Any]:
    """Makes stores, and closes them."""
    made: list[PictureStore] = []

    def make(image: ImageConfig = TILED, **options: Any) -> PictureStore:
        made.append(PictureStore(image, torch.device("cpu"), **({"max_bytes": MANY} | options)))
        return made[-1]

    yield make
    for store in made:
        store.close()


class Gate:
    """Holds threads up where they open a picture, and counts how many have come so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()
        self.count = 0
        inner = module.to_views

        def held(*args: Any) -> Any:
            self.count += 1
            self.arrived.release()
            assert self.open.wait(WAIT)
            return inner(*args)

        monkeypatch.setattr(module, "to_views", held)


def look(store: PictureStore, vlm: VLM, *opened: StoredPicture) -> list[Seen]:
    with torch.no_grad():
        return store.look(opened, vlm.model.model.encode_views, vlm.model.model.project_patches)


def told(store: PictureStore) -> tuple[int, int]:
    return store.counts.hits, store.counts.misses


def until(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class TestSeen:
    def test_as_the_model_sees_them(self, vlm: VLM, stores: Any, tmp_path: Path) -> None:
        store, images = stores(), [picture(1), picture(2, 90, 30), picture(3, 30, 70)]
        images[1].save(tmp_path / "a.png")
        sources = [np.asarray(images[0]), tmp_path / "a.png", images[2]]
        opened = [store.submit(source).result(WAIT) for source in sources]
        seen = look(store, vlm, *opened)
        for image, one, found in zip(images, opened, seen, strict=True):
            expected = vlm.encode(image)
            assert (found.key, one.key, one.size) == (expected.key, expected.key, expected.size)
            assert found.tokens.shape[0] == one.num_views == len(expected.patches)
            assert torch.allclose(found.patches, expected.patches, atol=1e-5)
            with torch.no_grad():
                expected_tokens = vlm.model.model.project_patches(expected.patches)
            assert torch.allclose(found.tokens, expected_tokens, atol=1e-5)
            assert one.seconds.keys() == {"open", "preprocess"}

    def test_a_picture_keeps_only_what_is_its_own(self, vlm: VLM, stores: Any) -> None:
        store = stores()
        for found in look(store, vlm, *(store.submit(picture(n)).result(WAIT) for n in range(3))):
            for tensor in (found.patches, found.tokens):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert store.counts.num_bytes == 3 * found.num_bytes

    def test_the_fast_mode(self, vlm: VLM, stores: Any) -> None:
        store, images = stores(fast=True), [picture(2, 90, 30), Image.new("RGB", (24, 24), "teal")]
        opened = [store.submit(image).result(WAIT) for image in images]
        shown: list[torch.Tensor] = []
        store.look(opened, lambda views: shown.append(views) or views.flatten(2), lambda patches: patches)
        exact = torch.from_numpy(np.concatenate([vlm.cut(image).views for image in images]))
        assert shown[0].shape == exact.shape
        assert ((shown[0] + 1) * 127.5 - exact).abs().max() < 3
        assert opened[0].seen is store.submit(images[0]).result(WAIT).seen is not None

    def test_patches_that_were_brought(self, vlm: VLM, stores: Any, towers: list[int]) -> None:
        store, image = stores(), picture(1)
        encoded = vlm.encode(image)
        towers.clear()
        brought, other = (store.submit(source).result(WAIT) for source in (encoded, picture(2)))
        found, again, _ = look(store, vlm, brought, brought, other)
        assert found is again
        assert towers == [other.num_views]
        assert torch.equal(found.patches, encoded.patches)
        assert store.submit(image).result(WAIT).seen is found


class TestKnown:
    def test_the_same_in_any_form(self, vlm: VLM, stores: Any, towers: list[int], tmp_path: Path) -> None:
        store, image = stores(), picture(5, 40, 30)
        image.save(path := tmp_path / "a.png")
        image.save(tmp_path / "a.bmp")
        forms = [path, str(path), path.read_bytes(), image, np.asarray(image), tmp_path / "a.bmp", vlm.encode(image)]
        towers.clear()
        for number, form in enumerate(forms):
            look(store, vlm, store.submit(form).result(WAIT))
            assert told(store) == (number, 1)
        assert towers == [1 + 4]

    def test_what_is_known_is_not_opened(self, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store, array = stores(), np.asarray(picture(1))
        first = store.submit(array).result(WAIT)
        monkeypatch.setattr(module, "open_image", None)
        assert store.submit(array).result(WAIT) is first

    def test_asked_for_while_it_is_opened(self, vlm: VLM, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store, gate, array = stores(threads=2), Gate(monkeypatch), np.asarray(picture(1))
        first = store.submit(array)
        assert gate.arrived.acquire(timeout=WAIT)
        others = [store.submit(array) for _ in range(5)]
        until(lambda: len(next(iter(store._opening.values()))) == 6)  # waiting, and a thread is free all the same
        between = store.submit(picture(2))
        assert gate.arrived.acquire(timeout=WAIT)
        gate.open.set()
        assert len({future.result(WAIT) for future in (first, *others)}) == 1
        between.result(WAIT)
        assert gate.count == 2
        assert told(store) == (5, 2)

    def test_two_files_of_one_picture_at_once(
        self, vlm: VLM, stores: Any, towers: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        store, gate = stores(threads=2), Gate(monkeypatch)
        futures = []
        for name in ("a.png", "a.bmp"):
            picture(1).save(tmp_path / name)
            futures.append(store.submit(tmp_path / name))
            assert gate.arrived.acquire(timeout=WAIT)
        gate.open.set()
        first, second = (future.result(WAIT) for future in futures)
        assert first is second
        look(store, vlm, first, second)
        assert towers == [first.num_views]
        assert told(store) == (1, 1)

    def test_turned_tiles_are_another_picture(self, stores: Any) -> None:
        store = stores()
        keys = {store.submit(Image.new("RGB", size)).result(WAIT).key for size in ((96, 24), (24, 96), (48, 48))}
        assert len(keys) == 3

    def test_gray_and_color_of_the_same_bytes_are_two(self, stores: Any) -> None:
        store, array = stores(), np.arange(48, dtype=np.uint8)
        keys = {store.submit(array.reshape(shape)).result(WAIT).key for shape in ((4, 4, 3), (4, 3, 4), (4, 12))}
        assert len(keys) == 3

    def test_arrays_and_pictures_may_change_afterwards(self, vlm: VLM, stores: Any, tmp_path: Path) -> None:
        store, array = stores(), np.array(picture(1))
        expected = vlm.encode(array).key
        future = store.submit(array)
        array[:] = 0
        picture(1).save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            other = store.submit(image)
        assert future.result(WAIT).key == other.result(WAIT).key == expected


class TestKept:
    def one(self, vlm: VLM, store: PictureStore, seed: int) -> Seen:
        return look(store, vlm, store.submit(picture(seed)).result(WAIT))[0]

    def test_the_bound_holds(self, vlm: VLM, stores: Any, towers: list[int]) -> None:
        size = self.one(vlm, stores(), 0).num_bytes
        store = stores(max_bytes=3 * size)
        for seed in (0, 1, 2, 0, 3, 0, 1):  # 3 makes room by 1, then 1 by 2
            self.one(vlm, store, seed)
            assert store.counts.num_bytes <= 3 * size
        assert told(store) == (2, 5)
        assert store.counts.evictions == 2

    def test_what_makes_room_is_gone(self, vlm: VLM, stores: Any) -> None:
        size = self.one(vlm, stores(), 0).num_bytes
        store = stores(max_bytes=2 * size)
        for seed in range(12):
            self.one(vlm, store, seed)
        gc.collect()
        assert len(store._by_key) == len(store._by_source) == 2
        assert not store._unanswered
        assert not store._opening

    def test_who_holds_a_picture_can_ask_again(self, vlm: VLM, stores: Any, towers: list[int]) -> None:
        store = stores(max_bytes=0)
        held = store.submit(picture(1)).result(WAIT)
        look(store, vlm, held)
        assert store.submit(picture(1)).result(WAIT) is held
        assert store.counts.num_bytes == 0
        del held
        gc.collect()
        look(store, vlm, store.submit(picture(1)).result(WAIT))
        assert len(towers) == 2

    def test_views_are_dropped_when_they_were_seen(self, vlm: VLM, stores: Any) -> None:
        store = stores()
        opened = store.submit(picture(1)).result(WAIT)
        assert opened.waiting is not None
        look(store, vlm, opened)
        assert opened.waiting is None

    def test_a_tower_that_failed_is_asked_again(self, vlm: VLM, stores: Any) -> None:
        store = stores()
        opened = store.submit(picture(1)).result(WAIT)
        with pytest.raises(MemoryError):
            store.look([opened], lambda _: (_ for _ in ()).throw(MemoryError()), lambda patches: patches)
        assert look(store, vlm, opened)[0].key == opened.key


class TestWrong:
    def test_errors_reach_who_asked(self, stores: Any, tmp_path: Path) -> None:
        store = stores()
        (tmp_path / "notes.jpg").write_text("shopping list")
        bad = {
            "there is no picture file 'nowhere.png'": "nowhere.png",
            r"notes.jpg' is not a picture": tmp_path / "notes.jpg",
            "type int is not a picture": 7,
            "must be uint8": np.zeros((4, 4, 3)),
            "floating-point": Image.new("F", (3, 3)),
        }
        futures = [store.submit(source) for source in bad.values()]
        good = store.submit(picture(1))
        for future, message in zip(futures, bad, strict=True):
            with pytest.raises(ImageError, match=message):
                future.result(WAIT)
        assert good.result(WAIT).num_views == 3
        assert told(store) == (0, 1)

    @pytest.mark.parametrize("fast", [False, True])
    def test_too_large(self, stores: Any, fast: bool) -> None:
        store = stores(ImageConfig(side=24, max_pixels=600), fast=fast)
        for source in (picture(1), np.asarray(picture(1))):
            with pytest.raises(ImageError, match="31 x 20 pixels, more than the limit of 600"):
                store.submit(source).result(WAIT)

    @pytest.mark.parametrize("fast", [False, True])
    def test_too_long_to_be_padded(self, stores: Any, fast: bool) -> None:
        store = stores(ImageConfig(side=24, fit="pad", max_pixels=700), fast=fast)
        for source in (picture(1, 30, 20), np.asarray(picture(1, 30, 20))):
            with pytest.raises(ImageError, match="would be padded to 30 x 30"):
                store.submit(source).result(WAIT)

    def test_a_broken_picture_is_tried_again(self, vlm: VLM, stores: Any, tmp_path: Path) -> None:
        store, path = stores(), tmp_path / "a.png"
        path.write_bytes(b"half")
        with pytest.raises(ImageError):
            store.submit(path).result(WAIT)
        picture(1).save(path)
        assert store.submit(path).result(WAIT).key == vlm.encode(picture(1)).key
        assert not store._opening

    def test_all_who_wait_are_told(self, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store, gate = stores(ImageConfig(side=24, fit="pad", max_pixels=700)), Gate(monkeypatch)
        futures = [store.submit(np.zeros((4, 100, 3), np.uint8)) for _ in range(3)]
        until(lambda: [len(futures) for futures in store._opening.values()] == [3])
        gate.open.set()
        for future in futures:
            with pytest.raises(ImageError, match="would be padded"):
                future.result(WAIT)
        assert told(store) == (0, 0)

    def test_bounds(self) -> None:
        for options in ({"threads": 0}, {"max_bytes": -1}):
            with pytest.raises(ConfigError):
                PictureStore(TILED, torch.device("cpu"), **({"max_bytes": 1} | options))


class TestCalledOff:
    def test_one_does_not_concern_the_other(self, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store, gate = stores(threads=1), Gate(monkeypatch)
        first = store.submit(picture(1))
        assert gate.arrived.acquire(timeout=WAIT)
        second, third = (store.submit(picture(2)) for _ in range(2))
        assert second.cancel()
        gate.open.set()
        assert first.result(WAIT) is not third.result(WAIT)
        assert gate.count == 2

    def test_closing_leaves_nobody_waiting(self, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store, gate = stores(threads=1), Gate(monkeypatch)
        begun = store.submit(picture(1))
        assert gate.arrived.acquire(timeout=WAIT)
        waiting = store.submit(picture(2))
        closing = threading.Thread(target=store.close)
        closing.start()
        until(waiting.cancelled)
        gate.open.set()
        closing.join(WAIT)
        assert begun.result(0).num_views == 3
        with pytest.raises(CancelledError):
            waiting.result(0)


def test_many_threads_at_once(vlm: VLM, stores: Any) -> None:
    """Askers in threads, one tower, little room: every answer is of its own picture, and nothing is left behind."""
    seeds, rng = range(8), random.Random(3)
    expected = {seed: vlm.encode(picture(seed)) for seed in seeds}
    size = look(other := stores(), vlm, other.submit(picture(0)).result(WAIT))[0].num_bytes
    store = stores(max_bytes=3 * size, threads=3)
    tower, done = threading.Lock(), []

    def ask(order: list[int]) -> None:
        for seed in order:
            future = store.submit(picture(seed) if seed % 2 else np.asarray(picture(seed)))
            if seed == order[0] and future.cancel():
                done.append(seed)
                continue
            opened = future.result(WAIT)
            with tower:  # the engine's own thread
                (seen,) = look(store, vlm, opened)
            assert seen.key == expected[seed].key
            assert torch.allclose(seen.patches, expected[seed].patches, atol=1e-5)
            done.append(seed)

    orders = [[rng.choice(seeds) for _ in range(25)] for _ in range(6)]
    with ThreadPoolExecutor(len(orders)) as askers:
        list(askers.map(ask, orders))
    assert sorted(done) == sorted(seed for order in orders for seed in order)
    gc.collect()
    counts = store.counts
    assert counts.num_bytes <= store._kept.max_bytes
    assert counts.evictions > 0
    assert len(store._by_key) == len(store._kept)
    assert not store._opening
    assert not store._unanswered
