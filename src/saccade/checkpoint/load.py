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
from transformers.utils import GENERATION_CONFIG_NAME, logging

from saccade.checkpoint.files import CONFIG_FILE, first_line, listed, read_json, read_tensors, resolve
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.checkpoint.layouts import Layout
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, SaccadeError
from saccade.image.processor import SaccadeProcessor, build_processor
from saccade.model import SaccadeForConditionalGeneration

LAYOUTS: tuple[Layout, ...] = (FLASHSLOTH,)


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
def quiet() -> Iterator[None]:
    """Silence transformers while it reads or writes: what it reports then is either raised as an error or expected."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _reading(what: str, folder: Path) -> Iterator[None]:
    """Turn what transformers raises over an unreadable file into one sentence."""
    try:
        yield
    except SaccadeError:
        raise
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(
            f"{folder} has no usable {what} ({first_line(error)}): save or download the checkpoint again"
        ) from error


def _open(
    folder: Path, dtype: torch.dtype | None, device: str | torch.device | None, layouts: Sequence[Layout]
) -> tuple[SaccadeForConditionalGeneration, SaccadeProcessor]:
    config_json = read_json(folder / CONFIG_FILE)
    if config_json.get("model_type") == SaccadeConfig.model_type:
        with _reading("configuration", folder):
            config = SaccadeConfig.from_pretrained(folder)
        with _reading("processor", folder):
            processor = SaccadeProcessor.from_pretrained(folder)
        model = _build(config, read_tensors(folder), folder, dtype, device)
        if (folder / GENERATION_CONFIG_NAME).is_file():
            with _reading("generation configuration", folder):
                model.generation_config = GenerationConfig.from_pretrained(folder)
        return model, processor
    layout = _find_layout(config_json, layouts, folder)
    theirs = read_tensors(folder)
    config = layout.to_config(config_json, {name: tuple(tensor.shape) for name, tensor in theirs.items()})
    tokenizer = _released_tokenizer(folder, config)
    model = _build(config, _renamed(theirs, layout), folder, dtype, device, layout)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, build_processor(config, tokenizer)


def _find_layout(config_json: dict[str, Any], layouts: Sequence[Layout], folder: Path) -> Layout:
    for layout in layouts:
        if layout.recognizes(config_json):
            return layout
    known = ", ".join([SaccadeConfig.model_type, *(layout.model_type for layout in layouts)])
    raise CheckpointError(
        f"{folder / CONFIG_FILE} declares model_type {config_json.get('model_type')!r}, which is none of {known}: use "
        "a checkpoint in one of these layouts"
    )


def _renamed(theirs: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the tensors under our names."""
    ours = {layout.rename_to_ours(name): tensor for name, tensor in theirs.items()}
    if len(ours) != len(theirs):
        twice = sorted(
            name for name in theirs if layout.rename_to_ours(name) != name and layout.rename_to_ours(name) in theirs
        )
        raise CheckpointError(f"{listed(twice)} is there under our name too: keep one of the two")
    return ours


def _build(
    config: SaccadeConfig,
    tensors: dict[str, Tensor],
    folder: Path,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    layout: Layout | None = None,
) -> SaccadeForConditionalGeneration:
    """Return the model with exactly these tensors."""
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

    def name_in_file(name: str) -> str:
        return layout.rename_to_theirs(name) if layout else name

    problems = []
    for word in ("missing", "unexpected"):
        names = sorted(map(name_in_file, info[f"{word}_keys"]))
        if names:
            problems.append(f"{len(names)} {word}: {listed(names)}")
    shapes = [
        f"{name_in_file(name)} is {list(found)} instead of {list(wanted)}"
        for name, found, wanted in info["mismatched_keys"]
    ]
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


def _released_tokenizer(folder: Path, config: SaccadeConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a released folder with the tokens of the template in their places.

    The query token and the end of an answer are normally there; the picture placeholder never is, because the reference
    splits prompts at its spelling. What is missing is appended in the order in which the reference adds it, then
    checked.
    """
    with _reading("tokenizer", folder):
        # The tokenizer's files name its class; an empty configuration keeps transformers from reading the foreign one.
        tokenizer = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig())
    prompt: Any = config.prompt
    for token in (prompt.query_token, prompt.assistant_end, prompt.image_token):
        tokenizer.add_tokens([token], special_tokens=True)
    for token, wanted in ((prompt.query_token, config.query_token_id), (prompt.image_token, config.image_token_id)):
        found = tokenizer.convert_tokens_to_ids(token)
        if found != wanted:
            raise CheckpointError(
                f"the tokenizer in {folder} gives {token} the id {found}, but the weights know it as {wanted}: use the "
                "tokenizer files of the release"
            )
    tokenizer.eos_token = prompt.assistant_end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer
