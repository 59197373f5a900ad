"""The Python that the pages of `docs/` show is run, as the README's is."""

import sys
from pathlib import Path

import pytest

from test_readme import REPO, Block, blocks, lay_out_pictures, run

PAGES = sorted((REPO / "docs").glob("*.md"))
SHOWN = [
    pytest.param(block, id=f"{page.stem}:{block.line}")
    for page in PAGES
    for block in blocks(page.read_text(encoding="utf-8"))
    if block.language == "python"
]


def test_composing_shows_a_model() -> None:
    assert any("compose:" in parameter.id for parameter in SHOWN)


@pytest.mark.parametrize("block", SHOWN)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    lay_out_pictures(block.text, tmp_path)
    run([sys.executable, "-c", block.text], tmp_path)
