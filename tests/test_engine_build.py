"""The kernels are compiled once, kept until a source changes, and done without where that cannot be."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kernel_checks import ROUNDING, WITH_COMPILER, off
from saccade.engine.cpu import build


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and nothing loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    build.load_kernels.cache_clear()
    yield tmp_path / "saccade" / "kernels"
    build.load_kernels.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("rows", [1, 9])
def test_without_a_compiler_results_are_the_same(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setenv("PATH", "")
    assert build.load_kernels().linear is None
    assert "no C compiler was found" in build.load_kernels().story
    x, weight, bias = torch.randn(rows, 48), torch.randn(31, 48).bfloat16(), torch.randn(31).bfloat16()
    exact = F.linear(x.double(), weight.double(), bias.double())
    assert off(torch.ops.saccade.linear(x, weight, bias), exact) < ROUNDING
    assert off(torch.ops.saccade.linear(x.bfloat16(), weight, bias), exact) < 2**-6


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("command", "story"), [("nowhere-to-be-found", "is not there"), ("false", "does not work")])
def test_a_compiler_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch, command: str, story: str) -> None:
    monkeypatch.setenv("CC", command)
    kernel = build.load_kernels()
    assert kernel.linear is None
    assert story in kernel.story
    assert command in kernel.story


@WITH_COMPILER
def test_a_source_that_does_not_compile_is_said(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "broken.c").write_text("this is no C\n")
    monkeypatch.setattr(build, "SOURCES", sources)
    assert "cannot compile the kernels" in build.load_kernels().story
    assert not list(fresh.iterdir())


@WITH_COMPILER
@pytest.mark.parametrize("file", ["lanes.h", "attend.c"])
def test_the_compiled_kernels_are_kept_until_a_source_changes(
    file: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert build.load_kernels().linear is not None
    (kept,) = fresh.iterdir()
    made = kept.stat().st_mtime_ns
    build.load_kernels.cache_clear()
    assert build.load_kernels().linear is not None
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [made]
    edited = shutil.copytree(build.SOURCES, tmp_path / "sources")
    (edited / file).write_bytes((edited / file).read_bytes() + b"\n")
    monkeypatch.setattr(build, "SOURCES", edited)
    build.load_kernels.cache_clear()
    assert build.load_kernels().linear is not None
    assert len(list(fresh.iterdir())) == 2


@WITH_COMPILER
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build.load_kernels.cache_clear()
    assert build.load_kernels().linear is not None
    x, weight = torch.randn(1, 9), torch.randn(4, 9).bfloat16()
    assert off(torch.ops.saccade.linear(x, weight), x.double() @ weight.double().T) < ROUNDING
    build.load_kernels.cache_clear()


@WITH_COMPILER
def test_processes_that_start_together_all_get_the_kernel(fresh: Path) -> None:
    program = f"import runpy; print(runpy.run_path({build.__file__!r})['load_kernels']().story)"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        out, errors = process.communicate(timeout=120)
        assert "kernel compiled by" in out, errors
    (kept,) = fresh.iterdir()
    assert kept.suffix == ".so"
