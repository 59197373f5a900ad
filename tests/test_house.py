"""The rules of the house, enforced: sizes, direction of imports, names, the README's tree, the command line's words."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SRC = REPO / "src"
PACKAGE = SRC / "saccade"

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# "path" or "path::function" -> why the second idea in it could not be moved out.
SIZE_EXCEPTIONS: dict[str, str] = {}

# From the ground up. A room knows the floors below its own, never a neighbor on its floor.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("roles",),
    ("config",),
    ("presets", "prompt"),
    ("image",),
    ("model",),
    ("registration",),
    ("checkpoint", "data"),
    ("explain",),
    ("vlm",),
    ("engine",),
    ("evaluate",),
    ("train",),
    ("ablate",),
    ("serve", "bench", "plugins"),
    ("__init__",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# model/ is arithmetic on tensors: no words, files, messages or environment.
MODEL_NEVER_IMPORTS = {
    "argparse", "io", "json", "logging", "os", "pathlib", "PIL", "safetensors", "shutil", "sys", "tempfile",
    "tokenizers", "warnings", "yaml",
}  # fmt: skip
MODEL_NEVER_CALLS = {"open", "print", "input"}

FAMILY_NAME = re.compile(r"flash[\s_-]?(sloth|vl)(?![a-z])", re.IGNORECASE)
# Where a family may be named in code: presets, released checkpoints, the papers' recipes, and words for people.
FAMILY_ROOMS = ("presets/", "checkpoint/", "train/recipes", "ablate/studies", "__init__.py", "cli/")

WORDS = {
    "ask", "chat", "explain", "data", "train", "eval", "bench",
    "plan", "convert", "doctor", "serve", "verify", "export", "merge",
}  # fmt: skip
SUBWORDS = {
    "data": {"show", "check", "fetch"},
    "train": {"run", "show", "ablate"},
    "eval": {"diff", "paper"},
    "bench": {"table1", "flashvl", "train", "decoder"},
    "verify": {"vllm"},
}

AUTHORED = {".cff", ".css", ".html", ".jinja", ".js", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
# A text speaks of the project, not of how or where it was written.
FOREIGN_WORDS = re.compile(
    r"""\bsub-?agents?\b|(?<!scope=")\bsessions?\b|\bissue \#\s?\d|(?<![\w./~:-])/(?:work|root|home)/\w""",
    re.IGNORECASE,
)


def python_files(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in root.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(path: Path) -> str:
    """The top-level module or package of `saccade` that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a file imports, wherever in the file; relative imports made absolute."""
    package = path.relative_to(SRC).parent.parts
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def docstrings(tree: ast.Module) -> set[int]:
    """The identities of the nodes that are docstrings: strings that stand alone as a statement."""
    statements = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(value) for value in statements if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def words_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, word) for each identifier and each string that is not a docstring: what a program can act on."""
    tree = parse(path)
    prose = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield line, node.value
        for field in ("id", "attr", "arg", "name", "module", "asname"):
            word = getattr(node, field, None)
            if isinstance(word, str):
                yield line, word


def own_files() -> list[Path]:
    """Every file of the project that git knows or would add; without git, all but hidden and built folders."""
    if not (REPO / ".git").exists():
        built = re.compile(r"\.(?!ci$|git\w|pre).*|build|dist|__pycache__|.*\.egg-info")
        found = (path for path in REPO.rglob("*") if path.is_file())
        return [path for path in found if not any(map(built.fullmatch, path.relative_to(REPO).parts))]
    command = ["git", "-C", str(REPO), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [REPO / name for name in names if name and (REPO / name).is_file()]


def too_long() -> dict[str, int]:
    """What passes the limits, as "path" or "path::function" -> lines."""
    found = {}
    for path in python_files(SRC):
        name = str(path.relative_to(REPO))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            found[name] = lines
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found[f"{name}::{node.name}"] = lines
    return found


def test_files_and_functions_stay_short() -> None:
    long = too_long()
    unexcused = {name: lines for name, lines in long.items() if name not in SIZE_EXCEPTIONS}
    assert not unexcused, f"over {MAX_FILE_LINES} (file) or {MAX_FUNCTION_LINES} (function) lines: {unexcused}"
    assert long.keys() == SIZE_EXCEPTIONS.keys(), "SIZE_EXCEPTIONS excuses what is short by now"


def test_every_folder_of_code_is_a_package() -> None:
    bare = {
        str(path.parent.relative_to(REPO))
        for path in python_files(PACKAGE)
        if not (path.parent / "__init__.py").exists()
    }
    assert not bare, f"folders with modules but without __init__.py: {sorted(bare)}"


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in python_files(PACKAGE)}
    assert rooms <= FLOOR_OF.keys(), f"not in FLOORS: {sorted(rooms - FLOOR_OF.keys())}"


def test_imports_go_downwards() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        here = room_of(path)
        for line, name in imported(path):
            root, _, rest = name.partition(".")
            if root != "saccade":
                continue
            there = rest.partition(".")[0]
            there = there if there in FLOOR_OF else "__init__"
            if there != here and FLOOR_OF[there] >= FLOOR_OF[here]:
                wrong.append(f"{path.relative_to(REPO)}:{line}: {here} must not know {there}")
    assert not wrong, "\n".join(wrong)


def test_the_model_is_pure() -> None:
    wrong = []
    for path in python_files(PACKAGE / "model"):
        for line, name in imported(path):
            parts = set(name.split("."))
            if parts & MODEL_NEVER_IMPORTS or any("tokenizer" in part.lower() for part in parts):
                wrong.append(f"{path.relative_to(REPO)}:{line}: imports {name}")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MODEL_NEVER_CALLS:
                wrong.append(f"{path.relative_to(REPO)}:{node.lineno}: calls {node.func.id}()")
    assert not wrong, "\n".join(wrong)


def test_families_are_named_only_where_they_live() -> None:
    """Docstrings may cite the papers; no identifier and no string a program acts on may name a family."""
    wrong = []
    for path in python_files(PACKAGE):
        if not str(path.relative_to(PACKAGE)).startswith(FAMILY_ROOMS):
            wrong += [
                f"{path.relative_to(REPO)}:{line}: {word!r}"
                for line, word in words_of_code(path)
                if FAMILY_NAME.search(word)
            ]
    assert not wrong, "\n".join(wrong)


def test_torchvision_is_not_imported() -> None:
    roots = [REPO / name for name in ("src", "tests", "tools") if (REPO / name).is_dir()]
    wrong = [
        str(path.relative_to(REPO))
        for path in python_files(*roots)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name.partition(".")[0] == "torchvision"
    ]
    assert not wrong, wrong


def tree_block(text: str) -> list[str]:
    """The lines of the fenced block that starts with `src/saccade/`, without that line and without blank ones."""
    match = re.search(r"^```\w*\n(src/saccade/[^\n]*\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert match, "README.md has no fenced block that starts with src/saccade/"
    return [line for line in match[1].splitlines()[1:] if line.strip()]


def tree_paths(lines: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield (path below src/saccade, description) of each line; the indentation says which folder a line is in."""
    open_folders: list[tuple[int, Path]] = [(-1, Path())]
    for line in lines:
        bare = re.sub(r"[│├└─]", " ", line)
        indent = len(bare) - len(bare.lstrip())
        name, _, description = bare.strip().partition(" ")
        while open_folders[-1][0] >= indent:
            open_folders.pop()
        path = open_folders[-1][1] / name
        yield path, description
        if name.endswith("/"):
            open_folders.append((indent, path))


def test_the_tree_in_the_readme_is_true() -> None:
    shown = set()
    for path, description in tree_paths(tree_block((REPO / "README.md").read_text(encoding="utf-8"))):
        assert (PACKAGE / path).exists(), f"README shows {path}, which does not exist"
        shown.add(path.parts[0])
        for module in re.findall(r"\b\w+\.py\b", description) if (PACKAGE / path).is_dir() else []:
            assert (PACKAGE / path / module).exists(), f"README shows {path}/{module}, which does not exist"
    real = {path.relative_to(PACKAGE).parts[0] for path in python_files(PACKAGE)} | {"assets"}
    missing = {name for name in real if (PACKAGE / name).exists()} - shown
    assert not missing, f"README's tree does not show {sorted(missing)}"


def test_the_command_line_knows_few_words() -> None:
    import typer

    from saccade.cli import app

    group = typer.main.get_command(app)
    words = set(getattr(group, "commands", {}))
    assert words, "saccade.cli.app registers no command"
    assert words <= WORDS, f"new words on the command line: {sorted(words - WORDS)}; new knobs go into configs"
    for word in words:
        below = set(getattr(group.commands[word], "commands", {}))
        assert below <= SUBWORDS.get(word, set()), f"new words below `saccade {word}`: {sorted(below)}"


def test_texts_speak_of_the_project_alone() -> None:
    wrong = []
    for path in own_files():
        if path == Path(__file__).resolve() or path.suffix not in AUTHORED or "assets" in path.parts:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            wrong += [f"{path.relative_to(REPO)}:{number}: {found[0]!r}" for found in FOREIGN_WORDS.finditer(line)]
    assert not wrong, "\n".join(wrong)


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in (path for path in own_files() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPO)} -> {target}")
    assert not broken, "\n".join(broken)


def test_the_index_lists_every_page() -> None:
    index = (REPO / "docs" / "README.md").read_text(encoding="utf-8")
    unlisted = [
        path.name for path in (REPO / "docs").glob("*.md") if path.name != "README.md" and f"({path.name})" not in index
    ]
    assert not unlisted, f"docs/README.md does not list {unlisted}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["  a.py    one", "  b/      two c.py", "    d.py  three"], ["a.py", "b", "b/d.py"]),
        (["├── a/", "│   └── b.py  x", "└── c.py  y"], ["a", "a/b.py", "c.py"]),
    ],
)
def test_the_tree_is_read_by_indentation(lines: list[str], expected: list[str]) -> None:
    assert [str(path) for path, _ in tree_paths(lines)] == expected
