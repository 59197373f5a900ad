"""One cell of a study: a variant trained from one seed on a tower that all share, and scored."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from transformers import set_seed

from saccade.ablate.studies import Study
from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.errors import ConfigError
from saccade.evaluate import evaluate_world
from saccade.evaluate.provenance import made_with
from saccade.image.processor import build_processor
from saccade.image.transform import normalize
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.recipes import nano
from saccade.train.run import train_stage
from saccade.train.stages import Stage
from saccade.train.world import Pictures
from saccade.vlm import VLM

# Two minutes on two cores; the stages are nano's, cut short.
STEPS = {"captions": 60, "questions": 400}
PICTURES = {"captions": 16, "questions": 16}
# Spread evenly over the frozen test: its answers are balanced, and the page only reports, nothing is chosen by it.
SPLIT = "test"
QUESTIONS = 500
ENCODED_AT_ONCE = 64


def stages(study: Study) -> list[Stage]:
    """The stages of a cell: nano's after the tower's, shorter, on the study's families."""
    return [
        stage.model_copy(
            update={
                "steps": STEPS[stage.name],
                "pictures": PICTURES[stage.name],
                "families": dict(study.families),
                "describe": 0.0,
            }
        )
        for stage in nano().stages
        if stage.name in STEPS
    ]


def settings(study: Study, base: VLM) -> dict[str, Any]:
    """All that the results of a study depend on besides variant and seed, by name, in JSON types.

    Raises:
        ConfigError: when the base has another tower than a variant.
    """
    configs = {name: build() for name, build in study.variants.items()}
    for name, config in configs.items():
        _check_tower(name, config, base)
    shared = {"world": scenes.WORLD_VERSION, "tower": digest(base.model), "split": SPLIT, "questions": QUESTIONS}
    for stage in stages(study):
        shared |= {f"{stage.name}.{field}": value for field, value in stage.model_dump(mode="json").items()}
    return shared | {f"variant {name}": _config_digest(config) for name, config in configs.items()}


def run_cell(study: Study, variant: str, seed: int, base: VLM, cache: Path) -> dict[str, Any]:
    """Train and score one variant.

    Args:
        study: What is varied.
        variant: One of its variants.
        seed: Of the new weights and the order of the data; the pictures are the same for all seeds.
        base: Gives its tower, which stays frozen, and its tokenizer; `settings` has checked that the tower fits.
        cache: Folder for the patches of the training pictures.

    Returns:
        What the page needs: scores, sizes, seconds, and what they were made with.

    Raises:
        ConfigError: when the base's tokenizer does not know the variant's placeholders.
    """
    began = time.perf_counter()
    config = study.variants[variant]()
    set_seed(seed)
    model = SaccadeForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(base.model.model.vision_tower.state_dict())
    tokenizer = base.processor.tokenizer
    processor = build_processor(config, tokenizer)
    plan = stages(study)
    patches = cached_patches(model, study, max(stage.steps * stage.pictures for stage in plan), cache)
    with tempfile.TemporaryDirectory() as work:
        for stage in plan:
            folder = Path(work) / stage.name
            log = Path(work) / "log.jsonl"
            train_stage(
                model, tokenizer, stage, folder, log=log, seed=seed, save_steps=stage.steps + 1, patches=patches
            )
    report = evaluate_world(VLM(model, processor, variant), tuple(study.families), split=SPLIT, limit=QUESTIONS)
    return {
        "study": study.name,
        "variant": variant,
        "seed": seed,
        "families": report.to_dict()["families"],
        "world": scenes.WORLD_VERSION,
        "split": SPLIT,
        "visual_tokens": patches.shape[1] * config.tokens_per_view,
        "queries": config.prompt.num_queries,
        "parameters": model.num_parameters(),
        "steps": STEPS,
        "pictures": PICTURES,
        "base": base.name,
        "tower_sha256": digest(base.model),
        **made_with(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def digest(model: SaccadeForConditionalGeneration) -> str:
    """SHA-256 of a model's tower in float32, wherever it lies."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        sha.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def cached_patches(
    model: SaccadeForConditionalGeneration, study: Study, count: int, folder: Path
) -> NDArray[np.float16]:
    """Return the patches `[count, views, patches, vision_dim]` of a study's training pictures, from the disk if there.

    The tower is frozen, so every variant that cuts pictures alike reads the same file.
    """
    config = model.config
    cut = [config.image.model_dump(), config.vision.model_dump()]
    key = json.dumps([scenes.WORLD_VERSION, digest(model), *cut, dict(study.families), count])
    file = folder / f"patches-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.part")
        _write_patches(model, config, Pictures(dict(study.families), count, config.image), unfinished)
        unfinished.replace(file)
    patches: NDArray[np.float16] = np.load(file, mmap_mode="r")
    return patches


def _write_patches(
    model: SaccadeForConditionalGeneration, config: SaccadeConfig, pictures: Pictures, file: Path
) -> None:
    model.eval()
    views = len(pictures.views(0, pictures.scene(0)))
    shape = (len(pictures), views, config.patches_per_view, config.vision_config.hidden_size)
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    for start in track(
        range(0, len(pictures), ENCODED_AT_ONCE), "patches of the frozen tower", console=Console(stderr=True)
    ):
        numbers = range(start, min(start + ENCODED_AT_ONCE, len(pictures)))
        cut = np.concatenate([pictures.views(number, pictures.scene(number)) for number in numbers])
        with torch.no_grad():
            patches = model.model.encode_views(torch.from_numpy(normalize(cut, config.image)))
        stored[numbers.start : numbers.stop] = patches.numpy().reshape(len(numbers), *shape[1:])
    stored.flush()


def _check_tower(variant: str, config: SaccadeConfig, base: VLM) -> None:
    """Raise ConfigError where the base's tower is not the variant's."""
    own, given = ({**c.vision_config.to_dict(), **c.vision.model_dump()} for c in (config, base.model.config))
    # The precision that weights were stored in is no part of what the tower is.
    other = sorted(name for name in own.keys() | given.keys() if name != "dtype" and own.get(name) != given.get(name))
    if other:
        raise ConfigError(
            f"the tower of {base.name} is not that of variant {variant!r} ({', '.join(other)} differ): give a base "
            "that has nano's tower"
        )


def _config_digest(config: SaccadeConfig) -> str:
    return hashlib.sha256(json.dumps(config.definition(), sort_keys=True).encode()).hexdigest()
