"""Roles from ids alone, for callers that hand on nothing but a rendered prompt.

Training loops and engines of other projects tokenize the string of a chat template. Its structure is unambiguous:
placeholders and ends of turns are ids that no typed text can produce, and between them the template's own words stand
at known places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saccade.config import PromptConfig
from saccade.errors import PlaceholderMismatchError, PromptError
from saccade.prompt.encode import special_pattern, token_id
from saccade.roles import IMAGE, TEXT, instruction_role, query_role

# Precedes the spelling of a special token; it occurs in no UTF-8 text, so words that spell one do not match.
_MARK = b"\xff"
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
# Byte-level vocabularies write printable bytes as themselves and the others, in order, as the characters from 256 on.
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}


def roles_from_ids(ids: Sequence[int], tokenizer: Any, config: PromptConfig) -> list[int]:
    """Return the roles that rendering would have given to the ids of a conversation.

    Padding on either side is ordinary text. The plain form of the first training stage cannot be recovered: without a
    template nothing tells a caption from a question, so it only exists rendered.

    Args:
        ids: One row, image and query placeholders expanded.
        tokenizer: A byte-level tokenizer.
        config: The template that the row was rendered with.

    Returns:
        One role per id.

    Raises:
        PlaceholderMismatchError: when query tokens do not form a set.
        PromptError: when the row does not follow the template, or a token is not written in bytes.
    """
    image = token_id(config.image_token, tokenizer)
    roles = [IMAGE if i == image else TEXT for i in ids]
    if config.query_token is None:
        return roles
    reader = _Reader(tokenizer, config)
    asked, after = 0, 0
    for start, stop in _runs(ids, token_id(config.query_token, tokenizer)):
        bare = config.query_without_image == "token" and IMAGE not in roles[:start]
        expected = 1 if bare else config.num_queries
        if stop - start != expected:
            raise PlaceholderMismatchError(
                f"{stop - start} {config.query_token} tokens stand at position {start}, {expected} were expected: "
                "render the conversation with the chat template, and escape what users type"
            )
        if not bare:
            first = config.history_instruction == "first"
            roles[start:stop] = [query_role(0 if first else asked)] * (stop - start)
            if not (first and asked):
                begin = reader.instruction(ids, after, start, image)
                roles[begin:start] = [instruction_role(asked)] * (start - begin)
            asked += 1
        after = stop
    return roles


def _runs(ids: Sequence[int], wanted: int) -> list[tuple[int, int]]:
    """Return the stretches of `wanted`, as (start, stop)."""
    edges = [n for n in range(len(ids) + 1) if (n < len(ids) and ids[n] == wanted) != (n > 0 and ids[n - 1] == wanted)]
    return list(zip(edges[::2], edges[1::2], strict=True))


class _Reader:
    """Finds where an instruction begins, in bytes."""

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        self._tokenizer = tokenizer
        self._added: Mapping[int, Any] = tokenizer.added_tokens_decoder
        special = special_pattern(tokenizer)

        def marked(text: str) -> bytes:
            pieces = enumerate(special.split(text))
            return b"".join((_MARK if n % 2 else b"") + piece.encode() for n, piece in pieces)

        self._view_start = marked(config.view_start)
        self._after_view = marked(config.image_suffix)
        self._after_tile = marked(config.view_end + config.image_suffix)
        self._first_turn = marked(config.opening + config.user_start)
        self._first_header = marked(config.system_end + config.user_start)
        self._next_turn = marked(config.assistant_end + config.turn_separator + config.user_start)

    def instruction(self, ids: Sequence[int], after: int, query: int, image: int) -> int:
        """Return the position of the first token of the instruction that the query set at `query` reads.

        Args:
            ids: The row.
            after: End of the query set before, 0 for the first.
            query: Start of the query set.
            image: Id of a visual token.
        """
        last_image = next((n for n in reversed(range(after, query)) if ids[n] == image), None)
        start = after if last_image is None else last_image + 1
        if not after and last_image is None:
            while start < query and ids[start] == self._tokenizer.pad_token_id:
                start += 1
        pieces = self._pieces(ids[start:query])
        text = b"".join(pieces)
        if last_image is None:
            offset = self._behind_header(text, first=not after)
        else:
            offset = self._behind_picture(text, self._before_view(ids, after, last_image))
        if offset is None:
            raise PromptError(
                f"the text before the query set at position {query} does not follow the chat template: {text[:200]!r}"
            )
        end = 0
        for n, piece in enumerate(pieces):
            end += len(piece)
            if end > offset:
                return start + n
        return query

    def _before_view(self, ids: Sequence[int], after: int, last: int) -> bytes:
        """Return the text between the view whose last token stands at `last` and what precedes it."""
        stop = last
        while stop > after and ids[stop - 1] == ids[last]:
            stop -= 1
        start = stop
        while start > after and ids[start - 1] != ids[last]:
            start -= 1
        return b"".join(self._pieces(ids[start:stop]))

    def _behind_picture(self, text: bytes, before: bytes) -> int | None:
        """Return where the question begins in a turn whose last view has the text `before` before it."""
        ends = [self._after_tile] if before.endswith(self._view_start) else []
        return next((len(end) for end in (*ends, self._after_view) if text.startswith(end)), None)

    def _behind_header(self, text: bytes, *, first: bool) -> int | None:
        """Return where the question begins in a turn without a picture, None when there is no header."""
        if first and text.startswith(self._first_turn):
            return len(self._first_turn)
        header = self._first_header if first else self._next_turn
        at = text.find(header)
        return None if at < 0 else at + len(header)

    def _pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes that each id stands for."""
        return [self._piece(i, token) for i, token in zip(ids, self._tokenizer.convert_ids_to_tokens(ids), strict=True)]

    def _piece(self, identity: int, token: str) -> bytes:
        if identity in self._added:
            return (_MARK if self._added[identity].special else b"") + token.encode()
        try:
            return bytes(_BYTES[letter] for letter in token)
        except KeyError as error:
            raise PromptError(
                f"token {token!r} is not written in bytes: roles are recovered for byte-level tokenizers only, render "
                "the conversation with render_chat"
            ) from error
