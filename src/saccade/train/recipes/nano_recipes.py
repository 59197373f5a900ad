"""Recipes: functions that return stages. A variant calls its parent and changes a few fields."""

from collections.abc import Callable
from functools import partial
from typing import Any

from saccade.errors import ConfigError
from saccade.train.stages import Group, Recipe, Stage

WORLD = {"objects": 0.4, "digits": 0.2, "clutter": 0.1, "text": 0.2, "charts": 0.1}
WORLD_IN_TILES = {"objects": 0.25, "digits": 0.1, "clutter": 0.1, "text": 0.2, "charts": 0.1, "seams": 0.25}
SHEETS = {"practice": 0.55, "objects": 0.1, "digits": 0.1, "clutter": 0.07, "text": 0.12, "charts": 0.06}
PAGES = {"pages": 0.45, "practice": 0.2, "objects": 0.1, "digits": 0.08, "clutter": 0.08, "text": 0.05, "charts": 0.04}
OPTIMIZER: dict[str, Any] = {"weight_decay": 0.05, "betas": (0.9, 0.98)}
ALL_BUT_TOWER_AND_QUERY = "compressor|multi_modal_projector|language_model|lm_head"


def nano() -> Recipe:
    """The bundled model: the tower on patches, then all the rest on questions, as in FlashSloth's second stage.

    The paper's first stage teaches projector and SAP captions under a pretrained decoder. Nano's decoder starts from
    nothing, and one that learns captions, in which the query tokens come last, learns to do without them: after that it
    never looks through them. So it begins with questions, about one family, until the queries point. The last stage
    asks more of what is learned late: numbers and words, letter by letter, and who is nearest to whom.
    """
    return Recipe(
        name="nano",
        preset="nano",
        tokenizer="nano",
        description="a tiny model of the rendered world: it knows colored shapes, digits and charts, nothing else",
        stages=(
            _patches("patches", steps=3600, families=SHEETS),
            _patches("reading", steps=2800, families=PAGES),
            _questions("looking", steps=700, families={"objects": 1.0}, schedule="constant_with_warmup"),
            _questions(
                "questions",
                steps=10000,
                families=WORLD,
                emphasis={"side": 2.0, "nearest": 6.0, "count": 1.5, "number": 2.0, "value": 2.0, "word": 1.5},
                describe=0.1,
                second_picture=0.06,
                small_talk=0.06,
            ),
            _questions(
                "closer",
                steps=8000,
                families={"objects": 0.25, "digits": 0.25, "text": 0.35, "clutter": 0.08, "charts": 0.07},
                emphasis={"nearest": 8.0, "count": 2.0, "number": 4.0, "word": 2.0, "difference": 2.0},
                describe=0.05,
                second_picture=0.06,
                small_talk=0.06,
                lr=8e-4,
            ),
        ),
    )


def nano_hd() -> Recipe:
    """Nano on pictures as a thumbnail and four tiles: its weights, taught signs, the tower trained with the rest.

    The paper says that HD unfreezes the tower; the reference's tower never gets a gradient. Here it does.
    """
    parent = nano()
    questions = parent.stage("questions")
    return parent.model_copy(
        update={
            "name": "nano_hd",
            "preset": "nano_hd",
            "base": "nano",
            "description": "a tiny model of the rendered world: it knows colored shapes, digits and small print",
            "stages": (
                questions.model_copy(
                    update={
                        "groups": (
                            *(group.model_copy(update={"lr": 5e-4}) for group in questions.groups),
                            Group(pattern="vision_tower", lr=1e-4),
                        ),
                        "steps": 2000,
                        "emphasis": {type: times for type, times in questions.emphasis.items() if type != "value"},
                        "families": {"text": 0.5, "objects": 0.3, "digits": 0.2},
                    }
                ),
            ),
        }
    )


def nano_flashvl(layout: str) -> Recipe:
    """Flash-VL at nano's size: captions, then questions, on nano's tower, which stays frozen.

    The paper's first stage trains the adapter alone; this decoder starts from nothing, so it learns with it.

    Args:
        layout: "static", "dynamic" or "iss".
    """
    parent = nano()
    groups = (Group(pattern=ALL_BUT_TOWER_AND_QUERY, lr=1e-3),)
    questions = parent.stage("questions").model_copy(update={"groups": groups, "families": WORLD_IN_TILES})
    captions = Stage(
        name="captions",
        task="captions",
        groups=groups,
        steps=400,
        pictures=64,
        families=WORLD_IN_TILES,
        warmup=0.05,
        **OPTIMIZER,
    )
    return parent.model_copy(
        update={
            "name": f"nano_flashvl_{layout}",
            "preset": f"nano_flashvl_{layout}",
            "base": "nano",
            "base_modules": ("model.vision_tower",),
            "description": "a tiny model of the rendered world: colored shapes, digits, signs and small charts",
            "stages": (captions, questions),
        }
    )


def _questions(name: str, steps: int, families: dict[str, float], lr: float = 1e-3, **fields: Any) -> Stage:
    """A stage in which all but the tower learns from questions."""
    return Stage(
        name=name,
        task="questions",
        groups=(Group(pattern=f"{ALL_BUT_TOWER_AND_QUERY}|embedded_query", lr=lr),),
        steps=steps,
        pictures=16,
        questions=5,
        turns=3,
        where=0.6,
        families=families,
        **OPTIMIZER,
        **fields,
    )


def _patches(name: str, steps: int, families: dict[str, float]) -> Stage:
    """A stage in which the tower learns from patch labels."""
    return Stage(
        name=name,
        task="patches",
        groups=(Group(pattern="vision_tower|heads", lr=1e-3),),
        steps=steps,
        pictures=64,
        families=families,
        warmup=0.05,
        **OPTIMIZER,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "nano_hd": nano_hd,
    **{f"nano_flashvl_{layout}": partial(nano_flashvl, layout) for layout in ("static", "dynamic", "iss")},
}


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
