"""Weights that several models have in common are stored once: the index of one folder names a file in another."""

from __future__ import annotations

import hashlib
import json
from os.path import relpath
from pathlib import Path

from safetensors.torch import load_file, save

from saccade.checkpoint.files import INDEX_FILE, WHOLE_FILE
from saccade.errors import CheckpointError

REST_FILE = "rest.safetensors"
_DIGITS = 8


def share(folder: Path, module: str, owner: Path | None = None) -> None:
    """Divide the weights of a saved model into those of a module, which other models may share, and the rest.

    transformers reads the folder as a checkpoint in two files, one of which may lie in the folder of another model. The
    start of that file's SHA-256 is part of its name: once the owner has other weights, those who had the old ones in
    common with it miss their file instead of reading the new one.

    Args:
        folder: A model as `save_pretrained` wrote it, in one file, which makes room for the two and their index.
        module: The module's name in the model, such as "model.vision_tower".
        owner: Folder of the model that has stored these weights already; None to store them in `folder`.

    Raises:
        CheckpointError: when the weights are not in one file, the model has no such module, or the owner has stored
            other weights of it.
    """
    if not (folder / WHOLE_FILE).is_file():
        raise CheckpointError(f"{folder} has no {WHOLE_FILE}: save the model in one file, with save_pretrained")
    tensors = load_file(folder / WHOLE_FILE)
    apart = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")}
    if not apart:
        raise CheckpointError(f"the model in {folder} has no weights of {module}: name one of its modules")
    content = save(apart, metadata={"format": "pt"})
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    shared = (owner or folder) / f"{module.rpartition('.')[2]}-{digest}.safetensors"
    if owner is None:
        shared.write_bytes(content)
    elif not shared.is_file():
        raise CheckpointError(
            f"{module} in {folder} is not what {owner} has stored of it: train with the one that is there, frozen"
        )
    rest = {name: tensor for name, tensor in tensors.items() if name not in apart}
    (folder / REST_FILE).write_bytes(save(rest, metadata={"format": "pt"}))
    place = Path(relpath(shared, folder)).as_posix()
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: place if name in apart else REST_FILE for name in sorted(tensors)},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    (folder / WHOLE_FILE).unlink()
