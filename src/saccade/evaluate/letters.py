"""Which of the lettered options an answer chooses, by the rules of the tools; empty where it chooses none.

Every rule is that of lmms-eval 0.7.3 or VLMEvalKit 0.0.20 without a model that judges, quirks included.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from itertools import product

Options = Mapping[str, str]

_LEADING = re.compile(r"\s*([A-Z])\.")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FIRST_FIVE = "ABCDE"
_FIRST_FOUR = "ABCD"
# What may stand around a letter that is a word of its own, in the order of trust.
_AROUND = (
    ("", ""), ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."), (":", ""), (":", ","),
    (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip
# Forms of a letter within an answer and how far each is trusted; a whole answer, its end and a phrase lie between.
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0
_PHRASES = (
    *(
        f"{article}{what} is"
        for article, what in product(
            ("the ", ""),
            ("answer", "correct answer", "best answer", "correct option", "best option", "choice", "correct choice"),
        )
    ),
    "i choose", "i select", "i pick", "my answer is", "my choice is",
    "\uc635\uc158", "\uc815\ub2f5\uc740", "\ub2f5\uc740", "\ub2f5:",  # Korean: option, the answer is, answer:
    "\u7b54\u6848\u662f", "\u7b54\u6848\u4e3a", "\u9009",  # Chinese: the answer is, the answer is, choose
    "\u7b54\u3048\u306f",  # Japanese: the answer is
)  # fmt: skip
_REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NONE = "Z"  # the letter by which VLMEvalKit calls no option
_LAST_WORDS = 4


def plain_letter(said: str, options: Options) -> str:
    """Return a letter that is the whole answer, or a capital with a period that begins it (ScienceQA, lmms-eval)."""
    said = said.strip()
    if len(said) == 1:
        return said.upper()
    return said[0] if said[1:2] == "." and said[0].isupper() else ""


def leading_letter(said: str, options: Options) -> str:
    """Return a capital with a period that begins the answer, or one that is all but punctuation (AI2D, lmms-eval)."""
    if found := _LEADING.match(said):
        return found[1]
    bare = said.strip().translate(_PUNCTUATION).upper()
    return bare if len(bare) == 1 else ""


def stated_letter(said: str, options: Options) -> str:
    """Return the letter, else the option, else the likeliest letter of an answer (MMBench, lmms-eval's static judging).

    Quirks of the tool: five letters are looked for, however many options there are; the text of an option counts where
    it stands inside of another word, and only of the first four.
    """
    said = said.strip()
    four = {letter: text for letter, text in options.items() if letter in _FIRST_FOUR}
    return _lone_letter(said) or _lone_option(said, four) or _likeliest_letter(said, sorted(four))


def mentioned_letter(said: str, options: Options) -> str:
    """Return the letter among the last words, else the option, that an answer mentions (VLMEvalKit).

    A lone letter counts where it is the only one and first comes among the last four words; the text of an option,
    where the answer is at most twice as long as all options and holds no other.
    """
    if any(refusal in said for refusal in _REFUSALS):
        return ""
    words = said.translate(_BLANKS).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - _LAST_WORDS:
        return found[0]
    if not found and _NONE in words:
        return ""
    return _lone_option(said, options) if len(said) <= 2 * sum(map(len, options.values())) else ""


def _lone_letter(said: str) -> str:
    """Return the letter that stands alone as a word, where only one does; "A" in a sentence may be an article."""
    words = said.split()
    for before, behind in _AROUND:
        found = [letter for letter in _FIRST_FIVE if before + letter + behind in words]
        is_article = not before + behind and "A" in words and len(words) > 3
        if len(found) == 1 and not is_article:
            return found[0]
    return ""


def _lone_option(said: str, options: Options) -> str:
    found = [letter for letter, text in options.items() if text.lower() in said.lower()]
    return found[0] if len(found) == 1 else ""


def _likeliest_letter(said: str, letters: list[str]) -> str:
    """Return the letter in the most trusted form, of several in the same form the last."""
    text = said
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    bare, text = text.strip(), f" {text} "
    found: list[tuple[int, int, str]] = []
    for letter in letters:
        found += [
            (trust, text.rfind(form.format(letter)), letter) for form, trust in _FORMS if form.format(letter) in text
        ]
        found += [(_PHRASE, place, letter) for place in _behind_phrases(text, letter)]
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((_START, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((_END, len(text), letter))
    found = found or [(_ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda form: form[:2])[2] if found else ""


def _behind_phrases(text: str, letter: str) -> list[int]:
    lower = text.lower()
    starts = [(lower.find(phrase), len(phrase)) for phrase in _PHRASES]
    places = [text.find(letter, start + length) for start, length in starts if start != -1]
    return [place for place in places if place != -1]
