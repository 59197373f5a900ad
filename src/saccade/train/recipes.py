"""Recipes: functions that return stages. A variant calls its parent and changes a few fields."""

from collections.abc import Callable

from saccade.errors import ConfigError
from saccade.train.stages import Group, Recipe, Stage

WORLD = {"objects": 0.6, "digits": 0.4}
ALL_BUT_TOWER_AND_QUERY = "compressor|multi_modal_projector|language_model|lm_head"


def nano() -> Recipe:
    """The bundled model: the tower on patches, then FlashSloth's two stages.

    The paper's first stage trains projector and SAP under a pretrained decoder. Nano's decoder starts from nothing, so
    it learns from the captions as well; in the second stage, as in the paper, all but the tower is trained.
    """
    return Recipe(
        name="nano",
        preset="nano",
        tokenizer="nano",
        description="a tiny model of the rendered world: it knows colored shapes and digits, nothing else",
        stages=(
            _patches("patches", steps=3400, families={"practice": 0.7, "objects": 0.15, "digits": 0.15}, warmup=0.05),
            Stage(
                name="captions",
                task="captions",
                groups=(Group(pattern=ALL_BUT_TOWER_AND_QUERY, lr=1e-3),),
                steps=400,
                pictures=64,
                families=WORLD,
                warmup=0.05,
                weight_decay=0.05,
                betas=(0.9, 0.98),
            ),
            Stage(
                name="questions",
                task="questions",
                groups=(Group(pattern=f"{ALL_BUT_TOWER_AND_QUERY}|embedded_query", lr=1e-3),),
                steps=9000,
                pictures=16,
                questions=5,
                turns=3,
                emphasis={"side": 3.0, "nearest": 12.0, "count": 1.5, "number": 2.0},
                where=1.0,
                describe=0.15,
                families={"objects": 0.7, "digits": 0.3},
                weight_decay=0.05,
                betas=(0.9, 0.98),
            ),
        ),
    )


def nano_hd() -> Recipe:
    """Nano on pictures as a thumbnail and four tiles: its weights, taught signs, the tower trained with the rest.

    The paper says that HD unfreezes the tower; the reference's tower never gets a gradient. Here it does.
    """
    parent = nano()
    questions = parent.stages[-1]
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
                        "families": {"text": 0.5, "objects": 0.3, "digits": 0.2},
                    }
                ),
            ),
        }
    )


def _patches(name: str, steps: int, families: dict[str, float], warmup: float) -> Stage:
    """A stage in which the tower learns from patch labels."""
    return Stage(
        name=name,
        task="patches",
        groups=(Group(pattern="vision_tower|heads", lr=1e-3),),
        steps=steps,
        pictures=64,
        families=families,
        warmup=warmup,
        weight_decay=0.05,
        betas=(0.9, 0.98),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"nano": nano, "nano_hd": nano_hd}


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
