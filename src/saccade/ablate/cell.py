"""One cell of a study: a variant trained from one seed on a tower that all share, and scored."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from transformers import set_seed

from saccade.ablate.studies import Study
from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.errors import ConfigError
from saccade.evaluate import evaluate_world
from saccade.evaluate.pointing import FAMILIES as POINTING_FAMILIES
from saccade.evaluate.pointing import evaluate_pointing
from saccade.evaluate.provenance import made_with
from saccade.evaluate.world import items
from saccade.image.geometry import num_image_tokens
from saccade.image.processor import build_processor
from saccade.image.transform import normalize
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.loop import train_stage
from saccade.train.recipes.nano_recipes import NANO_QUESTIONS, nano
from saccade.train.stages import Stage
from saccade.train.world import Pictures, StoredPatches, question_types
from saccade.vlm import VLM

PICTURES = 16
# Spread evenly over the frozen test: its answers are balanced, and the page only reports, nothing is chosen by it.
SPLIT = "test"
QUESTIONS = 500
POINTING_SCENES = 100
ENCODED_AT_ONCE = 64


def stage(study: Study) -> Stage:
    """The one stage of a cell: nano's questions, fewer of them, on the study's families.

    All questions of a picture are asked in one conversation, which shows no other: visual tokens are most of the work.
    """
    asked, questions = question_types(study.families), nano().stage("questions")
    short = NANO_QUESTIONS.model_copy(
        update={
            "turns": NANO_QUESTIONS.questions + 1,  # where a thing is comes on top
            "emphasis": {type: times for type, times in NANO_QUESTIONS.emphasis.items() if type in asked},
            "families": dict(study.families),
            "describe": 0.0,
            "second_picture": 0.0,
            "small_talk": 0.0,
        }
    )
    return questions.model_copy(update={"steps": study.steps, "batch": PICTURES, "task": short})


def settings(study: Study, base: VLM) -> dict[str, Any]:
    """All that the results of a study depend on besides variant and seed, by name, in JSON types.

    Raises:
        ConfigError: when the base has another tower than a variant.
    """
    configs = {name: build() for name, build in study.variants.items()}
    for name, config in configs.items():
        _check_tower(name, config, base)
    shared = {"world": scenes.WORLD_VERSION, "tower": digest(base.model), "split": SPLIT, "questions": QUESTIONS}
    shared["pointing scenes"] = POINTING_SCENES
    shared |= {f"stage.{field}": value for field, value in stage(study).model_dump(mode="json").items()}
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
    patches = cached_patches(study, variant, base, cache)
    config = study.variants[variant]()
    set_seed(seed)
    model = SaccadeForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(base.model.model.vision_tower.state_dict())
    tokenizer = base.processor.tokenizer
    processor = build_processor(config, tokenizer)
    asking = stage(study)
    with tempfile.TemporaryDirectory() as work:
        folder, log = Path(work) / asking.name, Path(work) / "log.jsonl"
        train_stage(model, tokenizer, asking, folder, log=log, seed=seed, save_steps=study.steps + 1, patches=patches)
    vlm = VLM(model, processor, variant)
    report = evaluate_world(vlm, tuple(study.families), split=SPLIT, limit=QUESTIONS)
    return {
        "study": study.name,
        "variant": variant,
        "seed": seed,
        "families": report.to_dict()["families"],
        "pointing": pointing(vlm, study),
        "world": scenes.WORLD_VERSION,
        "split": SPLIT,
        "visual_tokens": visual_tokens(study, config),
        "queries": config.prompt.num_queries,
        "parameters": model.num_parameters(),
        "steps": study.steps,
        "pictures": PICTURES,
        "base": base.name,
        "tower_sha256": digest(base.model),
        **made_with(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def pointing(vlm: VLM, study: Study) -> float | None:
    """The pointing score of a model with queries, where the study shows what can be pointed at."""
    families = [family for family in POINTING_FAMILIES if family in study.families]
    if vlm.model.config.query is None or not families:
        return None
    report = evaluate_pointing(vlm, families, split=SPLIT, limit=POINTING_SCENES).to_dict()
    return fmean(family["mean"] for family in report["families"].values())


def visual_tokens(study: Study, config: SaccadeConfig) -> float:
    """Visual tokens of a picture: the mean over the pictures that the questions of the test are about."""
    asked = {(item.family, item.scene) for family in study.families for item in items(family, SPLIT, QUESTIONS)}
    shown = [scenes.sketch(family, SPLIT, scene) for family, scene in sorted(asked)]
    return round(
        fmean(num_image_tokens(one.width, one.height, config.image, config.tokens_per_view) for one in shown), 1
    )


def digest(model: SaccadeForConditionalGeneration) -> str:
    """SHA-256 of a model's tower in float32, wherever it lies."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        sha.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def cached_patches(study: Study, variant: str, base: VLM, folder: Path) -> StoredPatches:
    """Return the patches of the pictures that a variant is trained on, from the disk if there.

    The tower is frozen, so every variant that cuts pictures alike reads the same files.
    """
    config, count = study.variants[variant](), study.steps * PICTURES
    cut = [config.image.model_dump(), config.vision.model_dump()]
    key = json.dumps([scenes.WORLD_VERSION, digest(base.model), *cut, dict(study.families), count])
    stored = folder / f"patches-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not stored.exists():
        unfinished = stored.with_suffix(f".{os.getpid()}.part")
        unfinished.mkdir(parents=True, exist_ok=True)
        _write_patches(base.model, Pictures(dict(study.families), count, config.image), unfinished)
        unfinished.replace(stored)
    shape = (-1, config.patches_per_view, config.vision_config.hidden_size)
    patches = np.memmap(stored / "patches", dtype=np.float16, mode="r").reshape(shape)
    return StoredPatches(patches, np.load(stored / "starts.npy"))


def _write_patches(model: SaccadeForConditionalGeneration, pictures: Pictures, folder: Path) -> None:
    """Write the patches of all pictures one after the other, and where those of each picture start."""
    model.eval()
    counts = []
    with (folder / "patches").open("wb") as file:
        for start in track(
            range(0, len(pictures), ENCODED_AT_ONCE), "patches of the frozen tower", console=Console(stderr=True)
        ):
            numbers = range(start, min(start + ENCODED_AT_ONCE, len(pictures)))
            cut = [pictures.views(number, pictures.scene(number)) for number in numbers]
            with torch.no_grad():
                pixels = torch.from_numpy(normalize(np.concatenate(cut), pictures.image))
                model.model.encode_views(pixels).numpy().astype(np.float16).tofile(file)
            counts += [len(views) for views in cut]
    np.save(folder / "starts.npy", np.cumsum([0, *counts]))


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
