"""Nano and its relatives: models of the rendered world that train on a laptop."""

from typing import Any

from saccade.train.stages import Group, Recipe, Schedule, Stage
from saccade.train.tasks import Captions, Families, Patches, Questions

WORLD = {"objects": 0.4, "digits": 0.2, "clutter": 0.1, "text": 0.2, "charts": 0.1}
WORLD_IN_TILES = {"objects": 0.25, "digits": 0.1, "clutter": 0.1, "text": 0.2, "charts": 0.1, "seams": 0.25}
SHEETS = {"practice": 0.55, "objects": 0.1, "digits": 0.1, "clutter": 0.07, "text": 0.12, "charts": 0.06}
PAGES = {"pages": 0.45, "practice": 0.2, "objects": 0.1, "digits": 0.08, "clutter": 0.08, "text": 0.05, "charts": 0.04}
OPTIMIZER: dict[str, Any] = {"weight_decay": 0.05, "betas": (0.9, 0.98)}
ALL_BUT_TOWER_AND_QUERY = "compressor|multi_modal_projector|language_model|lm_head"
ASKED: dict[str, Any] = {"questions": 5, "turns": 3, "where": 0.6}
ASKED_LATE = ASKED | {"where": 0.3}
AMONG_OTHERS: dict[str, Any] = {"second_picture": 0.06, "small_talk": 0.06}
NANO_QUESTIONS = Questions(
    families=WORLD,
    emphasis={"side": 2.0, "nearest": 6.0, "count": 1.5, "number": 2.0, "value": 2.0, "word": 1.5},
    describe=0.1,
    **ASKED,
    **AMONG_OTHERS,
)
NANO_CLOSER = Questions(
    families={"objects": 0.25, "digits": 0.33, "text": 0.3, "clutter": 0.06, "charts": 0.06},
    emphasis={"nearest": 6.0, "count": 2.5, "number": 3.0, "word": 2.0, "difference": 2.0},
    describe=0.02,
    **ASKED_LATE,
    **AMONG_OTHERS,
)
SMALL_PRINT = Questions(
    families={"text": 0.6, "objects": 0.2, "digits": 0.2},
    emphasis={"side": 1.5, "nearest": 4.0, "count": 2.0, "number": 4.0, "word": 2.0},
    describe=0.05,
    **ASKED_LATE,
    **AMONG_OTHERS,
)
SMALLER_PRINT = SMALL_PRINT.model_copy(
    update={
        "families": {"text": 0.76, "objects": 0.12, "digits": 0.12},
        "emphasis": {"side": 1.5, "nearest": 4.0, "count": 2.0, "number": 6.0, "word": 2.5},
    }
)


def nano() -> Recipe:
    """The bundled model: the tower on patches, then all the rest on questions, as in FlashSloth's second stage.

    The paper's first stage teaches projector and SAP captions under a pretrained decoder. Nano's decoder starts from
    nothing, and one that learns captions, in which the query tokens come last, learns to do without them: after that it
    never looks through them. So it begins with questions, about one family, until the queries point. The last stage
    asks more of what is learned late: numbers and words, letter by letter, and who is nearest to whom. The tower learns
    along in it, as in HD: which place in its word a letter has is nothing that the patch labels asked for. It does so
    at a tenth of the others' rate: at three tenths, what the labels taught it about neighbors wears off.
    """
    return Recipe(
        name="nano",
        preset="nano",
        tokenizer="nano",
        description=(
            "a tiny model of the rendered world: "
            "it knows colored shapes, digits, words on signs and charts, nothing else"
        ),
        stages=(
            _patches("patches", steps=3600, families=SHEETS),
            _patches("reading", steps=4600, families=PAGES),
            _questions("looking", 700, Questions(families={"objects": 1.0}, **ASKED), schedule="constant_with_warmup"),
            _questions("questions", 10000, NANO_QUESTIONS),
            _questions("closer", 8000, NANO_CLOSER, lr=6e-4, tower_lr=6e-5),
        ),
    )


def nano_hd() -> Recipe:
    """Nano on pictures as a thumbnail and four tiles: its weights, taught signs, the tower trained with the rest.

    The paper says that HD unfreezes the tower; the reference's tower never gets a gradient. Here it does. The second
    stage asks still more of signs, and most of numbers: their digits are learned last.
    """
    parent = nano()
    return parent.model_copy(
        update={
            "name": "nano_hd",
            "preset": "nano_hd",
            "base": "nano",
            "parent": "nano",
            "description": "a tiny model of the rendered world: it knows colored shapes, digits and small print",
            "stages": (
                _questions("questions", 1800, SMALL_PRINT, lr=5e-4, tower_lr=1e-4),
                _questions("closer", 1100, SMALLER_PRINT, lr=4e-4, tower_lr=1e-4),
            ),
        }
    )


def nano_flashvl(layout: str) -> Recipe:
    """Flash-VL at nano's size: captions, then questions, on nano's tower, which stays frozen.

    The paper's first stage trains the adapter alone; this decoder starts from nothing, so it learns with it. It has no
    queries that captions could spoil. What is asked about a picture is asked in one conversation, which shows no other:
    the visual tokens of its tiles are most of the work.

    Args:
        layout: "static", "dynamic" or "iss".
    """
    parent = nano()
    groups = (Group(pattern=ALL_BUT_TOWER_AND_QUERY, lr=1e-3),)
    questions = parent.stage("questions")
    asked = NANO_QUESTIONS.model_copy(
        update={"families": WORLD_IN_TILES, "questions": 8, "turns": 9, "describe": 0.05, "second_picture": 0.0}
    )
    captions = Stage(
        name="captions",
        task=Captions(families=WORLD_IN_TILES),
        groups=groups,
        steps=300,
        batch=32,
        warmup=0.05,
        **OPTIMIZER,
    )
    return parent.model_copy(
        update={
            "name": f"nano_flashvl_{layout}",
            "preset": f"nano_flashvl_{layout}",
            "base": "nano",
            "base_modules": ("model.vision_tower",),
            "parent": "nano",
            "description": "a tiny model of the rendered world: colored shapes, digits, signs and small charts",
            "stages": (captions, questions.model_copy(update={"groups": groups, "task": asked, "steps": 3200})),
        }
    )


def _questions(
    name: str,
    steps: int,
    task: Questions,
    lr: float = 1e-3,
    tower_lr: float | None = None,
    schedule: Schedule = "cosine",
) -> Stage:
    """A stage in which all learns from questions; the tower only where it is given a rate."""
    tower = () if tower_lr is None else (Group(pattern="vision_tower", lr=tower_lr),)
    return Stage(
        name=name,
        task=task,
        groups=(Group(pattern=f"{ALL_BUT_TOWER_AND_QUERY}|embedded_query", lr=lr), *tower),
        steps=steps,
        batch=16,
        schedule=schedule,
        **OPTIMIZER,
    )


def _patches(name: str, steps: int, families: Families) -> Stage:
    """A stage in which the tower learns from patch labels."""
    return Stage(
        name=name,
        task=Patches(families=families),
        groups=(Group(pattern="vision_tower|heads", lr=1e-3),),
        steps=steps,
        batch=64,
        warmup=0.05,
        **OPTIMIZER,
    )
