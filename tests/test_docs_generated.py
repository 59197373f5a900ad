"""Every measured number of the README and of docs comes from a checked-in JSON file, by one command."""

import re
import sys
from pathlib import Path

import pytest

from test_readme import FENCE

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tools"))

import write_docs  # noqa: E402
import write_papers  # noqa: E402
import write_speed  # noqa: E402

GENERATED_PAGES = {"benchmarks.md", "mixtures.md", "papers.md"}
DIARY = "log.md"
FIGURE = re.compile(
    r"\d[\d.,]*\s?(?:%|percent\b|points?\b|ms\b|milliseconds?\b|seconds?\b|minutes?\b|hours?\b|GB/s|tokens a second|"
    r"samples a second|answers a second)"
)
# What looks like a measurement and is none, by page.
LEVEL = "95 %"  # of intervals
PROMISES = {
    "finetune.md": {"ten minutes"},
    "training.md": {"30 %"},  # a bound that a test asserts
}


def check(monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """The exit code of the command in check mode."""
    monkeypatch.setattr(sys, "argv", ["write_docs.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        write_docs.main()
    return ended.value.code


def test_the_check_finds_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch) == 0, capsys.readouterr().out


def test_a_changed_figure_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    text = (REPO / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"\*\*([\d.]+%)\*\*", text)
    assert shown
    typo = text.replace(shown[1], "99.9%")
    page.write_text(typo, encoding="utf-8")
    monkeypatch.setattr(write_docs, "REPO", tmp_path)
    monkeypatch.setattr(write_docs, "pages", lambda: iter([(page, write_docs.fill(page.read_text(encoding="utf-8")))]))
    assert check(monkeypatch) == 1
    assert capsys.readouterr().out.startswith("README.md is out of date")
    assert page.read_text(encoding="utf-8") == typo, "a check writes nothing"
    assert write_docs.stale() == [(page, text)]


def test_only_what_stands_between_markers_is_written() -> None:
    page = "before\n<!-- generated: world-test -->\nold\n<!-- end -->\nafter 12.5%\n"
    filled = write_docs.fill(page)
    assert filled.startswith("before\n<!-- generated: world-test -->\n\n| family | questions | nano: right |")
    assert filled.endswith("\n\n<!-- end -->\nafter 12.5%\n")
    assert write_docs.fill(filled) == filled
    with pytest.raises(KeyError, match="nothing"):
        write_docs.fill(page.replace("world-test", "nothing"))


def test_every_span_stands_somewhere_and_every_marker_is_closed() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")))
    named = [name for _, name, _ in write_docs.MARKED.findall(text)]
    assert set(named) == write_docs.SPANS.keys()
    assert len(named) == text.count("<!-- generated: ")


def typed(text: str) -> set[str]:
    """The figures of a page outside code and outside what is generated."""
    for part in (write_docs.MARKED, write_speed.MARKED, FENCE):
        text = part.sub("", text)
    return set(FIGURE.findall(text))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name)
        for page in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))
        if page.name not in GENERATED_PAGES | {DIARY}
    ],
)
def test_no_measurement_is_typed_by_hand(page: Path) -> None:
    found = typed(page.read_text(encoding="utf-8")) - {LEVEL} - PROMISES.get(page.name, set())
    assert not found, f"{page.name}: put {sorted(found)} into a JSON file and between markers, see tools/write_docs.py"


@pytest.mark.parametrize("typo", ["It is right in 63.4 % of cases.", "It takes 0.05 seconds.", "1,200 tokens a second"])
def test_a_typed_measurement_is_noticed(typo: str) -> None:
    assert typed(f"# Page\n\n{typo}\n\n```text\n5 %\n```\n") == set(FIGURE.findall(typo)) != set()


def test_a_printed_mean_stands_beside_what_its_row_gives() -> None:
    page = write_papers.to_markdown()
    assert "| 54.6 | 23.9 | 33.7 | 168 | 1569 | 62.6 | 40.8 (42.22) |" in page
    assert "| FlashSloth | 0.64 | 0.80 | 0.72 | 0.72 | 0.64 | 0.72 (0.704) |" in page
    assert "- AI2D: 74.2 (Table 2, *Flash-VL-2B static*), 74.1 (Table 4, *Flash-VL-2B static*)" in page
