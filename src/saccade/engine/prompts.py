"""A prompt on its way into a slot: its tokens, its pictures, and the places up to which it can be reused."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from saccade.prompt.encode import Encoded
from saccade.roles import IMAGE, instruction_role, is_query, query_role


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture that tower, compressor and projector have seen.

    Attributes:
        key: Equal for pictures that look equal to the tower.
        patches: Raw patches `[views, patches, vision_dim]`, which query tokens read.
        tokens: Visual tokens `[views, tokens, text_dim]`.
    """

    key: str
    patches: torch.Tensor
    tokens: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Visual tokens of all its views."""
        return self.tokens.shape[0] * self.tokens.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes it takes."""
        return self.patches.nbytes + self.tokens.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A tokenized prompt with its pictures in order.

    Attributes:
        ids: Token ids.
        roles: What each token is, see `saccade.roles`.
        pictures: Every picture the prompt shows.
    """

    ids: list[int]
    roles: list[int]
    pictures: tuple[Seen, ...]

    @classmethod
    def of(cls, encoded: Encoded, pictures: Sequence[Seen]) -> "Prompt":
        """Join what was tokenized with what was seen."""
        return cls(encoded.input_ids, encoded.roles, tuple(pictures))

    def __len__(self) -> int:
        return len(self.ids)

    def image_tokens(self, start: int = 0, end: int | None = None) -> int:
        """Visual tokens from `start` to `end`."""
        return self.roles[start:end].count(IMAGE)

    def reusable(self, opening: Sequence[int] = ()) -> list[int]:
        """Lengths of the beginnings worth keeping, longest first: to the end of each picture, and the opening.

        A beginning can be reused where no query token after it reads an instruction inside it: such a token needs the
        hidden states of the instruction, and a cache holds keys and values only.

        Args:
            opening: Token ids that all prompts begin with, but for what the next character may change in the last.
        """
        shared = next((n for n, pair in enumerate(zip(self.ids, opening, strict=False)) if pair[0] != pair[1]), None)
        ends = {*self._picture_ends(), min(len(opening), len(self)) if shared is None else shared}
        spans = self._query_spans()
        return [n for n in sorted(ends, reverse=True) if 0 < n < len(self) and not any(a < n <= b for a, b in spans)]

    def key(self, length: int) -> str:
        """Hash the beginning of this length: its tokens, their roles, and the pictures that stand in it whole."""
        pictures = sum(end <= length for end in self._picture_ends())
        digest = hashlib.sha256(np.array([self.ids[:length], self.roles[:length]]).tobytes())
        for picture in self.pictures[:pictures]:
            digest.update(picture.key.encode())
        return digest.hexdigest()

    def _picture_ends(self) -> list[int]:
        """The place after the last visual token of each picture."""
        places = [place for place, role in enumerate(self.roles) if role == IMAGE]
        ends, taken = [], 0
        for picture in self.pictures:
            taken += picture.num_tokens
            ends.append(places[taken - 1] + 1)
        return ends

    def _query_spans(self) -> list[tuple[int, int]]:
        """For each query set, the places of the first token it reads and of its own last token."""
        spans, turn = [], 0
        last = {role: place for place, role in enumerate(self.roles) if is_query(role)}
        while query_role(turn) in last:
            read = instruction_role(turn)
            if read in self.roles:
                spans.append((self.roles.index(read), last[query_role(turn)]))
            turn += 1
        return spans
