"""How conversations become text, as data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from saccade.config.frozen import Frozen
from saccade.errors import ConfigError


class PromptConfig(Frozen):
    """A conversation template as text around the turns (see `saccade.prompt`).

    A chat is rendered as its opening, then for every turn `user_start`, the pictures each followed by `image_suffix`,
    the question, the query set, `user_end`, `assistant_start`, `answer_start`, the answer, `assistant_end` and
    `turn_separator`.

    The opening is `system`. With `system_start` and `system_end` it is a turn of its own between the two, in which a
    system message of the conversation takes the place of `system`; without them such a message goes before the first
    question.

    Attributes:
        system: What a conversation without a system message opens with; empty for nothing. Unless it is a turn, it
            ends with what separates it from the first question.
        system_start: Text before a system turn; empty where the system text is no turn.
        system_end: Text after a system turn.
        user_start: Text before a user's message.
        user_end: Text after a user's message and its query set.
        assistant_start: Header of the answer; generation starts right after it.
        answer_start: Text between header and answer; trained as part of the answer.
        assistant_end: End of an answer; trained.
        turn_separator: Text after the end of every answer, the last one too; not trained.
        image_suffix: Text after every picture.
        view_start: Text before the visual tokens of a tile. A view of the whole picture has none around it.
        view_end: Text after the visual tokens of a tile.
        row_separator: Text between two rows of tiles.
        image_token: Spelling of the picture placeholder.
        query_token: Spelling of the query placeholder; None for models without embedded queries.
        num_queries: Query tokens in a set.
        blank_before_query: True renders a blank between question and query set, inside the instruction span. A
            reference model was trained with it and is run without it.
        query_without_image: What a turn that can see no picture gets: "none", "queries" (a query set that has nothing
            to read, as a reference's text-only training rows), or "token" (the bare placeholder as an ordinary
            token, as that reference's text-only inference).
        history_instruction: "own": every query set reads the question of its own turn. "first": all read the first one,
            as a reference does at inference.
        plain_instruction_skips: Leading caption tokens of the plain form that the query set does not read; a
            reference skips 1.
    """

    system: str = ""
    system_start: str = ""
    system_end: str = ""
    user_start: str = "USER: "
    user_end: str = " "
    assistant_start: str = "ASSISTANT:"
    answer_start: str = " "
    assistant_end: str = "</s>"
    turn_separator: str = ""
    image_suffix: str = "\n"
    view_start: str = ""
    view_end: str = ""
    row_separator: str = ""
    image_token: str = "<image>"
    query_token: str | None = None
    num_queries: Annotated[int, Field(ge=0)] = 0
    blank_before_query: bool = False
    query_without_image: Literal["none", "queries", "token"] = "none"
    history_instruction: Literal["own", "first"] = "own"
    plain_instruction_skips: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if bool(self.system_start) != bool(self.system_end):
            raise ConfigError(
                "prompt.system_start and prompt.system_end make the system text a turn together: give both or neither"
            )
        return self

    @property
    def opening(self) -> str:
        """Text before the first turn of a conversation without a system message."""
        return self.system_start + self.system + self.system_end if self.system else ""
