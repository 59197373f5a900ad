"""Stages as data: what is trained, how fast, on what, for how long."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from saccade.config import Frozen
from saccade.errors import ConfigError
from saccade.train.tasks import Share, Task

Schedule = Literal["cosine", "linear", "constant_with_warmup"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Lora(Frozen):
    """Low-rank adapters beside linear layers that stay as they are (LoRA).

    Attributes:
        rank: Width of the adapters.
        alpha: Their scale is `alpha / rank`.
        dropout: On what they read.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Group(Frozen):
    """Parameters that share a learning rate.

    Attributes:
        pattern: Regular expression searched in parameter names, e.g. `compressor|multi_modal_projector`.
        lr: Peak learning rate.
        lora: Adapters of the linear layers among them, which are then all that is trained of the group.
    """

    pattern: str
    lr: PositiveFloat
    lora: Lora | None = None

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error}): correct it") from error
        return pattern


class Stage(Frozen):
    """One run of the training loop. Parameters that no group names are frozen.

    Attributes:
        name: Name of the stage's folder.
        task: What is taught, from what; see `saccade.train.tasks`.
        groups: Trainable parameters with their learning rates.
        steps: Optimizer steps; if left out, as many as `epochs` take.
        epochs: Passes over the data, where it has an end; rows of one more pass fill the last step up.
        batch: Pictures of the rendered world, or rows, in an optimizer step, over all processes.
        micro_batch: How many of them a process takes at once; if left out, all of its share.
        image: Fields of the model's picture configuration that differ in this stage, e.g. its tiling.
        schedule: Learning rate over the steps, after a linear warm-up.
        min_lr: Where a cosine ends, as a share of the peak.
        warmup: Steps with a rising learning rate; below 1, their share of all steps.
        weight_decay: AdamW's, on matrices only.
        betas: AdamW's.
        max_grad_norm: Gradient clipping; 0 for none.
        checkpointing: Whether activations are computed again in the backward pass rather than kept.
    """

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    task: Task
    groups: tuple[Group, ...] = Field(min_length=1)
    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch: PositiveInt
    micro_batch: PositiveInt | None = None
    image: dict[str, Any] = Field(default_factory=dict)
    schedule: Schedule = "cosine"
    min_lr: Share = 0.0
    warmup: Annotated[float, Field(ge=0)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    checkpointing: bool = False

    @model_validator(mode="after")
    def _ends(self) -> "Stage":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"stage {self.name} ends after steps or after epochs: give one of them")
        if self.epochs is not None and self.task.kind in ("patches", "captions", "questions"):
            raise ValueError(f"stage {self.name} draws pictures without end: give steps instead of epochs")
        return self

    @model_validator(mode="after")
    def _ends_low(self) -> "Stage":
        if self.min_lr and self.schedule != "cosine":
            raise ValueError(
                f"stage {self.name} has a min_lr, at which only a cosine ends: leave it out, or take that schedule"
            )
        return self

    @model_validator(mode="after")
    def _adapts_layers_that_stay(self) -> "Stage":
        if self.task.kind == "patches" and any(group.lora for group in self.groups):
            raise ValueError(f"stage {self.name} trains heads that are thrown away: give its groups no adapters")
        return self

    @model_validator(mode="after")
    def _divides(self) -> "Stage":
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"stage {self.name} cannot take its batch of {self.batch} in parts of {self.micro_batch}")
        return self

    def rows_shown(self, rows: int) -> int:
        """Count the rows that `epochs` passes over so many show, at least one."""
        return max(1, round((self.epochs or 0) * rows))

    def steps_for(self, items: int) -> int:
        """Return `steps`, or as many as it takes to show so many items."""
        return self.steps or math.ceil(items / self.batch)


class Recipe(Frozen):
    """Stages in order, and the model they train.

    Attributes:
        name: What `saccade train` calls it.
        preset: Name of a preset of `saccade.presets`; None for the configuration of `base`.
        tokenizer: A bundled model, a folder or a hub id that holds the tokenizer; None for that of `base`.
        stages: In order; each starts from the weights the one before left.
        base: Name, folder or hub id of the model whose weights the first stage starts from; None for fresh weights.
        base_modules: Modules, by their names in the model (`model.vision_tower`), that start from the weights of
            `base`, all others being fresh; None for the whole model.
        vision_tower: Folder or hub id, in transformers' own layout, whose weights the tower starts from.
        language_model: The same of the decoder and the output head.
        data: Folder that mixtures were fetched to.
        parent: Name of the recipe that this one is a variant of.
        seed: Of weights, order of the data, and dropout.
        description: One line for people, kept in the trained model's configuration.
    """

    name: str
    preset: str | None = None
    tokenizer: str | None = None
    stages: tuple[Stage, ...] = Field(min_length=1)
    base: str | None = None
    base_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    vision_tower: str | None = None
    language_model: str | None = None
    data: str = "data"
    parent: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
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
        parts = [name for name in ("vision_tower", "language_model") if getattr(self, name) is not None]
        if parts and self.whole_base:
            raise ValueError(
                f"the whole model is taken from base, and {' and '.join(parts)} too: leave either out, or say in "
                "base_modules what the base gives"
            )
        return self

    @model_validator(mode="after")
    def _has_a_model(self) -> "Recipe":
        missing = [name for name in ("preset", "tokenizer") if getattr(self, name) is None]
        if missing and not self.whole_base:
            raise ValueError(f"without {' and '.join(missing)} the recipe takes those of a whole base: name one")
        return self

    @property
    def whole_base(self) -> str | None:
        """The base, where the whole model starts from it."""
        return self.base if self.base_modules is None else None

    @property
    def families(self) -> frozenset[str]:
        """Families of the rendered world that some stage teaches from."""
        sources = [source for stage in self.stages for source in (stage.task, *getattr(stage.task, "data", ()))]
        return frozenset(family for source in sources for family in getattr(source, "families", ()))

    def stage(self, name: str) -> Stage:
        """Return the stage of a name.

        Raises:
            ConfigError: when there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(f"the recipe {self.name} has no stage {name!r}: it has {[one.name for one in self.stages]}")
