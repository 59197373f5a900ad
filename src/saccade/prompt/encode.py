"""Segments become ids: with their labels and roles, and nothing that a user typed ever becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.config import PromptConfig
from saccade.errors import ConfigError, PlaceholderMismatchError, PromptError
from saccade.prompt.render import Segment
from saccade.roles import TEXT

# The label of a token that is not trained, as torch's cross entropy ignores it.
IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model takes it: three lists of one length.

    Attributes:
        input_ids: Token ids, one image id per visual token and one query id per query token.
        labels: The id where the token is trained, -100 elsewhere.
        roles: What each token is, see `saccade.roles`.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)


def encode(segments: Sequence[Segment], tokenizer: Any, pictures: Sequence[Sequence[Segment]]) -> Encoded:
    """Tokenize rendered segments.

    Text between two special tokens is tokenized as one run, so that boundaries between segments leave no trace in the
    ids; a token belongs to the segment that holds its last character. Special tokens are looked for in the template's
    own text only.

    Args:
        segments: From `render_chat` or `render_plain`.
        tokenizer: A tokenizer that gives character offsets (a fast one).
        pictures: What stands for each picture, in order, from `picture_segments`.

    Raises:
        PlaceholderMismatchError: when `pictures` has not one entry per picture.
        PromptError: when a placeholder is not a token of the tokenizer.
    """
    encoded, run = Encoded(), list[Segment]()
    for segment, is_special in _pieces(_shown(segments, pictures), special_pattern(tokenizer)):
        if not is_special:
            run.append(segment)
            continue
        _flush(run, tokenizer, encoded)
        run = []
        _append(encoded, [token_id(segment.text, tokenizer)] * segment.count, segment)
    _flush(run, tokenizer, encoded)
    return encoded


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the special tokens of a tokenizer by id."""
    return {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Return a pattern of one group that matches the spelling of any special token, longer ones first."""
    spellings = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, spellings)) + ")") if spellings else re.compile("((?!))")


def token_id(spelling: str, tokenizer: Any) -> int:
    """Return the id of a token by its spelling.

    Raises:
        PromptError: when the tokenizer does not know it.
    """
    found = tokenizer.convert_tokens_to_ids(spelling)
    if found is None or tokenizer.convert_ids_to_tokens(found) != spelling:
        raise PromptError(f"the tokenizer has no token {spelling!r}: add it as a special token")
    return int(found)


def end_token_id(tokenizer: Any, prompt: PromptConfig) -> int:
    """Return the id that ends an answer: the first token of the template's `assistant_end`.

    Raises:
        ConfigError: when the template ends answers with text that is no token of its own.
    """
    special = special_pattern(tokenizer).match(prompt.assistant_end)
    if special is None:
        raise ConfigError(
            f"prompt.assistant_end {prompt.assistant_end!r} does not start with a special token, so generation could "
            "never stop: add the token to the tokenizer or change the template"
        )
    return token_id(special[0], tokenizer)


def stop_token_ids(tokenizer: Any, prompt: PromptConfig, declared: int | Sequence[int] | None) -> list[int]:
    """Return the ids at which generation stops: the one that ends an answer, then those that a model declares.

    Args:
        tokenizer: Tokenizer of the model.
        prompt: The template.
        declared: `eos_token_id` of the model's generation configuration.

    Raises:
        ConfigError: when the template ends answers with text that is no token of its own.
    """
    others = [] if declared is None else [declared] if isinstance(declared, int) else declared
    return list(dict.fromkeys([end_token_id(tokenizer, prompt), *others]))


def _shown(segments: Sequence[Segment], pictures: Sequence[Sequence[Segment]]) -> list[Segment]:
    """Put what stands for each picture in its place."""
    places = sum(segment.kind == "image" for segment in segments)
    if places != len(pictures):
        raise PlaceholderMismatchError(
            f"the prompt holds {places} pictures but views were given for {len(pictures)}: give those of each"
        )
    remaining = iter(pictures)
    return [part for segment in segments for part in (next(remaining) if segment.kind == "image" else (segment,))]


def _pieces(segments: Sequence[Segment], special: re.Pattern[str]) -> Iterator[tuple[Segment, bool]]:
    """Yield segments with whether they are special, the template's text cut at the special tokens that it spells."""
    for segment in segments:
        if segment.kind != "text":
            yield segment, True
        elif not segment.template:
            yield segment, False
        else:
            for index, text in enumerate(special.split(segment.text)):
                if text:
                    yield Segment(text, "text", segment.trained, segment.role, template=True), index % 2 == 1


def _flush(run: Sequence[Segment], tokenizer: Any, encoded: Encoded) -> None:
    """Tokenize a run of text and hand every token to the segment that holds its last character."""
    text = "".join(segment.text for segment in run)
    if not text:
        return
    tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    ends = [end for _, end in tokens["offset_mapping"]]
    ids = tokens["input_ids"]
    at, position = 0, 0
    for segment in run:
        position += len(segment.text)
        first = at
        while at < len(ids) and ends[at] <= position:
            at += 1
        _append(encoded, ids[first:at], segment)


def _append(encoded: Encoded, ids: list[int], segment: Segment) -> None:
    unread = min(segment.unread, len(ids))
    encoded.input_ids.extend(ids)
    encoded.labels.extend(ids if segment.trained else [IGNORE] * len(ids))
    encoded.roles.extend([TEXT] * unread + [segment.role] * (len(ids) - unread))
