"""FlashSloth's recipes: captions teach projector and SAP, then conversations teach all but the tower."""

from saccade.presets import FLASHSLOTH_TILES
from saccade.train.stages import Group, Recipe, Stage
from saccade.train.tasks import Listed, Tuning

LLAVA = "flashsloth-llava"
DECODER = "microsoft/phi-2"
TOWER = "google/siglip-so400m-patch14-384"
ALL_BUT_TOWER = "compressor|multi_modal_projector|language_model|lm_head|embedded_query"
# The first stage always sees one view, also where the model will later see tiles.
ONE_VIEW = {"layout": "single", "fit": "squash", "tiles_per_side": 1}


def flashsloth() -> Recipe:
    """FlashSloth-3.2B as published (CVPR 2025, Sec. 4.1 and table 2; figures from the released scripts).

    What SAP learns from captions is kept in the second stage, as the paper says; the released scripts start it afresh
    there. The scripts clip no gradients and cut rows at 3072 tokens; here a longer row is a bad one. Which sets make up
    the 3.7M samples of the published model was never said: give the second stage data of your own, or take
    `flashsloth_llava`. Half precision is bfloat16 here, float16 there.
    """
    captions = Stage(
        name="captions",
        task=Tuning(data=(Listed(mixture=LLAVA, only=("1",)),), max_length=3072),
        groups=(Group(pattern="compressor|multi_modal_projector", lr=1e-3),),
        epochs=1,
        batch=256,
        micro_batch=32,
        max_grad_norm=0.0,
        checkpointing=True,
    )
    tuning = Stage(
        name="tuning",
        task=Tuning(data=(Listed(mixture="flashsloth"),), max_length=3072, order="lengths"),
        groups=(Group(pattern=ALL_BUT_TOWER, lr=2e-5),),
        epochs=1,
        batch=128,
        micro_batch=8,
        max_grad_norm=0.0,
        checkpointing=True,
    )
    return Recipe(
        name="flashsloth",
        preset="flashsloth",
        tokenizer=DECODER,
        vision_tower=TOWER,
        language_model=DECODER,
        stages=(captions, tuning),
    )


def flashsloth_llava() -> Recipe:
    """`flashsloth` on LLaVA-1.5's 558K captions and 665K conversations, as the released scripts do it."""
    parent = flashsloth()
    captions, tuning = parent.stages
    task = tuning.task.model_copy(update={"data": (Listed(mixture=LLAVA, only=("2",)),)})
    return parent.model_copy(
        update={
            "name": "flashsloth_llava",
            "parent": "flashsloth",
            "stages": (captions, tuning.model_copy(update={"task": task})),
        }
    )


def flashsloth_hd(train_tower: bool = True) -> Recipe:
    """FlashSloth-HD-3.2B: captions on one view, then conversations on a thumbnail and four tiles (Sec. 3.3).

    Args:
        train_tower: Whether the second stage trains the tower too, as the paper says. The released code marks it for
            training, but runs it without gradients, so that it never learned: False repeats that.
    """
    parent = flashsloth()
    captions, tuning = parent.stages
    tower = (Group(pattern="vision_tower", lr=2e-5),) if train_tower else ()
    return parent.model_copy(
        update={
            "name": "flashsloth_hd" if train_tower else "flashsloth_hd_frozen",
            "preset": "flashsloth_hd",
            "parent": "flashsloth" if train_tower else "flashsloth_hd",
            "stages": (
                captions.model_copy(update={"image": ONE_VIEW}),
                tuning.model_copy(update={"image": FLASHSLOTH_TILES, "groups": (*tuning.groups, *tower)}),
            ),
        }
    )
