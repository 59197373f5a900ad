"""Finetuning: a model that exists, on pictures of one's own."""

from saccade.data.sources import Source
from saccade.train.stages import Group, Lora, Recipe, Stage
from saccade.train.tasks import Tuning

ALL_BUT_TOWER = "compressor|multi_modal_projector|language_model|lm_head|embedded_query"


def finetune() -> Recipe:
    """Adapters beside all linear layers, the tower's included: what a task looks like is often new, too.

    Written for nano. A large model wants a tenth of the learning rate, and mostly no adapters in its tower.
    """
    lora = Lora(rank=16, alpha=32)
    tuning = Stage(
        name="tuning",
        task=Tuning(data=(Source(path="train.jsonl", kind="chat"),), max_length=512),
        groups=(
            Group(pattern=ALL_BUT_TOWER, lr=2e-3, lora=lora),
            Group(pattern="vision_tower", lr=2e-3, lora=lora),
        ),
        epochs=10,
        batch=16,
        warmup=0.05,
    )
    return Recipe(name="finetune", base="nano", stages=(tuning,))


def finetune_full() -> Recipe:
    """`finetune` without adapters: every weight is trained."""
    parent = finetune()
    (tuning,) = parent.stages
    groups = (Group(pattern=ALL_BUT_TOWER, lr=5e-4), Group(pattern="vision_tower", lr=3e-4))
    return parent.model_copy(
        update={
            "name": "finetune_full",
            "parent": "finetune",
            "stages": (tuning.model_copy(update={"groups": groups}),),
        }
    )
