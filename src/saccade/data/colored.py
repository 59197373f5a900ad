"""A prompt as a person can read it: what is trained, what is the instruction, where pictures and queries stand."""

from __future__ import annotations

import itertools
from typing import Any

from rich.style import Style
from rich.text import Text

from saccade.prompt import Encoded
from saccade.prompt.encode import IGNORE
from saccade.roles import IMAGE, TEXT, is_query, query_role

TRAINED = Style(color="green", bold=True)
INSTRUCTION = Style(underline=True, color="yellow")
PICTURE = Style(color="blue")
QUERIES = Style(color="magenta")
OTHER = Style(dim=True)


def legend(marks: bool) -> Text:
    """Explain the colors, and the marks where there are any."""
    trained, instruction = ("[[trained]]", "{{instruction}}") if marks else ("trained", "instruction")
    parts = (
        (trained, TRAINED),
        (instruction, INSTRUCTION),
        ("(picture: its tokens)", PICTURE),
        ("(queries of a turn: its tokens)", QUERIES),
    )
    text = Text("  ").join(Text(word, style=style) for word, style in parts)
    return text.append("  template", style=OTHER)


def colored(encoded: Encoded, tokenizer: Any, marks: bool) -> Text:
    """Return a prompt in colors.

    Args:
        encoded: The prompt.
        tokenizer: Its tokenizer.
        marks: Whether brackets tell what the colors tell: `[[` and `]]` around what is trained, `{{` and `}}` around an
            instruction. Without them a caption of the plain form, which is both, is green and underlined.
    """
    tokens = zip(encoded.input_ids, encoded.labels, encoded.roles, strict=True)
    text = Text()
    for (trained, role), run in itertools.groupby(tokens, key=lambda token: (token[1] != IGNORE, token[2])):
        ids = [token for token, _, _ in run]
        text.append_text(_run(ids, trained, role, tokenizer, marks))
    return text


def _run(ids: list[int], trained: bool, role: int, tokenizer: Any, marks: bool) -> Text:
    """Return a run of tokens of one kind."""
    if role == IMAGE:
        return Text(f"(picture: {len(ids)})", style=PICTURE)
    if is_query(role):
        return Text(f"(queries of turn {(role - query_role(0)) // 2 + 1}: {len(ids)})", style=QUERIES)
    said, style = tokenizer.decode(ids), Style.null()
    if role != TEXT:
        said, style = f"{{{{{said}}}}}" if marks else said, INSTRUCTION
    if trained:
        said, style = f"[[{said}]]" if marks else said, style + TRAINED
    return Text(said, style=style or OTHER)
