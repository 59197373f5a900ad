"""Open a checkpoint, native or released, strictly: the file's tensors are the model's tensors, no more and no fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from saccade.checkpoint.files import CONFIG_FILE, first_line, listed, read_json, read_tensors, resolve
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.checkpoint.flashvl import FLASHVL
from saccade.checkpoint.layouts import Layout, find_layout
from saccade.checkpoint.quiet import quiet
from saccade.checkpoint.table import Table
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, ConfigError, SaccadeError
from saccade.image.processor import SaccadeProcessor, build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt.encode import token_id
from saccade.prompt.placeholders import add_placeholders

LAYOUTS: tuple[Layout, ...] = (FLASHSLOTH, *FLASHVL)


def open_checkpoint(
    source: str | PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    layouts: Sequence[Layout] = LAYOUTS,
) -> tuple[SaccadeForConditionalGeneration, SaccadeProcessor]:
    """Return the model, in evaluation mode, and the processor of a checkpoint.

    Args:
        source: A folder written by `save_pretrained`, a folder in a released layout, or the hub id of either.
        dtype: Type of the weights; the checkpoint's own where None.
        device: Where the weights go; the CPU where None.
        layouts: Released layouts to recognize beside the native one.

    Raises:
        CheckpointError: when the checkpoint cannot be found or read, its layout is unknown, or tensors are missing,
            unexpected or of another shape than its configuration says.
        ConfigError: when its configuration contradicts itself.
    """
    with quiet():
        return _open(resolve(source), dtype, device, layouts)


@contextmanager
def _reading(what: str, folder: Path) -> Iterator[None]:
    """Turn what transformers raises over an unreadable file into one sentence."""
    try:
        yield
    except SaccadeError:
        raise
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, StrictDataclassError) as error:
        reason = f"cannot find {error}" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(
            f"{folder} has no usable {what} ({reason}): save or download the checkpoint again"
        ) from error


def _open(
    folder: Path, dtype: torch.dtype | None, device: str | torch.device | None, layouts: Sequence[Layout]
) -> tuple[SaccadeForConditionalGeneration, SaccadeProcessor]:
    config_json = read_json(folder / CONFIG_FILE)
    tensors = read_tensors(folder)
    layout = find_layout(config_json, tensors, layouts, folder)
    if layout is None:
        with _reading("configuration", folder):
            config = SaccadeConfig.from_pretrained(folder)
        with _reading("processor", folder):
            processor = SaccadeProcessor.from_pretrained(folder)
        model = _build(config, tensors, folder, dtype, device)
        if (folder / GENERATION_CONFIG_NAME).is_file():
            with _reading("generation configuration", folder):
                model.generation_config = GenerationConfig.from_pretrained(folder)
        return model, processor
    with _reading("configuration", folder):
        config = layout.to_config(config_json, layout.shapes(tensors))
    tokenizer = _released_tokenizer(folder, config, layout.stops)
    model = _build(config, layout.table.to_ours(tensors), folder, dtype, device, layout.table)
    stops = [tokenizer.eos_token_id, *(token_id(token, tokenizer) for token in layout.stops)]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops if len(stops) > 1 else stops[0],
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    return model, build_processor(config, tokenizer)


def _build(
    config: SaccadeConfig,
    tensors: dict[str, Tensor],
    folder: Path,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    table: Table | None = None,
) -> SaccadeForConditionalGeneration:
    """Return the model with exactly these tensors."""
    table = table or Table(())
    with _reading("configuration", folder):  # what it may not say shows only where towers and decoders are built
        loaded: Any = SaccadeForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype or _common_dtype(tensors, folder),
            device_map=None if device is None else {"": device},
            ignore_mismatched_sizes=True,  # reported below together with the rest, under the names of the file
            output_loading_info=True,
        )
    model: SaccadeForConditionalGeneration = loaded[0]
    info: dict[str, Any] = loaded[1]

    problems = []
    for word in ("missing", "unexpected"):
        names = sorted(set(map(table.name_of_theirs, info[f"{word}_keys"])))
        if names:
            problems.append(f"{len(names)} {word}: {listed(names)}")
    shapes = {
        f"{table.name_of_theirs(name)} is {table.shape_of_theirs(name, found)} instead of "
        f"{table.shape_of_theirs(name, wanted)}"
        for name, found, wanted in info["mismatched_keys"]
    }
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {listed(sorted(shapes))}")
    if problems:
        raise CheckpointError(
            f"the tensors in {folder} are not those of its {CONFIG_FILE} ({'; '.join(problems)}): download or save the "
            "checkpoint again"
        )
    model.config.name_or_path = str(folder)
    return model


def _common_dtype(tensors: dict[str, Tensor], folder: Path) -> torch.dtype:
    """Return the one floating type of a checkpoint."""
    types = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(types) != 1:
        found = ", ".join(sorted(map(str, types))) or "none"
        raise CheckpointError(f"{folder} holds tensors of several floating types ({found}): choose one with dtype=")
    return types.pop()


def _released_tokenizer(folder: Path, config: SaccadeConfig, stops: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a released folder with the tokens of the template in their places.

    The query token and the end of an answer are normally there; the picture placeholder never is, because the
    references add it when they run, or split prompts at its spelling.
    """
    with _reading("tokenizer", folder):
        # The tokenizer's files name its class; an empty configuration keeps transformers from reading the foreign one.
        tokenizer = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig())
    unknown = [token for token in stops if token not in tokenizer.get_vocab()]
    if unknown:
        raise CheckpointError(
            f"the tokenizer in {folder} does not know {listed(unknown)}, which ends an answer: use the tokenizer files "
            "of the release"
        )
    try:
        add_placeholders(tokenizer, config)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    tokenizer.eos_token = config.prompt.assistant_end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer
