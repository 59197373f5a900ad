"""Write a checkpoint in another layout, with bit-identical tensors."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from saccade.checkpoint.files import CONFIG_FILE, INDEX_FILE, listed, read_json, read_tensors, resolve
from saccade.checkpoint.layouts import Layout, find_layout
from saccade.checkpoint.load import LAYOUTS, open_checkpoint
from saccade.checkpoint.quiet import quiet
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, SaccadeWarning
from saccade.image.processor import SaccadeProcessor
from saccade.model import SaccadeForConditionalGeneration

# Fields that say where a configuration was, not what the model is.
_HISTORY = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def convert(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    *,
    to: Literal["native", "released"] = "native",
    dtype: torch.dtype | None = None,
    layouts: Sequence[Layout] = LAYOUTS,
) -> Path:
    """Write the checkpoint `src` to the folder `dst` and return that folder.

    Tensors are mapped from disk and written shard by shard. The folder appears only when it is complete. What a release
    stores but no answer depends on is not written, with a `SaccadeWarning`.

    Args:
        src: Folder or hub id, in the native or a released layout.
        dst: Folder to make; it must not exist, or be empty.
        to: "native" for what `save_pretrained` of model and processor writes, "released" for the names, the config.json
            and the tokenizer's files of the release. How answers are generated and pictures are prepared is then
            written nowhere, no generation_config.json and no preprocessor_config.json: the layout implies both.
        dtype: Type of the written weights; the checkpoint's own where None.
        layouts: The released layouts that are known.

    Raises:
        CheckpointError: when `src` cannot be opened, `dst` holds files, or no released layout can express the model.
    """
    target = Path(dst).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is not an empty folder: choose another one, or empty it")
    if to not in ("native", "released"):
        raise CheckpointError(f"unknown layout {to!r}: choose native or released")
    source = resolve(src)
    model, processor = open_checkpoint(source, dtype=dtype, layouts=layouts)
    _tell_what_is_left_out(source, layouts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        with quiet():
            if to == "native":
                model.save_pretrained(folder)
                processor.save_pretrained(folder)
            else:
                _write_released(model, processor, folder, layouts)
        folder.replace(target)
    return target


def _tell_what_is_left_out(source: Path, layouts: Sequence[Layout]) -> None:
    tensors = read_tensors(source)
    layout = find_layout(read_json(source / CONFIG_FILE), tensors, layouts, source)
    unused = layout.table.unused(tensors) if layout else []
    if unused:
        size = sum(tensors[name].numel() for name in unused)
        warnings.warn(
            f"{len(unused)} tensors of {size} parameters, which no answer depends on, are not written: "
            f"{listed(unused)}",
            SaccadeWarning,
            stacklevel=3,
        )


def _write_released(
    model: SaccadeForConditionalGeneration, processor: SaccadeProcessor, folder: Path, layouts: Sequence[Layout]
) -> None:
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else ()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    layout, config_json = _expressed(model.config, tensors, layouts)
    config_json["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    renamed = layout.table.to_theirs(tensors)
    plan = split_torch_state_dict_into_shards(renamed)
    for filename, names in plan.filename_to_tensors.items():
        save_file({name: renamed[name].contiguous() for name in names}, folder / filename, metadata={"format": "pt"})
    if plan.is_sharded:
        _write_json(folder / INDEX_FILE, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
    _write_json(folder / CONFIG_FILE, config_json)
    processor.tokenizer.save_pretrained(folder)


def _expressed(
    config: SaccadeConfig, tensors: dict[str, Any], layouts: Sequence[Layout]
) -> tuple[Layout, dict[str, Any]]:
    """Return the first layout that says everything about a model, and its config.json.

    Whether it says everything is proved by reading that config.json back.
    """
    shapes_only = {name: tensor.to("meta") for name, tensor in tensors.items()}
    reasons = []
    for layout in layouts:
        try:
            config_json = layout.to_config_json(config)
            shapes = layout.shapes(layout.table.to_theirs(shapes_only))
            lost = _difference(config, layout.to_config(config_json, shapes))
        except CheckpointError as error:
            reasons.append(f"{layout.name}: {error}")
            continue
        if not lost:
            return layout, config_json
        reasons.append(f"{layout.name} cannot say {', '.join(lost)}")
    raise CheckpointError(f"no released layout holds this model ({'; '.join(reasons)}): convert it to native")


def _difference(ours: SaccadeConfig, theirs: SaccadeConfig) -> list[str]:
    """Return the fields in which two configurations differ."""
    left, right = _flat(ours.to_dict()), _flat(theirs.to_dict())
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key in _HISTORY:
            continue
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in _flat(value).items()})
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
