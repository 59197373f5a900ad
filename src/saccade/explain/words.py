"""Tokens merged to words, which is what people read."""

from collections.abc import Sequence
from typing import Any


def group_words(ids: Sequence[int], tokenizer: Any) -> tuple[tuple[str, ...], list[int]]:
    """Split the text of `ids` into words at its blanks and say which token belongs to which.

    A token belongs to the word that holds its last character, and a blank to the word before it.

    Args:
        ids: Token ids of a piece of text.
        tokenizer: What they were made with.

    Returns:
        The words, at least one, and for every token the index of its word.
    """

    def decode(some: Sequence[int]) -> str:
        text: str = tokenizer.decode(some, clean_up_tokenization_spaces=False)
        return text

    text = decode(ids)
    words = tuple(text.split()) or (text,)
    # The bytes of one character may be spread over tokens; decoded in part they can look like a word of their own.
    counts = (len(decode(ids[: n + 1]).split()) for n in range(len(ids)))
    return words, [min(max(count, 1), len(words)) - 1 for count in counts]
