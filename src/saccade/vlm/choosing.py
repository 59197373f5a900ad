"""One of several answers: each is scored by how likely the model is to say exactly that."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saccade.data.collate import pad
from saccade.errors import PromptError
from saccade.prompt.conversation import parse_messages
from saccade.prompt.encode import IGNORE, Encoded, encode, end_token_id
from saccade.prompt.render import render_chat
from saccade.vlm.chat import Conversation
from saccade.vlm.inputs import pad_inputs

if TYPE_CHECKING:
    from saccade.image.processor import SaccadeProcessor
    from saccade.model import SaccadeForConditionalGeneration
    from saccade.vlm.inputs import EncodedImage

AT_ONCE = 16  # options in one batch: each has its own copy of the prompt's keys and values


@dataclass(frozen=True, slots=True)
class Choice:
    """How likely each of the offered answers is; `str(choice)` is the likeliest.

    Attributes:
        options: The answers, in the order in which they were offered.
        probabilities: Probability of each option given that the answer is one of them; they sum to 1.
        log_probabilities: Natural logarithm of the probability of each option among everything the model can say, which
            no placeholder is.
    """

    options: tuple[str, ...]
    probabilities: tuple[float, ...]
    log_probabilities: tuple[float, ...]

    def __str__(self) -> str:
        return self.best

    @property
    def best(self) -> str:
        """The likeliest option; the first of several that are equally likely."""
        return self.options[self.log_probabilities.index(max(self.log_probabilities))]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "best": self.best,
            "options": list(self.options),
            "probabilities": list(self.probabilities),
            "log_probabilities": list(self.log_probabilities),
        }


def choose(
    model: SaccadeForConditionalGeneration,
    processor: SaccadeProcessor,
    question: str,
    pictures: Sequence[EncodedImage],
    options: Sequence[str],
) -> Choice:
    """Score options as answers to one question.

    The prompt runs through the model once; the options continue it in batches that share its keys and values. The
    score of an option is the sum of the log-probabilities of its tokens, the end of the answer included. Nothing is
    divided by the length: with its end, every option is one complete answer, so "red" and "red circle" are different
    events whose probabilities compare as they are.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        question: What is asked.
        pictures: What it is asked about.
        options: What `check_options` returned.

    Raises:
        PromptError: when the question cannot be rendered, or it leaves no room for an option.
        ConfigError: when the template ends answers with text that is no token of its own.
    """
    end = end_token_id(processor.tokenizer, processor.prompt)
    rows = [_answered(question, pictures, option, processor, end) for option in options]
    shared = _shared(rows)
    _check_room(model, shared, rows, options)
    prompt = pad_inputs([Encoded(*(part[:shared] for part in _parts(rows[0])))], [pictures], processor)
    never = model.config.placeholder_ids
    with torch.inference_mode():
        inputs = {name: tensor.to(model.device) for name, tensor in prompt.items()}
        begun: Any = model(**inputs, use_cache=True, logits_to_keep=1)
        parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        totals = torch.cat([_scores(model, begun, part, shared, never) for part in parts])
    return Choice(tuple(options), tuple(totals.softmax(0).tolist()), tuple(totals.tolist()))


def check_options(options: Iterable[str]) -> tuple[str, ...]:
    """Return the answers that are offered.

    Raises:
        PromptError: when there are fewer than two, or one is no text, is empty, has blanks around it or occurs twice.
    """
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise PromptError(f"there is nothing to choose from in {options!r}: offer a list of two answers or more")
    offered = tuple(options)
    if len(offered) < 2:
        raise PromptError(f"there is nothing to choose from in {list(offered)}: offer a list of two answers or more")
    for number, option in enumerate(offered):
        if not isinstance(option, str):
            raise PromptError(f"option {number}, {option!r}, is no text: write it as a string")
        if not option or option != option.strip():
            raise PromptError(f"option {number}, {option!r}, is empty or has blanks around it: an answer has none")
        if option in offered[:number]:
            raise PromptError(f"option {number}, {option!r}, is offered twice: offer it once")
    return offered


def _scores(
    model: SaccadeForConditionalGeneration, begun: Any, rows: Sequence[Encoded], shared: int, never: Sequence[int]
) -> Tensor:
    """Return the log-probabilities of answers that continue a prompt of `shared` tokens, `[rows]`, float64."""
    ids, labels, known = (
        pad(part, fill, "right").to(model.device)
        for part, fill in (
            ([row.input_ids[shared:] for row in rows], 0),
            ([row.labels[shared:] for row in rows], IGNORE),
            ([[1] * (len(row.input_ids) - 1) for row in rows], 0),
        )
    )
    cache = copy.deepcopy(begun.past_key_values)  # the model appends to the one it is given
    cache.batch_repeat_interleave(len(rows))
    ended: Any = model(input_ids=ids[:, :-1], attention_mask=known, past_key_values=cache)
    logits = torch.cat([begun.logits.expand(len(rows), -1, -1), ended.logits], dim=1).float()
    logits[..., never] = -torch.inf
    scores = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    return scores.masked_fill(labels == IGNORE, 0).sum(1, dtype=torch.float64)


def _answered(
    question: str, pictures: Sequence[EncodedImage], option: str, processor: SaccadeProcessor, end: int
) -> Encoded:
    """Encode question and option, up to the token that ends an answer; what a template puts after it is never said."""
    talk = Conversation().ask(question, pictures).reply(option)
    segments = render_chat(parse_messages(talk.messages), processor.prompt, generate=False)
    row = encode(segments, processor.tokenizer, [processor.picture_segments(*p.size) for p in pictures])
    stop = row.labels.index(end) + 1
    return Encoded(*(part[:stop] for part in _parts(row)))


def _parts(row: Encoded) -> tuple[list[int], list[int], list[int]]:
    return row.input_ids, row.labels, row.roles


def _shared(rows: Sequence[Encoded]) -> int:
    """Return how many leading tokens all rows have in common before the first one that is scored.

    A tokenizer may merge the header of the answer with the answer, so the header is compared, not trusted.
    """
    length = min(next(n for n, label in enumerate(row.labels) if label != IGNORE) for row in rows)
    while any(row.input_ids[:length] != rows[0].input_ids[:length] for row in rows):
        length -= 1
    return length


def _check_room(
    model: SaccadeForConditionalGeneration, shared: int, rows: Sequence[Encoded], options: Sequence[str]
) -> None:
    limit = getattr(model.config.text_config, "max_position_embeddings", None)
    for row, option in zip(rows, options, strict=True):
        if limit is not None and len(row.input_ids) > limit:
            raise PromptError(
                f"the prompt has {shared} tokens and option {option!r} {len(row.input_ids) - shared}, but the model "
                f"holds {limit} in all: shorten the question or the option"
            )
