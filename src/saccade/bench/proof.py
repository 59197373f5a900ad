"""Whether a way of running a decoder gives the answers of the decoder: a wrong answer has no speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional as F

from saccade.bench.rounds import significant
from saccade.bench.speakers import Speaker
from saccade.engine.cpu.mode import LowPrecisionWeights
from saccade.errors import EngineError

# Logits may lie so many times as far from those in float32 as those of the plain model in its own dtype do. With random
# weights a wrong frequency of the positions or a token left out moves them little more: a fixed bound let that pass.
ROUNDINGS = 2.0
# But never farther than the second of these, relative to their length, and always as far as the first.
DISTANCES = (1e-3, 0.1)
# How far a token of an answer may be behind the best one, in standard deviations of the logits; one by chance is some
# three behind.
SHORTFALL = {torch.float32: 1e-2, torch.bfloat16: 0.5}


class Judge:
    """Compares answers with those of a model in float32; bfloat16 weights are widened block by block, not copied.

    Args:
        model: The model, on a CPU, in float32 or bfloat16.
        ids: The prompt.

    Attributes:
        allowed: How far logits may lie from those in float32, relative to their length.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self._model, self._ids = model, list(ids)
        self._after = self._logits(self._ids, 1)[0]
        least, most = DISTANCES
        self.allowed = min(most, max(least, ROUNDINGS * self._distance(self._logits(self._ids, 1, widened=False)[0])))
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def judge(self, speaker: Speaker, new_tokens: int) -> dict[str, Any]:
        """Compare a speaker's logits after the prompt, and each token of its answer.

        Returns:
            `distance`, of the logits, relative to their length, and what is `allowed`; `cosine`; `same_token`, whether
            the best token after the prompt is the same; `shortfall`, how far the worst token of the answer is behind
            the best one in its place, in standard deviations of the logits there.

        Raises:
            EngineError: when the answer is wrong.
        """
        found, true = speaker.logits(self._ids).cpu(), self._after
        distance = self._distance(found)
        told = {
            "distance": significant(distance, 3),
            "allowed": significant(self.allowed, 3),
            "cosine": significant(float(F.cosine_similarity(found, true, dim=0))),
            "same_token": bool(found.argmax() == true.argmax()),
            "shortfall": significant(self._shortfall(speaker.answer(self._ids, new_tokens).tokens), 3),
        }
        kind = self._model.dtype
        # Written so that a number that is none is wrong, too.
        if not (distance <= self.allowed and told["shortfall"] <= SHORTFALL[kind]):
            raise EngineError(
                f"{speaker.name} answers otherwise than the model does, so its speed is not told: logits differ by "
                f"{told['distance']} of their length, at most {told['allowed']} is allowed, and a token is "
                f"{told['shortfall']} standard deviations behind the best, at most {SHORTFALL[kind]} are"
            )
        return told

    def _distance(self, logits: torch.Tensor) -> float:
        return float((logits - self._after).norm() / self._after.norm())

    def _shortfall(self, tokens: tuple[int, ...]) -> float:
        if not all(0 <= token < len(self._after) for token in tokens):
            return math.inf  # what the engine says of numbers that are not finite is no id
        if tokens not in self._known:
            self._known[tokens] = self._logits([*self._ids, *tokens[:-1]], len(tokens))
        logits = self._known[tokens]
        # Placeholders, which the engine never says, are nobody's best token.
        silent = logits.clone()
        silent[:, self._model.config.placeholder_ids] = -torch.inf
        said = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        return float(((silent.amax(dim=1) - said).clamp(min=0) / logits.std(dim=1)).max())

    def _logits(self, ids: list[int], keep: int, *, widened: bool = True) -> torch.Tensor:
        """Return the logits after the last `keep` tokens, `[keep, vocab]`, in float32 or as the model rounds."""
        # Without the kernel, which is among what is judged.
        widening = LowPrecisionWeights(kernel=False)
        mode = widening if widened and self._model.dtype == torch.bfloat16 else nullcontext()
        with torch.inference_mode(), mode:
            outputs = self._model(input_ids=torch.tensor([ids]), logits_to_keep=keep, use_cache=False)
        found: torch.Tensor = outputs.logits[0].float()
        return found
