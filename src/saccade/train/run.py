"""Running a recipe: stage after stage in one folder, resumable at every step."""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from saccade.checkpoint import bundled_models, open_checkpoint
from saccade.config import SaccadeConfig
from saccade.errors import ConfigError
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset
from saccade.train.loop import train_stage
from saccade.train.processes import join_processes
from saccade.train.stages import Recipe
from saccade.vlm import load


def run_recipe(recipe: Recipe, out: Path, *, workers: int = 1, save_steps: int = 200, compiled: bool = False) -> Path:
    """Train a recipe's stages in order, or go on where an earlier run of the same folder stopped.

    Under `torchrun` the pictures of a step are divided among the processes; the first one writes.

    Args:
        recipe: What to train.
        out: The run's folder: the resolved recipe, a log, and a folder for each stage with checkpoints and weights.
        workers: Processes that draw pictures.
        save_steps: Steps between checkpoints.
        compiled: Whether to compile the patch stage; its first steps then take a minute.

    Returns:
        The folder of the trained model, which `saccade.load` reads.

    Raises:
        ConfigError: when the folder holds a run of another recipe, or a step's pictures cannot be divided.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    config = preset(recipe.preset)
    config.description = recipe.description
    processes = join_processes(recipe.stages)
    with processes.main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _claim(recipe, config, out)
    set_seed(recipe.seed)
    model = SaccadeForConditionalGeneration(config)
    if recipe.base is not None:
        _start_from(recipe.base, recipe.base_modules, model)
    tokenizer = load_tokenizer(recipe.tokenizer)
    for number, stage in enumerate(recipe.stages):
        folder = out / f"{number}-{stage.name}"
        weights = folder / "model"
        if weights.exists():
            model, _ = open_checkpoint(weights, dtype=torch.float32)
            continue
        train_stage(
            model,
            tokenizer,
            stage,
            folder,
            log=out / "log.jsonl",
            seed=recipe.seed,
            workers=workers,
            save_steps=save_steps,
            compiled=compiled,
        )
        if processes.is_main_process:
            build_processor(config, tokenizer).save_pretrained(folder / "unfinished")
            model.save_pretrained(folder / "unfinished")
            (folder / "unfinished").rename(weights)
        processes.wait_for_everyone()
    return weights


def _start_from(base: str, modules: tuple[str, ...] | None, model: SaccadeForConditionalGeneration) -> None:
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


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a bundled model, or from a path."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(bundled_models().get(source, source)))
    return tokenizer


def _claim(recipe: Recipe, config: SaccadeConfig, out: Path) -> None:
    """Write the resolved recipe and its model into the folder, or check that they are those already there."""
    claim = {"recipe": recipe.model_dump(mode="json"), "model": config.definition()}
    file = out / "run.json"
    if not file.exists():
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(claim, indent=2) + "\n")
        unfinished.replace(file)
    elif json.loads(file.read_text()) != claim:
        raise ConfigError(f"{out} holds a run of another recipe (see {file}): choose an empty folder, or remove it")
