"""What is varied, what the paper found, and on what it is tried here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from saccade import presets
from saccade.config import AverageConfig, IdentityConfig, ProjectorConfig, SaccadeConfig
from saccade.errors import ConfigError

Build = Callable[[], SaccadeConfig]

# Two minutes on two cores, of variants with few visual tokens.
STEPS = 450


@dataclass(frozen=True)
class Claim:
    """That one variant is ahead of another, as the paper found or as it would follow.

    Attributes:
        better: The variant that should be ahead.
        worse: The other one.
        on: Heading in `Study.scored_apart` of the questions on which it should; empty for all.
    """

    better: str
    worse: str
    on: str = ""


@dataclass(frozen=True)
class Block:
    """Variants that one block of a paper's table compares.

    Attributes:
        title: What is varied.
        variants: Names, in the table's order.
        claims: What the paper concludes.
    """

    title: str
    variants: tuple[str, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Study:
    """Variants of one model that are trained alike, and the tables that compare them.

    Attributes:
        name: What `saccade train ablate` calls it.
        title: Heading of its page.
        source: Where in a paper it stands.
        families: Families of the rendered world with their shares of the training pictures.
        variants: Functions that return a variant's configuration, by name.
        blocks: Tables.
        published: The paper's own figures, variant by benchmark.
        scored_apart: Forms of questions that get a column of their own, by its heading.
        steps: Optimizer steps, the same for all variants.
        presumes: What the base must have learned for the study to mean anything; such a study runs only when named.
    """

    name: str
    title: str
    source: str
    families: Mapping[str, float]
    variants: Mapping[str, Build]
    blocks: tuple[Block, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scored_apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    steps: int = STEPS
    presumes: str = ""


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


def _two_linears() -> SaccadeConfig:
    """The second model's static form with LLaVA's adapter, two linear layers without a norm."""
    config = presets.nano_flashvl_static()
    config.projector = ProjectorConfig(hidden_sizes=(config.text_config.hidden_size,))
    return config


def _published(gqa: float, pope: float, mme: float, mmb: float) -> dict[str, float]:
    return {"GQA": gqa, "POPE": pope, "MME": mme, "MMB": mmb}


def _averaged(average: float, mmb: float, ai2d: float, ocr_bench: float, seed: float) -> dict[str, float]:
    return {"mean of 11": average, "MMB-en": mmb, "AI2D": ai2d, "OCRBench": ocr_bench, "SEED": seed}


TABLE3 = Study(
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
    published={
        "no compression": _published(61.8, 87.8, 1491.4, 67.9),
        "average": _published(59.6, 84.4, 1440.3, 62.7),
        "SAP": _published(60.2, 86.4, 1444.8, 63.9),
        "SAP + EmbQ": _published(60.8, 87.8, 1491.0, 67.9),
        "fixed dot": _published(60.6, 86.4, 1423.0, 66.1),
        "random": _published(60.5, 86.9, 1469.7, 65.6),
        "6 queries": _published(60.5, 86.8, 1453.7, 65.8),
        "12 queries": _published(60.7, 86.9, 1437.3, 67.8),
        "15 queries": _published(60.8, 87.2, 1468.5, 67.0),
    },
)

RESOLUTION = Study(
    name="resolution",
    title="Normal resolution against HD, by the size of the letters",
    source="FlashSloth, Table 2",
    families={"text": 1.0},
    variants={"normal": presets.nano, "HD": presets.nano_hd},
    blocks=(Block("Reading signs", ("normal", "HD"), (Claim("HD", "normal"),)),),
    published={
        "normal": {"TextVQA": 64.6, "ChartQA": 51.0, "DocVQA": 48.6},
        "HD": {"TextVQA": 71.0, "ChartQA": 69.8, "DocVQA": 74.8},
    },
    scored_apart={f"{size} letters": (f"word.{size}", f"number.{size}") for size in ("large", "medium", "small")},
    presumes="a base whose tower was taught letters",
)

INITIALIZATION = Study(
    name="initialization",
    title="Standard deviation of the decoder's and the query module's first weights",
    source="no paper; a decoder from nothing, a tenth as wide as the published one",
    families={"objects": 1.0},
    variants={f"{deviation}": partial(_drawn_with, deviation) for deviation in (0.02, 0.04, 0.08)},
    blocks=(Block("Standard deviation", ("0.02", "0.04", "0.08"), (Claim("0.08", "0.02"),)),),
)

# What more tokens give shows on things that lie clear of the seams too; what stitching gives, on those across them.
TABLE6 = Study(
    name="table6",
    title="Tiles, overlapping tiles, and implicit semantic stitching",
    source="Flash-VL, Table 6",
    families={"seams": 0.7, "text": 0.3},
    variants={
        "static": presets.nano_flashvl_static,
        "plain tiling": presets.nano_flashvl_dynamic,
        "overlapped tiling": presets.nano_flashvl_overlapped,
        "ISS": presets.nano_flashvl_iss,
    },
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
    published={
        "static": _averaged(46.9, 68.2, 60.0, 184, 69.1),
        "plain tiling": _averaged(50.6, 71.8, 63.2, 383, 71.4),
        "overlapped tiling": _averaged(49.9, 70.1, 62.1, 366, 72.1),
        "ISS": _averaged(51.4, 72.8, 63.2, 427, 72.5),
    },
    scored_apart={
        where: tuple(f"{where}.{form}" for form in ("word", "number", "shape", "color.sign", "color.shape"))
        for where in ("crossing", "clear")
    },
    steps=220,
    presumes="a base whose tower was taught letters",
)

TABLE8 = Study(
    name="table8",
    title="Adapters behind the pixel shuffle",
    source="Flash-VL, Table 8",
    families={"objects": 0.6, "digits": 0.4},
    variants={"two linears": _two_linears, "proposed": presets.nano_flashvl_static},
    blocks=(
        Block(
            "Adapter (proposed: a norm and three linear layers)",
            ("two linears", "proposed"),
            (Claim("proposed", "two linears"),),
        ),
    ),
    published={
        "two linears": _averaged(39.4, 56.5, 55.2, 54, 55.1),
        "proposed": _averaged(40.8, 61.5, 54.6, 168, 62.6),
    },
)

STUDIES = {study.name: study for study in (TABLE3, RESOLUTION, INITIALIZATION, TABLE6, TABLE8)}


def study(name: str) -> Study:
    """Return a study by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}")
    return STUDIES[name]
