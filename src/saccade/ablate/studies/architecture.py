"""What a configuration is worth: its variants, trained alike on questions, as the papers' ablations compare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from saccade import presets
from saccade.ablate.study import TOWER, Block, Build, Claim, Course, Study
from saccade.config import AverageConfig, IdentityConfig, ProjectorConfig, SaccadeConfig
from saccade.data.scenes.text import HEIGHTS
from saccade.evaluate.papers import printed
from saccade.train.recipes.nano_recipes import NANO_QUESTIONS, nano
from saccade.train.world import question_types

# Two minutes on two cores, of variants with few visual tokens.
STEPS = 450
PICTURES = 16
# Columns of Flash-VL's tables: percent, and OCRBench in points of a thousand.
AVERAGED = ("mean of 11", "MMB-en", "AI2D", "OCRBench", "SEED")


@dataclass(frozen=True, kw_only=True)
class Ablation(Study):
    """Variants of one model that are trained alike, in one stage.

    Attributes:
        families: With their shares of the training pictures.
        variants: Functions that return a variant's configuration.
        keeps: Modules that start from the base's weights; all others are fresh.
        steps: Optimizer steps, the same for all variants.
        pictures: Of a step.
    """

    families: Mapping[str, float]
    variants: Mapping[str, Build]
    keeps: tuple[str, ...] = TOWER
    steps: int = STEPS
    pictures: int = PICTURES

    def course(self, variant: str) -> Course:
        """Return the one stage of a variant: nano's questions, fewer of them, on the study's families.

        All questions of a picture are asked in one conversation, which shows no other: visual tokens are most of the
        work.
        """
        asked, questions = question_types(self.families), nano().stage("questions")
        short = NANO_QUESTIONS.model_copy(
            update={
                "turns": NANO_QUESTIONS.questions + 1,  # where a thing is comes on top
                "emphasis": {type: times for type, times in NANO_QUESTIONS.emphasis.items() if type in asked},
                "families": dict(self.families),
                "describe": 0.0,
                "second_picture": 0.0,
                "small_talk": 0.0,
            }
        )
        stage = questions.model_copy(update={"steps": self.steps, "batch": self.pictures, "task": short})
        return Course({variant: stage}, self.variants[variant], keeps=self.keeps)


def _compressed(compressor: Any) -> SaccadeConfig:
    """Nano with another compressor and without embedded query."""
    config = presets.nano()
    config.compressor = compressor or config.compressor
    config.query = config.query_token_id = None
    config.prompt = config.prompt.model_copy(update={"query_token": None, "num_queries": 0})
    return config


def _queried(count: int | None = None, **fields: Any) -> SaccadeConfig:
    """Nano with other fields of the embedded query."""
    config = presets.nano()
    count = count or config.prompt.num_queries
    assert config.query is not None
    config.query = config.query.model_copy(update={"num_queries": count, **fields})
    config.prompt = config.prompt.model_copy(update={"num_queries": count})
    return config


def _drawn_with(initializer_range: float) -> SaccadeConfig:
    """Nano whose decoder and query module are drawn with another standard deviation."""
    config = presets.nano()
    config.text_config.initializer_range = initializer_range
    return config


def _unshuffled(preset: Build) -> SaccadeConfig:
    """A preset of the second model, every patch a token."""
    config = preset()
    config.compressor = IdentityConfig()
    return config


def _two_linears() -> SaccadeConfig:
    """The second model's static form with LLaVA's adapter, two linear layers without a norm."""
    config = presets.nano_flashvl_static()
    config.projector = ProjectorConfig(hidden_sizes=(config.text_config.hidden_size,))
    return config


TABLE3 = Ablation(
    name="table3",
    title="Components of FlashSloth",
    source="FlashSloth, Table 3",
    families={"objects": 0.6, "digits": 0.4},
    variants={
        "no compression": partial(_compressed, IdentityConfig()),
        "average": partial(_compressed, AverageConfig(window=3)),
        "SAP": partial(_compressed, None),
        "SAP + EmbQ": presets.nano,
        "fixed dot": partial(_queried, init="dot"),
        "random": partial(_queried, init="random"),
        "6 queries": partial(_queried, 6),
        "12 queries": partial(_queried, 12),
        "15 queries": partial(_queried, 15),
    },
    blocks=(
        Block(
            "Visual compression",
            ("no compression", "average", "SAP", "SAP + EmbQ"),
            (Claim("no compression", "average"), Claim("SAP", "average"), Claim("SAP + EmbQ", "SAP")),
        ),
        Block(
            "Initialization of the queries (`SAP + EmbQ` learns an offset to the dot's embedding)",
            ("fixed dot", "random", "SAP + EmbQ"),
            (Claim("SAP + EmbQ", "random"), Claim("SAP + EmbQ", "fixed dot")),
        ),
        Block(
            "Number of queries (`SAP` has none, `SAP + EmbQ` 9)",
            ("SAP", "6 queries", "SAP + EmbQ", "12 queries", "15 queries"),
            (
                Claim("6 queries", "SAP"),
                Claim("SAP + EmbQ", "6 queries"),
                Claim("SAP + EmbQ", "12 queries"),
                Claim("SAP + EmbQ", "15 queries"),
            ),
        ),
    ),
    published=printed(
        "flashsloth",
        "table3",
        {
            "no compression": "baseline (729)",
            "average": "+ Avg.Pool (81)",
            "SAP": "+ Att.Pool (81)",
            "SAP + EmbQ": "+ Att.Pool & EmbQ (90)",
            "fixed dot": "Fixed Dot Token",
            "random": "Random Init",
            "6 queries": "6",
            "12 queries": "12",
            "15 queries": "15",
        },
        ("GQA", "POPE", "MME", "MMB"),
    ),
)

RESOLUTION = Ablation(
    name="resolution",
    title="Normal resolution against HD, by the size of the letters",
    source="FlashSloth, Table 2",
    families={"text": 1.0},
    variants={"normal": presets.nano, "HD": presets.nano_hd},
    blocks=(
        Block(
            "Reading signs",
            ("normal", "HD"),
            (Claim("HD", "normal"), *(Claim("HD", "normal", on=f"{size} letters") for size in HEIGHTS)),
        ),
    ),
    published=printed(
        "flashsloth", "table2", {"normal": "FlashSloth", "HD": "FlashSloth-HD"}, ("TextVQA", "ChartQA", "DocVQA")
    ),
    scored_apart={f"{size} letters": (f"text.word.{size}", f"text.number.{size}") for size in HEIGHTS},
    presumes="a base whose tower was taught letters",
)

INITIALIZATION = Ablation(
    name="initialization",
    title="Standard deviation of the decoder's and the query module's first weights",
    source="no paper; a decoder from nothing, a tenth as wide as the published one",
    families={"objects": 1.0},
    variants={f"{deviation}": partial(_drawn_with, deviation) for deviation in (0.02, 0.04, 0.08)},
    blocks=(Block("Standard deviation", ("0.02", "0.04", "0.08"), (Claim("0.08", "0.02"),)),),
)

# The modules of a decoder with its head: the papers' decoders are pretrained.
DECODER = ("model.language_model", "lm_head")

# What more tokens give shows on things that lie clear of the seams too; what stitching gives, on those across them.
TABLE6 = Ablation(
    name="table6",
    title="Tiles, overlapping tiles, and implicit semantic stitching",
    source="Flash-VL, Table 6",
    families={"seams": 0.7, "text": 0.3},
    variants={
        "static": partial(_unshuffled, presets.nano_flashvl_static),
        "plain tiling": partial(_unshuffled, presets.nano_flashvl_dynamic),
        "overlapped tiling": partial(_unshuffled, presets.nano_flashvl_overlapped),
        "ISS": presets.nano_flashvl_iss,
    },
    keeps=(*TOWER, "model.multi_modal_projector", *DECODER),
    blocks=(
        Block(
            "How pictures are cut (in `seams`, half of what is asked about lies across a border of plain tiles)",
            ("static", "plain tiling", "overlapped tiling", "ISS"),
            (
                Claim("plain tiling", "static"),
                Claim("plain tiling", "overlapped tiling"),
                Claim("ISS", "overlapped tiling"),
                Claim("ISS", "plain tiling"),
                Claim("ISS", "plain tiling", on="crossing"),
                Claim("ISS", "plain tiling", on="clear"),
            ),
        ),
    ),
    published=printed(
        "flashvl",
        "table6",
        {
            "static": "Static",
            "plain tiling": "Dynamic Cropping",
            "overlapped tiling": "Dynamic Overlapping Cropping",
            "ISS": "Implicit Semantic Stitching",
        },
        AVERAGED,
    ),
    scored_apart={where: (f"seams.{where}",) for where in ("crossing", "clear")},
    steps=220,
    presumes="nano_flashvl_iss as its base",
    note=(
        "All variants go on from the base's weights, whose tiles were stitched: *ISS* has nothing to relearn, so that "
        "less is told by who is ahead than by where. Every patch that is left is a token: here stitching has fewer "
        "tokens a view than the other forms, 49 against 81, in the paper more, 576 against 256 that were shuffled."
    ),
)

TABLE8 = Ablation(
    name="table8",
    title="Adapters behind the pixel shuffle",
    source="Flash-VL, Table 8",
    families={"objects": 0.6, "digits": 0.4},
    variants={"two linears": _two_linears, "proposed": presets.nano_flashvl_static},
    keeps=(*TOWER, *DECODER),
    blocks=(
        Block(
            "Adapter (proposed: a norm and three linear layers)",
            ("two linears", "proposed"),
            (Claim("proposed", "two linears"),),
        ),
    ),
    presumes="nano_flashvl_iss as its base",
    note="Both adapters are fresh, before the decoder of the base, which learns along.",
    published=printed("flashvl", "table8", {"two linears": "2 Linear", "proposed": "Proposed Adapter"}, AVERAGED),
)

ABLATIONS = (TABLE3, RESOLUTION, INITIALIZATION, TABLE6, TABLE8)
