"""Conversations: checked, rendered by a template and tokenized; labels and roles are fixed on the way."""

from saccade.prompt.conversation import Turn, parse_messages
from saccade.prompt.encode import Encoded, encode
from saccade.prompt.jinja import chat_template
from saccade.prompt.recover import roles_from_ids
from saccade.prompt.render import Segment, picture_segments, render_chat, render_plain

__all__ = [
    "Encoded",
    "Segment",
    "Turn",
    "chat_template",
    "encode",
    "parse_messages",
    "picture_segments",
    "render_chat",
    "render_plain",
    "roles_from_ids",
]
