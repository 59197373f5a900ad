"""Room for an answer: behind a long question it is shorter than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saccade.engine import Engine
from saccade.vlm import Conversation, Sampling
from saccade.vlm.inputs import encode_prompt


def fit(sampling: Sampling, engine: Engine, conversation: Conversation, sizes: Sequence[tuple[int, int]]) -> Sampling:
    """Let an answer take no more tokens than the engine has left behind a conversation.

    Args:
        sampling: How the answer was to be chosen; it comes back as it is where there is room, and where not even the
            prompt fits, so that the engine says so.
        engine: What will answer.
        conversation: What will be asked.
        sizes: Width and height of its pictures in pixels.

    Raises:
        PromptError: for a conversation that cannot be rendered.
    """
    room = engine.report()["length"] - len(encode_prompt(conversation, sizes, engine.vlm.processor).input_ids)
    return replace(sampling, max_new_tokens=room) if 0 < room < sampling.max_new_tokens else sampling
