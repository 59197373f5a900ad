"""What a recipe starts from: fresh weights, another model, or a tower and a decoder that were trained apart."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from saccade.checkpoint import bundled_models, open_checkpoint
from saccade.checkpoint.files import first_line, listed
from saccade.config import SaccadeConfig
from saccade.errors import CheckpointError, ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.prompt.placeholders import add_placeholders
from saccade.train.stages import Recipe
from saccade.vlm import load


def start_model(recipe: Recipe) -> tuple[SaccadeForConditionalGeneration, PreTrainedTokenizerBase]:
    """Return the model that a recipe's first stage starts from, in float32, and its tokenizer.

    Raises:
        CheckpointError: when a model or tokenizer that the recipe names cannot be read.
        ConfigError: when weights or a tokenizer do not fit the recipe's preset.
    """
    if recipe.preset is None:
        assert recipe.base is not None
        model, processor = open_checkpoint(recipe.base, dtype=torch.float32)
        model.config.description = recipe.description
        model.config.name_or_path = recipe.base  # not where it lies here: adapters name it to whoever merges them
        if recipe.tokenizer is None:
            return model, processor.tokenizer
        return model, with_placeholders(load_tokenizer(recipe.tokenizer), model.config)
    config = preset(recipe.preset)
    config.description = recipe.description
    model = SaccadeForConditionalGeneration(config)
    if recipe.vision_tower is not None:
        _take_tower(recipe.vision_tower, model)
    if recipe.language_model is not None:
        _take_decoder(recipe.language_model, model)
    if recipe.base is not None:
        _take_modules(recipe.base, recipe.base_modules, model)
    if recipe.tokenizer is not None:
        return model, with_placeholders(load_tokenizer(recipe.tokenizer), config)
    assert recipe.base is not None
    return model, open_checkpoint(recipe.base)[1].tokenizer


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a bundled model, of a folder or of a hub id.

    Raises:
        CheckpointError: when there is none that can be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(bundled_models().get(source, source)))
    except (OSError, ValueError) as error:
        raise _unreadable("tokenizer", source, error) from error
    return tokenizer


def with_placeholders(tokenizer: PreTrainedTokenizerBase, config: SaccadeConfig) -> PreTrainedTokenizerBase:
    """Return a tokenizer with a model's placeholders, and with what rows are padded with.

    Raises:
        ConfigError: when a placeholder has another id than the model knows it by.
    """
    add_placeholders(tokenizer, config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = config.text_config.pad_token_id
    return tokenizer


def _take_tower(source: str, model: SaccadeForConditionalGeneration) -> None:
    """Copy a tower; layers and heads that the model does not build are left behind."""
    given = _open(AutoModel, source)
    tower: nn.Module = getattr(given, "vision_model", given)
    weights = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    _fill(model.model.vision_tower, weights, source, "vision_tower")


def _take_decoder(source: str, model: SaccadeForConditionalGeneration) -> None:
    """Copy a decoder and its output head; where they share the head with the embeddings, the head gets a copy."""
    given = _open(AutoModelForCausalLM, source)
    _fill(model.model.language_model, given.get_decoder().state_dict(), source, "language_model")
    _fill(model.lm_head, given.get_output_embeddings().state_dict(), source, "lm_head")


def _open(kind: Any, source: str) -> Any:
    try:
        return kind.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise _unreadable("model", source, error) from error


def _unreadable(what: str, source: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{source!r} is neither a folder with a {what} nor a hub id that can be reached from here "
        f"({first_line(error)}): check the spelling and the connection, or download it elsewhere and name the folder"
    )


def _fill(module: nn.Module, weights: dict[str, torch.Tensor], source: str, name: str) -> None:
    """Load those weights that a module has; raise ConfigError where one is missing or of another shape."""
    own = module.state_dict()
    wrong = [key for key, value in own.items() if key not in weights or weights[key].shape != value.shape]
    if wrong:
        raise ConfigError(
            f"the weights in {source!r} do not fit the preset's {name} in {listed(wrong)}: name the model that the "
            "preset was written for"
        )
    module.load_state_dict({key: weights[key] for key in own})


def _take_modules(base: str, modules: tuple[str, ...] | None, model: SaccadeForConditionalGeneration) -> None:
    """Copy the weights of another model, of all of it or of some modules.

    Raises:
        ConfigError: when a module is missing in either, or its tensors have other names or shapes.
    """
    given = load(base, device="cpu", dtype="float32").model
    for name in ("",) if modules is None else modules:  # the module without a name is the whole model
        weights, own = (_weights_of(name, whole) for whole in (given, model))
        if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in own.items()}:
            raise ConfigError(
                f"the weights of base {base!r}{name and f', module {name},'} do not fit the recipe's preset: change "
                "one of them"
            )
        model.get_submodule(name).load_state_dict(weights)
    if modules is None:
        model.config.name_or_path = base


def _weights_of(name: str, model: SaccadeForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return the weights of a module by name; raise ConfigError where the model has no such module."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise ConfigError(
            f"base_modules names {name!r}, which the base or the recipe's preset does not have: name modules of both, "
            "such as 'model.vision_tower'"
        ) from error
    weights: dict[str, torch.Tensor] = module.state_dict()
    return weights
