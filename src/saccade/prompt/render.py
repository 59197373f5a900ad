"""Turns become segments: each piece of a prompt with what it is, whether it is trained and which query set reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saccade.config import PromptConfig
from saccade.errors import PromptError
from saccade.prompt.conversation import Turn
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

# What separates a system message from the question it is put before, where it is no turn of its own.
SYSTEM_SEPARATOR = "\n\n"
# What ends the plain form, trained like the caption.
PLAIN_END = "\n"


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: Its characters; for a placeholder the spelling of one.
        kind: "image" stands for a picture, or for the visual tokens of one of its views, "query" for the tokens of a
            query set.
        trained: Whether its tokens are labels.
        role: The role of its tokens, see `saccade.roles`.
        template: True where the template speaks: only there may text spell special tokens such as an end of turn.
        count: Tokens of a view or a query set.
        unread: Leading tokens of the segment whose role is TEXT all the same.
    """

    text: str
    kind: Literal["text", "image", "query"] = "text"
    trained: bool = False
    role: int = TEXT
    template: bool = False
    count: int = 1
    unread: int = 0


def render_chat(turns: Sequence[Turn], config: PromptConfig, *, generate: bool) -> list[Segment]:
    """Render a conversation by its template.

    A turn sees a picture when it or an earlier one holds one; then its query set reads the instruction, which is
    exactly the text of its question (and the blank of `blank_before_query`). Otherwise `query_without_image` says what
    it gets. Turns are counted, for the roles, among those that have a query set. With `history_instruction` "first"
    every query set has the role of turn 0, and later questions are ordinary text.

    A system message takes the place of the template's own system text where that is a turn. Where it is not, the text
    belongs to what the model was trained on and stays; the message goes before the first question, separated by an
    empty line, where the model takes it as part of the instruction.

    Args:
        turns: From `parse_messages`.
        config: The template.
        generate: True ends after `assistant_start`, ready to generate; False ends with an answer. Answers are trained
            with their `answer_start` and `assistant_end`.

    Returns:
        Segments in order, none of them empty.

    Raises:
        PromptError: when the last turn is not the user's (generate) or not the assistant's (otherwise).
    """
    wanted = "user" if generate else "assistant"
    if not turns or turns[-1].role != wanted:
        raise PromptError(
            f"the conversation must end with a turn of the {wanted} "
            + ("to be answered" if generate else "to be trained on")
        )
    segments, turns = _opened(turns, config)
    sees, asked = False, 0
    for turn in turns:
        if turn.role == "assistant":
            segments += _answer(turn.text, config)
            continue
        sees = sees or turn.images > 0
        query = _query(sees, asked, config)
        reads = query is not None and query.role != TEXT
        segments += _question(turn, query, reads and (not asked or config.history_instruction == "own"), config)
        asked += reads
    return [segment for segment in segments if segment.text]


def render_plain(caption: str, config: PromptConfig, images: int = 1) -> list[Segment]:
    """Render a caption for the first training stage: pictures, caption, query set, newline.

    Caption and newline are trained; there is no end token. The query set reads the caption but for its first
    `plain_instruction_skips` tokens.

    Args:
        caption: What the pictures show.
        config: Holds the placeholders.
        images: Number of pictures.

    Raises:
        PromptError: when there is no picture or no caption.
    """
    if images < 1 or not caption.strip():
        raise PromptError(f"the plain form needs a picture and a caption, got {images} pictures and {caption!r}")
    query = _query(True, 0, config)
    role = TEXT if query is None else instruction_role(0)
    segments = [Segment(config.image_token, "image", role=IMAGE)] * images
    segments.append(Segment(caption, trained=True, role=role, unread=config.plain_instruction_skips))
    if query is not None:
        segments.append(query)
    return [*segments, Segment(PLAIN_END, trained=True)]


def picture_segments(rows: Sequence[int], tokens_per_view: int, config: PromptConfig) -> list[Segment]:
    """Render one picture: the visual tokens of its views, with the template's texts around and between its tiles.

    Args:
        rows: How many views show the whole picture, 0 or 1, then how many tiles stand in each row from the top down, as
            `saccade.image.geometry.view_rows` returns them.
        tokens_per_view: Visual tokens of one view.
        config: The template.

    Returns:
        Segments in order, none of them empty; the counts of the images sum to the picture's visual tokens.
    """
    view = Segment(config.image_token, "image", role=IMAGE, count=tokens_per_view)
    tile = [_template(config.view_start), view, _template(config.view_end)]
    whole, *tiles = rows
    segments = [view] * whole
    for number, columns in enumerate(tiles):
        segments += [_template(config.row_separator)] * (number > 0) + tile * columns
    return [segment for segment in segments if segment.text]


def _template(text: str, *, trained: bool = False, role: int = TEXT) -> Segment:
    return Segment(text, trained=trained, role=role, template=True)


def _opened(turns: Sequence[Turn], config: PromptConfig) -> tuple[list[Segment], Sequence[Turn]]:
    """Render what precedes the first question, and return the other turns, the first with what goes into it."""
    if turns[0].role != "system":
        return [_template(config.opening)], turns
    system, first, *others = turns
    if config.system_start:
        return [_template(config.system_start), Segment(system.text), _template(config.system_end)], turns[1:]
    if system.text:
        first = replace(first, text=system.text + SYSTEM_SEPARATOR + first.text)
    return [_template(config.opening)], [first, *others]


def _query(sees: bool, asked: int, config: PromptConfig) -> Segment | None:
    """Return the query set of a turn, None where it has none."""
    if config.query_token is None:
        return None
    if sees or config.query_without_image == "queries":
        role = query_role(0 if config.history_instruction == "first" else asked)
        return Segment(config.query_token, "query", role=role, count=config.num_queries)
    if config.query_without_image == "token":
        return Segment(config.query_token, "query")
    return None


def _question(turn: Turn, query: Segment | None, read: bool, config: PromptConfig) -> list[Segment]:
    """Render a user's turn up to the header of the answer."""
    role = query.role - 1 if query is not None and read else TEXT
    segments = [_template(config.user_start)]
    for _ in range(turn.images):
        segments += [Segment(config.image_token, "image", role=IMAGE), _template(config.image_suffix)]
    segments.append(Segment(turn.text, role=role))
    if query is not None:
        if config.blank_before_query:
            segments.append(_template(" ", role=role))
        segments.append(query)
    return [*segments, _template(config.user_end), _template(config.assistant_start)]


def _answer(text: str, config: PromptConfig) -> list[Segment]:
    return [
        _template(config.answer_start, trained=True),
        Segment(text, trained=True),
        _template(config.assistant_end, trained=True),
        _template(config.turn_separator),
    ]
