"""What training is worth: the papers' stages one after the other, preferences, and rewards for reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from saccade import presets
from saccade.ablate.studies.architecture import AVERAGED
from saccade.ablate.study import Block, Claim, Course, Study
from saccade.evaluate.papers import printed
from saccade.train.recipes.flashvl_recipes import ADAPTER
from saccade.train.recipes.nano_recipes import ALL_BUT_TOWER_AND_QUERY, OPTIMIZER
from saccade.train.stages import Group, Lora, Stage
from saccade.train.tasks import Captions, Preferences, Problems, Questions, Tuning, World

BATCH = 16
# Few enough of nano's families that short stages get somewhere.
FAMILIES = {"objects": 0.5, "digits": 0.3, "clutter": 0.2}
KNOWN = ("objects", "digits", "clutter", "text", "charts")
FEW: dict[str, Any] = {"questions": 2, "turns": 2}
MANY: dict[str, Any] = {"questions": 5, "turns": 6, "where": 0.6}
EMPHASIS = {"side": 2.0, "nearest": 4.0, "count": 1.5, "number": 2.0}
LORA = Lora(rank=16, alpha=32)
# At 7e-4 answers and wrong answers alike lose likelihood, and "no" becomes a third one.
ADAPTED = (Group(pattern="multi_modal_projector|language_model", lr=1e-4, lora=LORA),)
PAIRED = 150  # steps of preferences of a trained model
# Rows of another stage, so that it sees none of the scenes of the one before.
BEHIND = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Training(Study):
    """Courses as they are.

    Attributes:
        variants: The courses.
    """

    variants: Mapping[str, Course]

    def course(self, variant: str) -> Course:
        """Return the course of a name."""
        return self.variants[variant]


def _captions() -> Stage:
    """Captions for compressor and projector, and for the decoder: the papers freeze it, here it starts from nothing."""
    groups = (Group(pattern=ALL_BUT_TOWER_AND_QUERY, lr=1e-3),)
    return Stage(
        name="captions",
        task=Captions(families=FAMILIES),
        groups=groups,
        steps=300,
        batch=BATCH,
        warmup=0.05,
        **OPTIMIZER,
    )


def _questions(name: str, steps: int, lr: float = 1e-3, query: bool = False, **task: Any) -> Stage:
    """Questions for all but the tower."""
    pattern = f"{ALL_BUT_TOWER_AND_QUERY}|embedded_query" if query else ALL_BUT_TOWER_AND_QUERY
    return Stage(
        name=name,
        task=Questions(families=FAMILIES, **task),
        groups=(Group(pattern=pattern, lr=lr),),
        steps=steps,
        batch=BATCH,
        **OPTIMIZER,
    )


def _preferences(steps: int, likelihood: float = 0.0) -> Stage:
    """DPO as published, or with the right answer's own loss beside it; the rate is nano's."""
    return Stage(
        name="preferences",
        task=Preferences(data=_pairs(steps), max_length=512, beta=0.1, likelihood=likelihood),
        groups=ADAPTED,
        steps=steps,
        batch=BATCH,
    )


def _right_answers(steps: int) -> Stage:
    """What DPO is to be compared with: the right answers of the same rows, without the wrong ones."""
    task = Tuning(data=_pairs(steps), max_length=512)
    return Stage(name="answers", task=task, groups=ADAPTED, steps=steps, batch=BATCH)


def _pairs(steps: int) -> tuple[World, ...]:
    return (World(families={"preference": 1.0}, rows=steps * BATCH),)


def _sft() -> Stage:
    """Captions with questions, no picture; the answer alone is trained, by adapters of the decoder (Sec. 4.7)."""
    steps = 200
    return Stage(
        name="sft",
        task=Tuning(data=(World(families={"reasoning": 1.0}, rows=steps * BATCH, pictures=False),), max_length=512),
        groups=(Group(pattern="language_model|lm_head", lr=2e-3, lora=LORA),),
        steps=steps,
        batch=BATCH,
    )


def _grpo() -> Stage:
    """Pictures with questions; of 24 answers to each the verified ones are rewarded (Sec. 4.7)."""
    steps, problems = 100, 4
    world = World(families={"reasoning": 1.0}, rows=steps * problems, first=BEHIND)
    return Stage(
        name="grpo",
        task=Problems(data=(world,), max_length=256, max_new_tokens=6, generations=24, kl=0.001),
        groups=(Group(pattern=rf"{ADAPTER}|language_model\.(?!embed_tokens)", lr=2e-4),),
        steps=steps,
        batch=problems,
        schedule="constant_with_warmup",
    )


FLASHSLOTH = Course(
    {
        "FlashSloth 1: captions": _captions(),
        "FlashSloth 2: questions": _questions("questions", 900, query=True, emphasis=EMPHASIS, **MANY),
    },
    presets.nano,
)
FLASHVL = Course(
    {
        "Flash-VL 1: captions": _captions(),
        "Flash-VL 2: few questions": _questions("general", 300, **FEW),
        "Flash-VL 3: more of them": _questions("selected", 300, **MANY),
        "Flash-VL 4: what is hard": _questions("mixed", 300, lr=5e-4, emphasis=EMPHASIS, describe=0.1, **MANY),
        "Flash-VL 5: preferences": _preferences(100),
    },
    presets.nano_flashvl_static,
)
HALLUCINATED = {
    "absent object": ("preference.absent",),
    "wrong color": ("preference.color",),
    "both of these": ("preference.absent", "preference.color"),
}
STAGES = Training(
    name="stages",
    title="Stage by stage",
    source="Flash-VL, Table 5; FlashSloth, Sec. 4.1, which has no such table",
    families=(*FAMILIES, "preference"),
    questions=400,
    variants={"FlashSloth": FLASHSLOTH, "Flash-VL": FLASHVL},
    blocks=(
        Block(
            "FlashSloth: captions, then questions",
            FLASHSLOTH.rows,
            (Claim("FlashSloth 2: questions", "FlashSloth 1: captions"),),
        ),
        Block(
            "Flash-VL, static: captions, three stages of questions, preferences",
            FLASHVL.rows,
            (
                *(Claim(later, earlier) for earlier, later in pairwise(FLASHVL.rows)),
                Claim(FLASHVL.rows[4], FLASHVL.rows[3], on="both of these", cut=15.0),
                Claim(FLASHVL.rows[4], FLASHVL.rows[3], on="all others", behind=1.0),
            ),
        ),
    ),
    published=printed(
        "flashvl", "table5", dict(zip(FLASHVL.rows, (f"stage {n}" for n in range(1, 6)), strict=True)), AVERAGED
    ),
    scored_apart=HALLUCINATED | {"all others": ("preference.shape", *FAMILIES)},
    note=(
        "Both decoders start from nothing, where the papers' are pretrained: they learn along with the captions, and "
        "before the first questions no answer can be right. No stage but the last learns from the family "
        "*preference*; the last draws other scenes of it for every seed."
    ),
)

PREFERENCE = Training(
    name="preference",
    title="Direct preference optimization of a trained model",
    source="Flash-VL, Sec. 3.3 and Table 4 (stage 5)",
    families=("preference", *KNOWN),
    questions=None,
    variants={
        "DPO": Course({"DPO": _preferences(PAIRED)}, start="start"),
        "DPO + SFT": Course({"DPO + SFT": _preferences(PAIRED, likelihood=1.0)}),
        "SFT": Course({"SFT": _right_answers(PAIRED)}),
    },
    blocks=(
        Block(
            "Before and after: is a thing there that is not, what color has a thing, and all other questions",
            ("start", "SFT", "DPO", "DPO + SFT"),
            (
                *(
                    claim
                    for trained in ("SFT", "DPO", "DPO + SFT")
                    for claim in (
                        Claim(trained, "start", on="both of these", cut=15.0),
                        Claim(trained, "start", on="all others", behind=1.0),
                    )
                ),
                Claim("DPO", "SFT", on="both of these"),
                Claim("DPO + SFT", "SFT", on="both of these"),
            ),
        ),
    ),
    published=printed(
        "flashvl", "table4", {"start": "Flash-VL-2B static, stage 4", "DPO": "Flash-VL-2B static"}, AVERAGED
    ),
    scored_apart=HALLUCINATED | {"all others": ("preference.shape", *KNOWN)},
    presumes="a base that answers questions about the world",
    note=(
        "DPO with beta 0.1, adapters beside decoder and projector, and the base as its reference, on pairs of the "
        "training split: the right answer beside the one that a model gives which does not look closely. *DPO* is as "
        "published, *DPO + SFT* adds the loss of the right answer, and *SFT* is that loss alone, on the same rows. The "
        "base never saw this family; its questions are worded as those it learned. Every seed draws other scenes. "
        "*Both of these* pools all questions whether a thing is there, yes and no, with those for a thing's color."
    ),
)


REASONING = Training(
    name="reasoning",
    title="Reasoning: supervised, rewarded, and both",
    source="Flash-VL, Table 7",
    families=("reasoning",),
    questions=None,
    variants={
        "SFT + GRPO": Course({"SFT": _sft(), "SFT + GRPO": _grpo()}, start="start"),
        "GRPO": Course({"GRPO": _grpo()}),
    },
    blocks=(
        Block(
            "Sums, comparisons, differences and extremes, verified",
            ("start", "SFT", "GRPO", "SFT + GRPO"),
            (
                Claim("SFT", "start"),
                Claim("GRPO", "start"),
                Claim("SFT + GRPO", "start"),
                Claim("SFT + GRPO", "SFT"),
                Claim("SFT + GRPO", "GRPO"),
            ),
        ),
    ),
    published=printed(
        "flashvl",
        "table7",
        {"start": "Flash-VL-2B static, stage 4", "SFT": "+ SFT", "GRPO": "+ RL", "SFT + GRPO": "+ SFT + RL"},
        ("mean of 5", "DynaMath", "MathVision", "MathVerse", "MMMU-Pro", "WeMath"),
    ),
    scored_apart={kind: (f"reasoning.{kind}",) for kind in ("sum", "more", "difference", "extreme")},
    presumes="a base that answers questions about the world",
    note=(
        "SFT reads captions instead of pictures and trains the answer alone, by adapters of the decoder; GRPO sees "
        "pictures and is rewarded where one of its 24 answers is verified (KL 0.001). The base was never asked "
        "questions worded so. Every seed draws other scenes, and GRPO others than SFT."
    ),
)

TRAININGS = (STAGES, PREFERENCE, REASONING)
