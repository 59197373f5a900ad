"""One cell of a study: a variant trained from one seed, with what it keeps of a base, and scored after every stage."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import set_seed

from saccade.ablate.paired import Answers
from saccade.ablate.stored import course_patches
from saccade.ablate.study import TOWER, Course, Study
from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.errors import ConfigError
from saccade.evaluate import evaluate_world
from saccade.evaluate.pointing import FAMILIES as POINTING_FAMILIES
from saccade.evaluate.pointing import evaluate_pointing
from saccade.evaluate.provenance import made_with
from saccade.evaluate.world import Outcome, items
from saccade.image.geometry import num_image_tokens
from saccade.image.processor import build_processor
from saccade.model import SaccadeForConditionalGeneration
from saccade.train.answers import answer_trainer
from saccade.train.loop import train_stage
from saccade.train.stages import Stage
from saccade.train.tasks import Preferences, Problems, World
from saccade.train.world import StoredPatches
from saccade.vlm import VLM
from saccade.vlm.ledger import weights_hash

# Spread evenly over the frozen test: its answers are balanced, and the page only reports, nothing is chosen by it.
SPLIT = "test"
POINTING_SCENES = 100


def settings(study: Study, base: VLM) -> dict[str, Any]:
    """All that the results of a study depend on besides variant and seed, by name, in JSON types.

    Raises:
        ConfigError: when the base has another tower than a variant, or lacks what it keeps, or a library is missing.
    """
    courses = {name: study.course(name) for name in study.variants}
    definitions = {f"variant {name}": _definition(name, course, base) for name, course in courses.items()}
    shared = {
        "world": scenes.WORLD_VERSION,
        "families": sorted(study.families),
        "tower": weights_hash(base.model.model.vision_tower),
        "tokenizer": hashlib.sha256(base.processor.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "split": SPLIT,
        "questions": study.questions,
        "pointing scenes": POINTING_SCENES,
    }
    if any(course.build is None or course.keeps != TOWER for course in courses.values()):
        shared["weights"] = weights_hash(base.model)
    return shared | definitions


def run_cell(study: Study, variant: str, seed: int, base: VLM, cache: Path) -> dict[str, Any]:
    """Train a variant, and score it after every stage.

    Args:
        study: What is varied.
        variant: One of its variants.
        seed: Of the new weights, the order of the data, and which scenes rows are drawn from; pictures of the rendered
            world, where a stage draws those, are the same for all seeds.
        base: Gives its tower, which stays frozen, its tokenizer, and what else a course keeps; `settings` has checked
            that it fits.
        cache: Folder for the patches of the training pictures.

    Returns:
        What the page needs: scores, sizes, seconds, and what they were made with.

    Raises:
        ConfigError: when the base's tokenizer does not know the variant's placeholders.
        DataError: when rows of a stage are bad.
    """
    began = time.perf_counter()
    course = study.course(variant)
    patches = course_patches(course, base, cache)
    set_seed(seed)
    model = _start(course, base)
    learner = VLM(model, build_processor(model.config, base.processor.tokenizer), variant)
    rows = {course.start: score(learner, study)} if course.start else {}
    for row, stage in course.stages.items():
        rows[row] = train(learner, of_seed(stage, seed), seed, patches.get(row)) | score(learner, study)
    return {
        "study": study.name,
        "variant": variant,
        "seed": seed,
        "rows": rows,
        "world": scenes.version_with(study.families),
        "split": SPLIT,
        "visual_tokens": visual_tokens(study, model.config),
        "queries": model.config.prompt.num_queries,
        "parameters": model.num_parameters(),
        "base": base.name,
        "tower": weights_hash(base.model.model.vision_tower),
        **made_with(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def train(learner: VLM, stage: Stage, seed: int, patches: StoredPatches | None = None) -> dict[str, Any]:
    """Train a stage in place, and return its steps, its seconds, and the first and the last line of its log."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        folder, log = Path(work) / stage.name, Path(work) / "log.jsonl"
        train_stage(
            learner.model,
            learner.processor.tokenizer,
            stage,
            folder,
            log=log,
            seed=seed,
            save_steps=0,
            patches=patches,
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {
        "steps": stage.steps,
        "batch": stage.batch,
        "log": lines[:1] + lines[1:][-1:],
        "seconds": round(time.perf_counter() - began, 1),
    }


def of_seed(stage: Stage, seed: int) -> Stage:
    """Return a stage whose rows of the rendered world no other seed sees."""
    sources = getattr(stage.task, "data", ())
    moved = tuple(
        one.model_copy(update={"first": one.first + seed * one.rows}) if isinstance(one, World) else one
        for one in sources
    )
    return stage.model_copy(update={"task": stage.task.model_copy(update={"data": moved})}) if moved else stage


def score(learner: VLM, study: Study) -> dict[str, Any]:
    """Ask a model what the study asks; `answers` tells of every question whether it was right."""
    vlm = VLM(learner.model.eval(), learner.processor, learner.name)
    report = evaluate_world(vlm, tuple(study.families), split=SPLIT, limit=study.questions)
    return {
        "families": report.to_dict()["families"],
        "answers": answers(report.outcomes),
        "pointing": pointing(vlm, study),
    }


def answers(outcomes: Sequence[Outcome]) -> Answers:
    """Write for each form, as `family.form`, the scenes that were asked about, with a `+` for each right answer."""
    said: dict[str, list[str]] = {}
    for one in outcomes:
        form = f"{one.item.family}.{one.item.question.form}"
        said.setdefault(form, []).append(f"{one.item.scene}{'+' if one.right else '-'}")
    return {form: " ".join(marks) for form, marks in said.items()}


def pointing(vlm: VLM, study: Study) -> float | None:
    """The pointing score of a model with queries, where the study shows what can be pointed at."""
    families = [family for family in POINTING_FAMILIES if family in study.families]
    if vlm.model.config.query is None or not families:
        return None
    report = evaluate_pointing(vlm, families, split=SPLIT, limit=POINTING_SCENES).to_dict()
    return fmean(family["mean"] for family in report["families"].values())


def visual_tokens(study: Study, config: SaccadeConfig) -> float:
    """Visual tokens of a picture: the mean over the pictures that the questions of the test are about."""
    asked = {(item.family, item.scene) for family in study.families for item in items(family, SPLIT, study.questions)}
    shown = [scenes.sketch(family, SPLIT, scene) for family, scene in sorted(asked)]
    return round(
        fmean(num_image_tokens(one.width, one.height, config.image, config.tokens_per_view) for one in shown), 1
    )


def _start(course: Course, base: VLM) -> SaccadeForConditionalGeneration:
    """Return what a course starts from: a copy of the base, or a fresh model with what it keeps of that."""
    if course.build is None:
        model: SaccadeForConditionalGeneration = deepcopy(base.model)
        return model
    model = SaccadeForConditionalGeneration(course.build())
    for name in course.keeps:
        model.get_submodule(name).load_state_dict(base.model.get_submodule(name).state_dict())
    return model


def _definition(variant: str, course: Course, base: VLM) -> dict[str, Any]:
    """Return what a variant is, its configuration and its stages, once all that it needs is there."""
    for stage in course.stages.values():
        if isinstance(stage.task, Preferences | Problems):
            answer_trainer(stage)  # a library that is missing is told before the first stage, not before the last
    config = course.config(base.model.config)
    _check_tower(variant, config, base)
    if course.build is not None:
        _check_shapes(variant, config, course.keeps, base)
    # Only where more is kept than the tower, as all studies did before there was the choice: their cells stay valid.
    kept = {} if course.keeps == TOWER else {"keeps": list(course.keeps)}
    return kept | {
        "start": course.start,
        "stages": {row: stage.model_dump(mode="json") for row, stage in course.stages.items()},
        "config": hashlib.sha256(json.dumps(config.definition(), sort_keys=True).encode()).hexdigest(),
    }


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


def _check_shapes(variant: str, config: SaccadeConfig, modules: Sequence[str], base: VLM) -> None:
    """Raise ConfigError where a module of the base does not fit the same one of the variant."""
    with torch.device("meta"):
        fresh = SaccadeForConditionalGeneration(config)
    for name in modules:
        own, given = (_shapes(model.get_submodule(name)) for model in (fresh, base.model))
        if own != given:
            raise ConfigError(
                f"{name} of {base.name} is not that of variant {variant!r}, which keeps its weights: give a base "
                "that has the same"
            )


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
