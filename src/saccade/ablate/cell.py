"""One cell of a study: a variant trained from one seed on a tower that all share, and scored."""

from __future__ import annotations

import hashlib
import json
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
from saccade.evaluate import evaluate_world
from saccade.image.processor import build_processor
from saccade.image.transform import normalize
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.recipes import nano
from saccade.train.run import load_tokenizer, train_stage
from saccade.train.stages import Stage
from saccade.train.world import Pictures
from saccade.vlm import VLM

# Two minutes on two cores; the stages are nano's, cut short.
STEPS = {"captions": 60, "questions": 400}
PICTURES = {"captions": 16, "questions": 16}
VAL_QUESTIONS = 500
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


def run_cell(study: Study, variant: str, seed: int, base: VLM, cache: Path) -> dict[str, Any]:
    """Train and score one variant.

    Args:
        study: What is varied.
        variant: One of its variants.
        seed: Of the new weights and the order of the data; the pictures are the same for all seeds.
        base: Gives its tower, which stays frozen, and its tokenizer.
        cache: Folder for the patches of the training pictures.

    Returns:
        What the page needs: scores, sizes, seconds.
    """
    began = time.perf_counter()
    config = study.variants[variant]()
    set_seed(seed)
    model = SaccadeForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(base.model.model.vision_tower.float().state_dict())
    tokenizer = load_tokenizer(nano().tokenizer)
    plan = stages(study)
    patches = cached_patches(model, study, max(stage.steps * stage.pictures for stage in plan), cache)
    with tempfile.TemporaryDirectory() as work:
        for stage in plan:
            folder = Path(work) / stage.name
            log = Path(work) / "log.jsonl"
            train_stage(
                model, tokenizer, stage, folder, log=log, seed=seed, save_steps=stage.steps + 1, patches=patches
            )
    vlm = VLM(model, build_processor(config, tokenizer), variant)
    report = evaluate_world(vlm, tuple(study.families), split="val", limit=VAL_QUESTIONS)
    return {
        "study": study.name,
        "variant": variant,
        "seed": seed,
        "families": report.to_dict()["families"],
        "visual_tokens": patches.shape[1] * config.tokens_per_view,
        "queries": config.prompt.num_queries,
        "parameters": model.num_parameters(),
        "steps": STEPS,
        "pictures": PICTURES,
        "base": base.name,
        "tower_sha256": digest(model),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def digest(model: SaccadeForConditionalGeneration) -> str:
    """SHA-256 of a model's tower."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        sha.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def cached_patches(
    model: SaccadeForConditionalGeneration, study: Study, count: int, folder: Path
) -> NDArray[np.float16]:
    """Return the patches `[count, views, patches, vision_dim]` of a study's training pictures, from the disk if there.

    The tower is frozen, so every variant that cuts pictures alike reads the same file.
    """
    config = model.config
    key = json.dumps(
        [digest(model), config.image.model_dump(), config.vision.model_dump(), dict(study.families), count]
    )
    file = folder / f"patches-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        _write_patches(model, config, Pictures(dict(study.families), count, config.image), unfinished)
        unfinished.rename(file)
    patches: NDArray[np.float16] = np.load(file, mmap_mode="r")
    return patches


def _write_patches(
    model: SaccadeForConditionalGeneration, config: SaccadeConfig, pictures: Pictures, file: Path
) -> None:
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
