"""Messages become turns: transformers' chat format is checked once, here, and everything later can rely on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saccade.errors import PromptError

# What joins the text parts of one message.
PART_SEPARATOR = "\n"


@dataclass(frozen=True)
class Turn:
    """One message of a checked conversation.

    Attributes:
        role: Who speaks.
        text: What is said, exactly as written; never interpreted, even where it spells a special token.
        images: Pictures in the message; they stand before its text.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    images: int = 0


def parse_messages(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Turn a conversation in transformers' chat format into turns.

    A message is `{"role": "user" | "assistant" | "system", "content": ...}`; its content is a string or a list of parts
    `{"type": "text", "text": ...}` and `{"type": "image", ...}` (`image_url` counts as `image`). The pictures of a
    message come first, in their order; several texts are joined by newlines.

    A system message may only come first; it becomes a turn of its own (see `render_chat` for where it goes).

    Args:
        messages: The conversation, oldest first.

    Returns:
        Turns of user and assistant in alternation, the user first, after the system's where there is one.

    Raises:
        PromptError: when the conversation is empty, a role or part is unknown, roles do not alternate, a message of the
            user holds neither text nor picture, or a picture stands in an answer or a system message.
    """
    messages = list(messages)
    if not messages:
        raise PromptError("the conversation is empty: give at least one message of the user")
    system: list[Turn] = []
    if _role(messages[0], 0) == "system":
        text, images = _content(messages[0], 0)
        if images:
            raise PromptError("message 0 (system) holds a picture: put it into the message of the user")
        system = [Turn("system", text)]
        if len(messages) == 1:
            raise PromptError("the conversation holds only a system message: add a message of the user")
    first = len(system)
    return system + [_turn(message, index + first, index) for index, message in enumerate(messages[first:])]


def _turn(message: Mapping[str, Any], number: int, index: int) -> Turn:
    """Check one message; `number` counts it for messages of error, `index` from the first turn."""
    role = _role(message, number)
    expected: Literal["user", "assistant"] = "assistant" if index % 2 else "user"
    if role != expected:
        raise PromptError(
            f"message {number} is of the {role}, the {expected} was expected: a conversation alternates between user "
            "and assistant, begins with the user, and has a system message only at its start"
        )
    text, images = _content(message, number)
    if expected == "assistant" and images:
        raise PromptError(f"message {number} (assistant) holds a picture: answers are text")
    if expected == "user" and not images and not text.strip():
        raise PromptError(f"message {number} (user) is empty: give it a question or a picture")
    return Turn(expected, text, images)


def _role(message: Mapping[str, Any], number: int) -> str:
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise PromptError(f"message {number} has the role {role!r}: use 'user', 'assistant' or 'system'")
    return str(role)


def _content(message: Mapping[str, Any], number: int) -> tuple[str, int]:
    """Return the text of a message and how many pictures it holds."""
    content = message.get("content")
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, Sequence):
        raise PromptError(f"message {number} has no content: give a string or a list of parts")
    texts, images = [], 0
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("image", "image_url"):
            images += 1
        elif kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise PromptError(f"message {number} has a part that is neither a picture nor a text: {part!r}")
    return PART_SEPARATOR.join(texts), images
