"""What the bridges share: a model on the engine that is asked from any thread, and room made for every answer."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike

import torch

from saccade.engine import Engine, Ticket
from saccade.errors import SaccadeWarning
from saccade.evaluate.fitting import fit
from saccade.image.transform import open_image
from saccade.vlm import Answer, Conversation, EncodedImage, Sampling, load

_AHEAD = 2  # batches that wait, so that no slot stands empty while the toolkit prepares its next question


class Asker:
    """A model that answers a toolkit's questions, several at a time.

    Args:
        source: What `saccade.load` opens.
        device: Where it runs.
        dtype: Its precision.
        at_once: Questions that are answered side by side.
        length: Most tokens of a question and its answer together; the decoder's own limit holds beside it.

    Raises:
        CheckpointError: when there is no such model or it is not whole.
        ConfigError: for a bad argument.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        device: str | torch.device | None,
        dtype: str | None,
        at_once: int,
        length: int,
    ) -> None:
        self.vlm = load(source, device=device, dtype=dtype)
        self._engine = Engine(self.vlm, slots=at_once, length=length)
        self._ahead = _AHEAD * at_once
        self._engine.__enter__()

    def submit(self, talk: Conversation, sampling: Sampling) -> Ticket:
        """Take a question; where the answer may be longer than what is left beside the question, it ends there.

        Toolkits allow thousands of tokens where a word is expected, so that an answer that ends by itself is the same;
        that the limit is lower is said once.

        Raises:
            ImageError: for a picture that cannot be read.
            PromptError: for a conversation that cannot be rendered.
        """
        limit = self.vlm.model.config.image.max_pixels
        pictures = [image if isinstance(image, EncodedImage) else open_image(image, limit) for image in talk.images]
        fitted = fit(sampling, self._engine, talk, [picture.size for picture in pictures])
        if fitted != sampling:
            warnings.warn(
                f"an answer may take {sampling.max_new_tokens} tokens, but a question and its answer have "
                f"{self._engine.report()['length']} together: longer answers end there",
                SaccadeWarning,
                stacklevel=2,
            )
        return self._engine.submit(replace(talk, images=tuple(pictures)), fitted)

    def answers(self, asked: Iterable[tuple[Conversation, Sampling]]) -> Iterator[Answer]:
        """Yield the answers in the order of the questions, which are taken from `asked` little by little."""
        waiting: deque[Ticket] = deque()
        for talk, sampling in asked:
            waiting.append(self.submit(talk, sampling))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """Answer what was taken, then stop."""
        self._engine.close()
