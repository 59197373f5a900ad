"""Checkpoint folders: where they come from, and their tensors without reading them whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from saccade.errors import CheckpointError

CONFIG_FILE = "config.json"
# What the folder of a training run holds: which stages it has.
RUN_FILE = "run.json"
WHOLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ASSETS = Path(str(files("saccade"))) / "assets"
_PICKLES = ("*.bin", "*.pt", "*.pth")
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")


def bundled_models() -> dict[str, Path]:
    """Return the folders of the models inside this package by name."""
    return {config.parent.name: config.parent for config in sorted(ASSETS.glob(f"*/{CONFIG_FILE}"))}


def resolve(source: str | PathLike[str]) -> Path:
    """Return the folder of a checkpoint, downloading a hub id first.

    A string that names a bundled model means that one, its hyphens and underscores alike; a folder of the same name is
    reached as a path, such as "./nano". The folder of a training run means the model of its last stage.

    Raises:
        CheckpointError: when `source` is neither a checkpoint folder nor a hub id that can be reached, or is that of a
            run that is not finished.
    """
    if isinstance(source, str) and (bundled := bundled_models().get(source.replace("-", "_"))):
        return bundled
    folder = Path(source).expanduser()
    if folder.is_dir():
        if (folder / RUN_FILE).is_file():
            return _trained(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder} has no {CONFIG_FILE}: name the folder of a checkpoint")
        return folder
    name = fspath(source)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{name} does not exist: name the folder of a checkpoint, or a hub id like owner/name")
    return _download(name)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: when the file is not readable as one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object: download the checkpoint again")
    return content


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder by name; their data stays on disk, mapped, until it is used.

    Raises:
        CheckpointError: when there are no safetensors files, one is damaged or missing, or a name occurs twice.
    """
    tensors: dict[str, Tensor] = {}
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as shard:
                names = list(shard.keys())
                twice = sorted(tensors.keys() & set(names))
                if twice:
                    raise CheckpointError(
                        f"{listed(twice)} in {path.name} occurs in another file too: keep one of them"
                    )
                tensors.update({name: shard.get_tensor(name) for name in names})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}): download the checkpoint again") from error
    _check_index(folder, tensors)
    return tensors


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Return the first few names and how many there are in all."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def first_line(error: Exception) -> str:
    """Return what an error says, without the advice that libraries append to it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"{name!r} is neither a folder nor a model inside the package ({', '.join(bundled_models())}) nor a hub "
            f"model that can be reached from here ({first_line(error)}): check the spelling and the connection, or "
            "download it elsewhere and give the folder"
        ) from error


def _trained(run: Path) -> Path:
    """Return the folder of the model that the last stage of a training run left."""
    try:
        names = [stage["name"] for stage in read_json(run / RUN_FILE)["recipe"]["stages"]]
        folders = [run / f"{number}-{name}" / "model" for number, name in enumerate(names)]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run / RUN_FILE} does not describe a training run: name the folder of one") from error
    if not folders[-1].is_dir():
        done = [str(folder) for folder in folders if folder.is_dir()]
        among = f", or name what is there: {listed(done)}" if done else ""
        raise CheckpointError(f"the run in {run} is not finished: start it again with the same command{among}")
    return folders[-1]


def _shards(folder: Path) -> list[Path]:
    """Return the weight files, those of the index where there is one.

    Beside an index, a file that holds all comes first, as for transformers: it was saved over what the index lists.
    """
    has_index = (folder / INDEX_FILE).is_file()
    if has_index and (folder / WHOLE_FILE).is_file():
        names = [WHOLE_FILE]
    elif has_index:
        names = sorted(set(_indexed(folder).values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    paths = [folder / name for name in names]
    if missing := [name for name, path in zip(names, paths, strict=True) if not path.is_file()]:
        remedy = "download the checkpoint again"
        if any(name.startswith("../") for name in missing):
            remedy = "it has them in common with the model beside it, so keep the two folders together, as they came"
        raise CheckpointError(f"{folder} lacks the weight files {listed(missing)}: {remedy}")
    if not paths:
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        remedy = (
            f"{listed(pickles)} can run code when loaded and is refused: convert it to safetensors"
            if pickles
            else "download the checkpoint again"
        )
        raise CheckpointError(f"{folder} has no safetensors files: {remedy}")
    return paths


def _check_index(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Raise CheckpointError when the index promises tensors that no file holds; beside a file of all it counts not."""
    index = folder / INDEX_FILE
    if not index.is_file() or (folder / WHOLE_FILE).is_file():
        return
    absent = sorted(_indexed(folder).keys() - tensors.keys())
    if absent:
        raise CheckpointError(f"{index} lists {listed(absent)}, which no file holds: download the checkpoint again")


def _indexed(folder: Path) -> dict[str, str]:
    """Return the file of each tensor, by the index of a folder."""
    held = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held.values()):
        raise CheckpointError(f"{folder / INDEX_FILE} has no weight_map of file names: download the checkpoint again")
    return held
