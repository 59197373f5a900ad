"""What a stage teaches, and from what: one class for each task, with the settings that only it has."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from saccade.config import Frozen
from saccade.data.sources import Source

Share = Annotated[float, Field(ge=0, le=1)]
Families = Annotated[dict[str, PositiveFloat], Field(min_length=1)]


class Patches(Frozen):
    """The tower learns what the renderer knows about every patch.

    Attributes:
        families: Families of the rendered world, each with its share of the pictures.
    """

    kind: Literal["patches"] = "patches"
    families: Families


class Captions(Frozen):
    """Plain form: a picture of the rendered world, its caption after it.

    Attributes:
        families: See `Patches`.
    """

    kind: Literal["captions"] = "captions"
    families: Families


class Questions(Frozen):
    """Chat form: several questions of one picture of the rendered world.

    Attributes:
        families: See `Patches`.
        questions: Questions asked of a picture in a step.
        turns: Questions of a picture in one conversation; they are asked in several.
        emphasis: How many times as often as others a type of question of the families is asked.
        where: Share of the pictures of which it is also asked where something is.
        describe: Share of the pictures whose caption is also asked for.
        second_picture: Share of the pictures that share a conversation with another one.
        small_talk: Share of the conversations with a turn that needs no picture.
    """

    kind: Literal["questions"] = "questions"
    families: Families
    questions: PositiveInt = 1
    turns: PositiveInt = 1
    emphasis: dict[str, PositiveFloat] = Field(default_factory=dict)
    where: Share = 0.0
    describe: Share = 0.0
    second_picture: Share = 0.0
    small_talk: Share = 0.0


class World(Frozen):
    """Rows drawn from the rendered world, for the tasks that read rows.

    Attributes:
        families: See `Patches`.
        rows: How many different ones there are.
        pictures: Whether the picture is shown; where it is not, its caption stands before the question.
        first: How many rows are passed over before: rows that begin behind others of the same families, with the same
            shares, share no scene with them.
    """

    families: Families
    rows: PositiveInt
    pictures: bool = True
    first: NonNegativeInt = 0


class Listed(Frozen):
    """Data sets of a mixture of `saccade.data.mixtures`, from the folder that it was fetched to.

    Attributes:
        mixture: Its name.
        only: Names of its data sets, or of its stages; all of it where there is none.
    """

    mixture: str
    only: tuple[str, ...] = ()


Data: TypeAlias = Annotated[tuple[Source | World | Listed, ...], Field(min_length=1)]


class Tuning(Frozen):
    """Rows of one's own: conversations in the chat form, captions in the plain form.

    Attributes:
        data: Where the rows are; conversations and captions may be mixed.
        max_length: Most tokens of a row, visual tokens counted; a longer row is a bad one.
        order: "drawn": as the seed draws them. "lengths": the rows of a step are about equally long. "packed": rows
            share sequences of `max_length` tokens instead of being padded, and the batch counts sequences.
    """

    kind: Literal["tuning"] = "tuning"
    data: Data
    max_length: PositiveInt
    order: Literal["drawn", "lengths", "packed"] = "drawn"


class Preferences(Frozen):
    """Direct preference optimization: of two answers the better one (Flash-VL, stage 5).

    Attributes:
        data: Where the rows are.
        max_length: Most tokens of a prompt with an answer; a longer row is a bad one.
        beta: How strongly the model is held to what it was before the stage.
        likelihood: Weight of the better answer's own loss beside the comparison. Without it, as published, both answers
            may lose likelihood, the worse one more, and a third one gains it.
    """

    kind: Literal["preferences"] = "preferences"
    data: Data
    max_length: PositiveInt
    beta: PositiveFloat = 0.1
    likelihood: Annotated[float, Field(ge=0)] = 0.0


class Problems(Frozen):
    """Group relative policy optimization: own answers, rewarded where they are verified (Flash-VL, Sec. 4.7).

    Attributes:
        data: Where the rows are.
        max_length: Most tokens of a prompt; a longer row is a bad one.
        max_new_tokens: Most tokens of an answer.
        generations: Answers to a prompt.
        kl: Weight of the divergence from what the model was before the stage.
        temperature: Of the answers.
        rewards: Names of what is rewarded, each with its weight.
    """

    kind: Literal["problems"] = "problems"
    data: Data
    max_length: PositiveInt
    max_new_tokens: PositiveInt
    generations: Annotated[int, Field(ge=2)] = 24
    kl: Annotated[float, Field(ge=0)] = 0.001
    temperature: PositiveFloat = 1.0
    rewards: dict[Literal["verified", "format"], PositiveFloat] = Field(default={"verified": 1.0})


# Those that read rows of one's own.
RowTask: TypeAlias = Tuning | Preferences | Problems
Task: TypeAlias = Annotated[Patches | Captions | Questions | RowTask, Field(discriminator="kind")]
