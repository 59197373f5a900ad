"""What the frozen tower makes of the training pictures, computed once for all cells that see the same ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from saccade.ablate.study import Course
from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.image.transform import normalize
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.tasks import Captions, Questions
from saccade.train.world import Pictures, StoredPatches
from saccade.vlm import VLM
from saccade.vlm.ledger import weights_hash

ENCODED_AT_ONCE = 64


def course_patches(course: Course, base: VLM, folder: Path) -> dict[str, StoredPatches]:
    """Return the patches of the pictures of a course's stages, by row; stages that learn from rows have none."""
    drawn = {
        row: (stage.task, (stage.steps or 0) * stage.batch)
        for row, stage in course.stages.items()
        if isinstance(stage.task, Captions | Questions)
    }
    if not drawn:
        return {}
    config = course.config(base.model.config)
    # Stages begin with the same pictures, where their families are the same: the longest has those of all.
    most = {
        row: max(count for other, count in drawn.values() if other.families == task.families)
        for row, (task, _) in drawn.items()
    }
    return {row: cached_patches(config, task.families, most[row], base, folder) for row, (task, _) in drawn.items()}


def cached_patches(
    config: SaccadeConfig, families: Mapping[str, float], count: int, base: VLM, folder: Path
) -> StoredPatches:
    """Return the patches of the first pictures of some families, from the disk if there.

    The tower is frozen, so every model that cuts pictures alike reads the same files.

    Args:
        config: Says how pictures are cut.
        families: Families of the rendered world, with their shares of the pictures.
        count: Number of pictures.
        base: Gives the tower.
        folder: Where the files are.
    """
    cut = [config.image.model_dump(), config.vision.model_dump()]
    tower = weights_hash(base.model.model.vision_tower)
    key = json.dumps([scenes.WORLD_VERSION, tower, *cut, dict(families), count])
    stored = folder / f"patches-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not stored.exists():
        unfinished = stored.with_suffix(f".{os.getpid()}.part")
        unfinished.mkdir(parents=True, exist_ok=True)
        _write_patches(base.model, Pictures(dict(families), count, config.image), unfinished)
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
                pixels = torch.from_numpy(normalize(np.concatenate(cut), pictures.image)).to(model.device)
                model.model.encode_views(pixels).cpu().numpy().astype(np.float16).tofile(file)
            counts += [len(views) for views in cut]
    np.save(folder / "starts.npy", np.cumsum([0, *counts]))
