"""Everything the README shows is run: Python blocks and `saccade` lines; `make` targets are known to exist."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

REPO = Path(__file__).resolve().parent.parent
README = REPO / "README.md"
PICTURE = REPO / "src" / "saccade" / "assets" / "pictures" / "shapes.png"
SECONDS = 600  # only so that nothing hangs
SHOWN_ONLY = {"", "text", "json", "yaml", "toml", "bibtex", "mermaid"}
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and its line in the file."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    return [Block(found[1], found[2], markdown.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(markdown)]


def shown(*languages: str) -> list:
    """The README's blocks in these languages, as parameters named by their line."""
    found = blocks(README.read_text(encoding="utf-8")) if README.exists() else []
    return [pytest.param(block, id=f"line{block.line}") for block in found if block.language in languages]


def commands(script: str) -> list[list[str]]:
    """The words of each command of a block; continued lines are joined, comments and blank lines dropped."""
    found: list[list[str]] = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        found.append([])
        for word in words:
            if word == "&&":
                found.append([])
                continue
            assert not set(word) <= set("|&;<>()"), f"pipes and redirections cannot be checked here: {line}"
            found[-1].append(word)
    return [words for words in found if words]


def lay_out_pictures(text: str, folder: Path) -> None:
    """Put the bundled picture wherever the block names one, re-encoded as the name's suffix says; one into a folder."""
    names = re.findall(r"(?<![\w/.:-])[\w][\w/-]*\.(?:png|jpe?g)\b", text)
    for name in names + [f"{folder}one.jpg" for folder in re.findall(r"(?<=\s)[a-z]+/(?=\s)", text)]:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(PICTURE) as picture:
            picture.convert("RGB").save(target)


def run(command: list[str], folder: Path) -> None:
    """Run a command in `folder` with this checkout's package and no network; show its output if it fails."""
    path = os.pathsep.join([str(REPO / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def check_make(words: list[str], folder: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
    assert named <= targets, f"the Makefile has no target {sorted(named - targets)}"


def check_git(words: list[str], folder: Path) -> None:
    assert words[1] == "clone", f"only `git clone` is known here, not {shlex.join(words)}"
    assert re.fullmatch(r"(?:https://|git@)\S+", words[2]), f"not an address: {words[2]}"
    (folder / (words[3] if len(words) > 3 else Path(words[2]).stem)).mkdir()


def check_cd(words: list[str], folder: Path) -> None:
    assert (folder / words[1]).is_dir(), f"no folder {words[1]} at this point of the block"


def check_pip(words: list[str], folder: Path) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.fullmatch(r"(?:\.|saccade)(?:\[([\w,-]+)\])?", words[-1])
    assert words[1] == "install", f"only `pip install` is known here, not {shlex.join(words)}"
    assert found, f"not this package: {words[-1]}"
    extras = set(filter(None, (found[1] or "").split(",")))
    assert extras <= project["optional-dependencies"].keys(), f"pyproject.toml has no extra {words[-1]}"


def run_saccade(words: list[str], folder: Path) -> None:
    run([sys.executable, "-m", *words], folder)


# A word that is not here fails: no block is passed over in silence.
KNOWN = {"saccade": run_saccade, "make": check_make, "git": check_git, "cd": check_cd, "pip": check_pip}


def test_the_readme_shows_both_ways_in() -> None:
    assert shown("bash"), "README.md is missing or has no ```bash block"
    assert shown("python"), "README.md is missing or has no ```python block"


def test_every_block_has_a_known_language() -> None:
    known = SHOWN_ONLY | {"bash", "python"}
    unknown = [(block.line, block.language) for block in blocks(README.read_text()) if block.language not in known]
    assert not unknown, f"neither run nor known as text: {unknown}"


@pytest.mark.parametrize("block", shown("python"))
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    lay_out_pictures(block.text, tmp_path)
    run([sys.executable, "-c", block.text], tmp_path)


@pytest.mark.parametrize("block", shown("bash"))
def test_bash_block_runs(block: Block, tmp_path: Path) -> None:
    lay_out_pictures(block.text, tmp_path)
    for words in commands(block.text):
        assert words[0] in KNOWN, f"README.md, block at line {block.line}: nothing here can check {shlex.join(words)!r}"
        KNOWN[words[0]](words, tmp_path)


def test_blocks_are_found_with_their_lines() -> None:
    found = blocks("a\n```bash\nsaccade ask \\\n  x.png # why\nmake a && cd b\n```\n\n```\ntree\n```\n")
    assert found == [Block("bash", "saccade ask \\\n  x.png # why\nmake a && cd b\n", 2), Block("", "tree\n", 8)]
    assert commands(found[0].text) == [["saccade", "ask", "x.png"], ["make", "a"], ["cd", "b"]]


@pytest.mark.parametrize("script", ["saccade ask a.png | cat", "saccade ask a.png > b", "saccade serve &"])
def test_what_cannot_be_checked_is_refused(script: str) -> None:
    with pytest.raises(AssertionError, match="cannot be checked"):
        commands(script)


RIGHT = [
    "make check test",
    "git clone https://example.org/a/saccade.git",
    "cd .",
    'pip install -e ".[dev]"',
    "saccade --help",
]
WRONG = [
    "make nothing",
    "git push",
    "cd nowhere",
    "pip install other",
    'pip install "saccade[nothing]"',
    "saccade nothing",
]


@pytest.mark.parametrize("line", RIGHT)
def test_a_right_line_passes(line: str, tmp_path: Path) -> None:
    for words in commands(line):
        KNOWN[words[0]](words, tmp_path)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_noticed(line: str, tmp_path: Path) -> None:
    for words in commands(line):
        with pytest.raises(AssertionError):
            KNOWN[words[0]](words, tmp_path)
