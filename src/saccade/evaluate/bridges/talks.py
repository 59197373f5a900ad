"""A toolkit's question in the words of this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from saccade.errors import ConfigError, DataError, SaccadeWarning
from saccade.vlm import Conversation, Sampling

Part = tuple[str, Any]  # "text" or "image", and the words or the picture


def conversation(turns: Iterable[tuple[str, Sequence[Part]]]) -> Conversation:
    """Return the conversation of turns, each a role and its parts.

    The pictures of a turn come before its words: that one stood between words is said.

    Raises:
        DataError: for a part that is neither words nor a picture.
    """
    messages, images = [], []
    for role, parts in turns:
        if unknown := {kind for kind, _ in parts} - {"text", "image"}:
            raise DataError(f"a question holds {', '.join(sorted(unknown))}: choose a task of words and pictures")
        if [kind for kind, _ in groupby(parts, lambda part: part[0])].count("text") > 1:
            warnings.warn(
                "the task sets pictures between words: the model is shown all pictures first, then the words",
                SaccadeWarning,
                stacklevel=2,
            )
        content = [{"type": "text", "text": part} if kind == "text" else {"type": "image"} for kind, part in parts]
        messages.append({"role": role, "content": content})
        images += [part for kind, part in parts if kind == "image"]
    return Conversation(tuple(messages), tuple(images))


def sampling(settings: Mapping[str, Any], max_new_tokens: int, seed: int) -> Sampling:
    """Return how a task wants its answers, from its generation settings.

    Args:
        settings: Those of the toolkit; `max_new_tokens`, `temperature`, `top_p` and `num_beams` are read.
        max_new_tokens: Most tokens of an answer where the task sets no limit.
        seed: Of the tasks that draw, which are those whose temperature is above 0, whatever else they say.

    Raises:
        ConfigError: for a search with beams, or a value out of range; a greedy answer needs no `top_p`, whatever it is.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if given.get("num_beams", 1) != 1:
        raise ConfigError(f"the task asks for {given['num_beams']} beams: set num_beams=1")
    temperature = given.get("temperature", 0.0)
    return Sampling(
        max_new_tokens=given.get("max_new_tokens", max_new_tokens),
        temperature=temperature,
        top_p=given.get("top_p", 1.0) if temperature else 1.0,
        seed=seed,
    )
