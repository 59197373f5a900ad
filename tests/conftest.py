"""What all tests share: one thread a process, one seed, the folder of reference tensors, marks that need something."""

import os
import random
import sys

# Before torch is imported anywhere: the tests run in several processes, each of which would otherwise take every core,
# and sums in one order make results repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test that would reach for the hub fails at once instead of waiting for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("SACCADE_GOLDEN", ROOT.parent / "shared" / "golden"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    if not GOLDEN.is_dir():
        _skip(items, "golden", f"no reference tensors at {GOLDEN}; set SACCADE_GOLDEN to their folder")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "no CUDA device")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers whatever ran before; torch is not loaded for tests that do without."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread of torch, and several."""
    from kernel_checks import with_threads

    with with_threads(request.param):
        yield


@pytest.fixture
def own_table_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tables are mapped from the library's cache, which tests do not fill."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
