"""A run folder that says what it is: what is trained, by which commands, with which libraries, from which data."""

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saccade.checkpoint.files import RUN_FILE
from saccade.config import SaccadeConfig
from saccade.data.scenes import WORLD_VERSION
from saccade.data.sources import HUB, files_of
from saccade.errors import ConfigError
from saccade.evaluate.provenance import made_with
from saccade.train.rows import sources_of
from saccade.train.stages import Recipe, Stage
from saccade.train.tasks import RowTask

LIBRARIES = ("accelerate", "peft", "trl")
END = 1 << 16  # bytes that are hashed of a file's head and of its tail


def claim(recipe: Recipe, config: SaccadeConfig, out: Path) -> None:
    """Write the resolved recipe and its model into a run's folder, or check that they are those already there.

    A run that stopped before it trained anything, say for data that was not there, makes room for another recipe.

    Raises:
        ConfigError: when the folder holds a run of another recipe, or a description that cannot be read.
    """
    file = out / RUN_FILE
    claimed = {"recipe": recipe.model_dump(mode="json"), "model": config.definition()}
    if not file.exists():
        (out / "README.md").write_text(_readme(recipe, out), encoding="utf-8")
        _write(file, claimed | {"runs": []})
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read ({error}): choose an empty folder, or remove it") from error
    if not isinstance(found, dict) or {name: found.get(name) for name in claimed} != claimed:
        if any(next(out.glob(trace), None) for trace in ("log.jsonl", "*/checkpoint-*", "*/model")):
            raise ConfigError(f"{out} holds a run of another recipe (see {file}): choose an empty folder, or remove it")
        file.unlink()
        claim(recipe, config, out)


def note_run(recipe: Recipe, out: Path, processes: int) -> None:
    """Add how and with what the run was started, this time, to the description in its folder."""
    told = {
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "started": _now(),
        **made_with(),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
        "processes": processes,
        "seed": recipe.seed,
        "stages": {},
    }
    _change(out, lambda found: found["runs"].append(told))


def note_start(stage: Stage, data: Path, out: Path) -> None:
    """Add to the description that a stage starts, and from which data, given the folder that mixtures were fetched to.

    Raises:
        DataError: when data that the stage names is not there.
    """
    told = {"started": _now(), "data": _data(stage, data)}
    _change(out, lambda found: found["runs"][-1]["stages"].update({stage.name: told}))


def note_end(stage: Stage, out: Path) -> None:
    """Add to the description that a stage has ended."""
    _change(out, lambda found: found["runs"][-1]["stages"][stage.name].update({"ended": _now()}))


def fingerprint(path: str) -> dict[str, Any]:
    """Say which file, folder, pattern of files or hub data set a path leads to, so that a change of it is seen.

    Returns:
        `path`, `files`, `bytes`, and `sha256` over names, sizes, heads and tails of the files; of a hub data set the
        path alone.
    """
    if path.startswith(HUB):
        return {"path": path}
    files = files_of(path)
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(END))
            content.seek(max(END, size - END))
            digest.update(content.read())
    return {
        "path": path,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": digest.hexdigest(),
    }


def _data(stage: Stage, root: Path) -> list[dict[str, Any]]:
    task = stage.task
    worlds = [one for one in (task, *getattr(task, "data", ())) if hasattr(one, "families")]
    told: list[dict[str, Any]] = [{"world": WORLD_VERSION, "families": dict(one.families)} for one in worlds]
    return told + [fingerprint(source.path) for source in (sources_of(task, root) if isinstance(task, RowTask) else ())]


def _readme(recipe: Recipe, out: Path) -> str:
    last = out / f"{len(recipe.stages) - 1}-{recipe.stages[-1].name}" / "model"
    rows = [
        f"| `{number}-{stage.name}` | {stage.task.kind} | {_length(stage)} | {stage.batch} | "
        f"{', '.join(f'`{group.pattern}` at {group.lr:g}' for group in stage.groups).replace('|', chr(92) + '|')} |"
        for number, stage in enumerate(recipe.stages)
    ]
    about = f"{recipe.description}\n\n" if recipe.description else ""
    return f"""# A run of the recipe {recipe.name}

{about}Stages, each in a folder of its own:

| folder | teaches | for | batch | trained, at which peak learning rate |
|---|---|---|---|---|
{chr(10).join(rows)}

A stage that has ended holds its weights in `model`, which is an ordinary folder; before that it holds a checkpoint.
Once the last stage has ended:

```bash
saccade ask photo.jpg "What is this?" --model {last}
```

```python
import saccade

print(saccade.load("{last}").ask("photo.jpg", "What is this?"))
```

- `{RUN_FILE}`: the resolved recipe, the model, and for every start its command, libraries, machine, data, times.
- `log.jsonl`: loss, learning rate, gradient norm and speed, a line for every few steps.
- `curves.png`: the same, drawn after each stage.

The command that started the run goes on where it stopped.
"""


def _length(stage: Stage) -> str:
    return f"{stage.steps} steps" if stage.steps is not None else f"{stage.epochs:g} epochs"


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "saccade" if name == "__main__.py" else name


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _change(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    change(found)
    _write(out / RUN_FILE, found)


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write a file as a whole or not at all."""
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)
