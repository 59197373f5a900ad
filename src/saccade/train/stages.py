"""Stages as data: what is trained, how fast, on what, for how long."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from saccade.config import Frozen
from saccade.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]


class Group(Frozen):
    """Parameters that share a learning rate.

    Attributes:
        pattern: Regular expression searched in parameter names, e.g. `compressor|multi_modal_projector`.
        lr: Peak learning rate.
    """

    pattern: str
    lr: PositiveFloat


class Stage(Frozen):
    """One run of the training loop. Parameters that no group names are frozen.

    Attributes:
        name: Name of the stage's folder.
        task: "patches": the tower learns what the renderer knows about every patch. "captions": plain form, the caption
            after the picture. "questions": chat form, several questions of one picture.
        groups: Trainable parameters with their learning rates.
        steps: Optimizer steps.
        pictures: Pictures in a step.
        questions: Questions asked of a picture in a step ("questions" only).
        turns: Questions of a picture in one conversation; they are asked in several.
        emphasis: How many times as often as others a type of question of the families is asked ("questions" only).
        where: Share of the pictures of which it is also asked where something is ("questions" only).
        describe: Share of the pictures whose caption is also asked for ("questions" only).
        second_picture: Share of the pictures that share a conversation with another one ("questions" only).
        small_talk: Share of the conversations with a turn that needs no picture ("questions" only).
        families: Families of the rendered world, each with its share of the pictures.
        schedule: Learning rate over the steps, after a linear warm-up.
        warmup: Share of the steps with rising learning rate.
        weight_decay: AdamW's, on matrices only.
        betas: AdamW's.
        max_grad_norm: Gradient clipping; 0 for none.
    """

    name: str
    task: Literal["patches", "captions", "questions"]
    groups: tuple[Group, ...] = Field(min_length=1)
    steps: PositiveInt
    pictures: PositiveInt
    questions: PositiveInt = 1
    turns: PositiveInt = 1
    emphasis: dict[str, PositiveFloat] = Field(default_factory=dict)
    where: Share = 0.0
    describe: Share = 0.0
    second_picture: Share = 0.0
    small_talk: Share = 0.0
    families: dict[str, PositiveFloat] = Field(min_length=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0


class Recipe(Frozen):
    """Stages in order, and the preset of `saccade.presets` whose model they train.

    Attributes:
        name: What `saccade train` calls it.
        preset: Name of a preset.
        tokenizer: A bundled model, or a path, that holds the tokenizer.
        stages: In order; each starts from the weights the one before left.
        base: Name, folder or hub id of the model whose weights the first stage starts from; None for fresh weights.
        base_modules: Modules, by their names in the model (`model.vision_tower`), that start from the weights of
            `base`, all others being fresh; None for the whole model.
        seed: Of weights, order of the data, and dropout.
        description: One line for people, kept in the trained model's configuration.
    """

    name: str
    preset: str
    tokenizer: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    base: str | None = None
    base_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seed: int = 0
    description: str | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages share a name: {names}")
        return self

    @model_validator(mode="after")
    def _modules_have_a_base(self) -> "Recipe":
        if self.base_modules is not None and self.base is None:
            raise ValueError("base_modules are taken from a base: name one, or leave them out")
        return self

    def stage(self, name: str) -> Stage:
        """Return the stage of a name.

        Raises:
            ConfigError: when there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(f"the recipe {self.name} has no stage {name!r}: it has {[one.name for one in self.stages]}")
