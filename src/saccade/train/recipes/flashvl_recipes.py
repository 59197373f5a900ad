"""Flash-VL's recipes: five stages, the reasoning runs that start from the fourth, and the setting of the ablations.

What the paper does not print is our reading in all of them: AdamW without weight decay, the warm-up, and the longest
row. Everything else is table 1 and sections 4.1 and 4.7, unless a docstring says otherwise.
"""

from typing import Literal

from saccade.train.stages import Group, Lora, Recipe, Stage
from saccade.train.tasks import Data, Listed, Preferences, Problems, Tuning

Layout = Literal["static", "dynamic", "iss"]
DECODER = "Qwen/Qwen2.5-1.5B-Instruct"
TOWERS: dict[Layout, str] = {
    "static": "google/siglip2-so400m-patch16-512",
    "dynamic": "apple/aimv2-huge-patch14-448",
    "iss": "apple/aimv2-huge-patch14-448",
}
ADAPTER = "compressor|multi_modal_projector"
# The 1733.07M parameters that the paper prints for its "full model" are all but embeddings and output head.
FULL = rf"{ADAPTER}|vision_tower\.(?!embeddings)|language_model\.(?!embed_tokens)"
# Rank 8 beside every linear layer gives the 10.73M that the paper prints, but for the last digit.
ADAPTED = "multi_modal_projector|language_model|lm_head"
LORA = Lora(rank=8, alpha=16)
LONGEST = 8192


def flashvl(layout: Layout) -> Recipe:
    """Flash-VL 2B as published: captions for the adapter, three stages for the full model, then DPO (table 1).

    Args:
        layout: "static", "dynamic" or "iss".
    """
    full = Group(pattern=FULL, lr=1e-5)
    preferences = Stage(
        name="preferences",
        task=Preferences(data=(Listed(mixture="flashvl-stage5"),), max_length=LONGEST, beta=0.1),
        groups=(Group(pattern=ADAPTED, lr=1e-5, lora=LORA),),
        epochs=1,
        batch=240,
        micro_batch=6,
        checkpointing=True,
    )
    return Recipe(
        name=f"flashvl_{layout}",
        preset=f"flashvl_{layout}",
        tokenizer=DECODER,
        vision_tower=TOWERS[layout],
        language_model=DECODER,
        parent=None if layout == "static" else "flashvl_static",
        stages=(
            _tuning("captions", _listed("flashvl-stage1"), Group(pattern=ADAPTER, lr=1e-3), min_lr=0.02),
            _tuning("instructions", _listed("flashvl-stage2"), full),
            _tuning("selected", _listed("flashvl-stage3"), full),
            _tuning("mixed", _listed("flashvl-stage4"), full),
            preferences,
        ),
    )


def flashvl_reasoning() -> Recipe:
    """The reasoning runs of section 4.7: LoRA on text alone, then GRPO, from the fourth stage of `flashvl_static`.

    The learning rates, the adapters' rank, the rewards and what GRPO trains are not in the paper. Here the verified
    answer is rewarded and nothing else, and GRPO trains the decoder and the adapter as a whole.
    """
    sft = _tuning(
        "sft", _listed("flashvl-reasoning", "sft"), Group(pattern="language_model|lm_head", lr=1e-4, lora=LORA)
    )
    grpo = Stage(
        name="grpo",
        task=Problems(
            data=_listed("flashvl-reasoning", "grpo"),
            max_length=LONGEST,
            max_new_tokens=1024,
            generations=24,
            kl=0.001,
            rewards={"verified": 1.0},
        ),
        groups=(Group(pattern=rf"{ADAPTER}|language_model\.(?!embed_tokens)", lr=1e-6),),
        epochs=1,
        batch=48,
        micro_batch=6,
        checkpointing=True,
    )
    return Recipe(name="flashvl_reasoning", base="runs/flashvl_static/3-mixed/model", stages=(sft, grpo))


def flashvl_ablation() -> Recipe:
    """The setting of the paper's ablations: 2.5M captions for the adapter, then 665K conversations for all."""
    captions, tuning = (_listed("flashvl-ablation", stage) for stage in ("pretraining", "tuning"))
    stages = (
        _tuning("captions", captions, Group(pattern=ADAPTER, lr=1e-3), min_lr=0.02, warmup=400),
        _tuning("tuning", tuning, Group(pattern=FULL, lr=1e-5)),
    )
    return flashvl("static").model_copy(
        update={
            "name": "flashvl_ablation",
            "parent": "flashvl_static",
            "stages": tuple(stage.model_copy(update={"batch": 48}) for stage in stages),
        }
    )


def _tuning(name: str, data: Data, group: Group, min_lr: float = 0.0, warmup: float = 0.03) -> Stage:
    return Stage(
        name=name,
        task=Tuning(data=data, max_length=LONGEST, order="lengths"),
        groups=(group,),
        epochs=1,
        batch=240,
        micro_batch=6,
        min_lr=min_lr,
        warmup=warmup,
        checkpointing=True,
    )


def _listed(mixture: str, *only: str) -> Data:
    return (Listed(mixture=mixture, only=only),)
