"""What an answer is worth, by the rules that the public sets are scored with.

The rules are those of lmms-eval 0.7.3 and, where it judges otherwise, of VLMEvalKit 0.0.20, quirks included: a score
can be compared only with one that was counted the same way. Each quirk is named where it is. How a choice among
lettered options is found in an answer is in `letters`.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

YesNo = Literal["yes", "no", "other"]

CONTRACTIONS = Path(__file__).parent / "contractions.json"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
# The evaluation of VQA treats these as marks; a period and an apostrophe are not among them.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_PERIOD_BESIDE_NO_DIGIT = re.compile(r"(?<!\d)\.(?!\d)")


def exact_match(said: str, expected: str, *, punctuation: bool = False) -> float:
    """Return 1 where two answers are the same but for case and blanks around them, else 0.

    Args:
        said: The answer.
        expected: The published one.
        punctuation: Whether punctuation counts. lmms-eval leaves it out, VLMEvalKit does not.
    """
    said, expected = said.strip().lower(), expected.lower()
    if punctuation:
        return float(said == expected.strip())
    return float(said.translate(_PUNCTUATION) == expected.translate(_PUNCTUATION))


@cache
def _contractions() -> dict[str, str]:
    held: dict[str, str] = json.loads(CONTRACTIONS.read_text(encoding="utf-8"))
    return held


def _without_marks(text: str, period: re.Pattern[str]) -> str:
    """Take marks away where a blank stands beside one of them or a comma inside a number, else make them blanks."""
    has_comma = _COMMA_IN_NUMBER.search(text) is not None
    bare = text
    for mark in _MARKS:
        is_apart = mark + " " in text or " " + mark in text
        bare = bare.replace(mark, "" if is_apart or has_comma else " ")
    return period.sub("", bare)


def normalize_answer(text: str, *, first_words: bool = True) -> str:
    """Return an answer in the form in which the evaluation of VQA compares answers.

    Lower case, without articles and most punctuation, numbers up to ten as digits, contractions with their apostrophe.

    Args:
        text: The answer.
        first_words: Whether commas, question marks and possessives are taken apart first, as the servers of the
            challenge and lmms-eval do. VLMEvalKit does not, and keeps a period behind a digit.
    """
    period = _PERIOD_BESIDE_NO_DIGIT
    if first_words:
        text, period = text.lower().replace(",", "").replace("?", "").replace("'s", " 's"), _PERIOD_BEFORE_NO_DIGIT
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    words = [_NUMBERS.get(word, word) for word in _without_marks(text, period).lower().split()]
    return " ".join(_contractions().get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(said: str, answers: Sequence[str], *, first_words: bool = True) -> float:
    """Return the accuracy of an answer against those of several people.

    The mean over the people, each left out in turn, of how many of the others said the same, three being enough for 1
    (VQA, arXiv 1505.00468; its evaluation averages over the subsets of nine out of ten people).

    Args:
        said: The answer.
        answers: Theirs, ten as published.
        first_words: See `normalize_answer`.
    """
    given = normalize_answer(said, first_words=first_words)
    same = [normalize_answer(answer, first_words=first_words) == given for answer in answers]
    return sum(min(1.0, (sum(same) - own) / 3) for own in same) / len(same)


def relaxed_accuracy(said: str, expected: str, tolerance: float = 0.05) -> float:
    """Return 1 where a number is as near to the expected one as `tolerance` allows, or text the same but for case.

    ChartQA, arXiv 2203.10244, section 5.1. Quirks of the tools: an expected 0 is compared as text, and so is a number
    with a comma or a unit; a percentage is a hundredth, so that 50 is not 50%.
    """
    said = said.strip()
    given, wanted = _number(said), _number(expected)
    if given is not None and wanted:
        return float(abs(given - wanted) / abs(wanted) <= tolerance)
    return float(said.lower() == expected.lower())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(said: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Return the normalized Levenshtein similarity to the nearest accepted answer, 0 where it is below `threshold`.

    DocVQA, arXiv 2007.00398, section 5. A quirk of the tools: texts are compared in lower case and with single blanks,
    but divided by the length they had before.
    """
    said = said.strip()
    similarity = 1 - min(_distance(answer, said) for answer in answers)
    return similarity if similarity >= threshold else 0.0


def _distance(expected: str, said: str) -> float:
    length = max(len(expected), len(said))
    return levenshtein(*(" ".join(text.lower().split()) for text in (expected, said))) / length if length else 0.0


def levenshtein(one: str, other: str) -> int:
    """Return the least number of characters to insert, delete or replace that makes one text the other."""
    above = list(range(len(other) + 1))
    for row, character in enumerate(one, 1):
        here = [row]
        for column, other_character in enumerate(other, 1):
            replaced = above[column - 1] + (character != other_character)
            here.append(min(replaced, above[column] + 1, here[-1] + 1))
        above = here
    return above[-1]


def contains(said: str, answers: Sequence[str], *, is_formula: bool = False, full_width: bool = False) -> float:
    """Return 1 where an accepted answer stands anywhere in what was said, else 0.

    OCRBench, arXiv 2305.07895, section 3: in lower case, and for formulas without any blank but in the case they have.

    Args:
        said: The answer.
        answers: The accepted ones.
        is_formula: Whether they are formulas.
        full_width: Whether the full-width forms of ASCII count as ASCII, as in lmms-eval but not in VLMEvalKit.
    """

    def plain(text: str) -> str:
        if is_formula:
            return text.strip().replace("\n", " ").replace(" ", "")
        return (text.translate(_FULL_WIDTH) if full_width else text).lower().strip().replace("\n", " ")

    return float(any(plain(answer) in plain(said) for answer in answers))


def whole_yes_no(said: str) -> YesNo:
    """Return yes or no where the answer is that word and nothing else, as lmms-eval judges POPE: "Yes." is neither."""
    word = said.strip().lower()
    return "yes" if word == "yes" else "no" if word == "no" else "other"


def leading_yes_no(said: str) -> YesNo:
    """Return the yes or no within the first four characters, as lmms-eval judges MME.

    A lone y or n counts; periods do not. Quirks of the tool: "yes" is looked for first, and inside of words, so that
    "nose" and "none" are no.
    """
    text = said.lower().strip().replace(".", "")
    start = {"y": "yes", "n": "no"}.get(text, text[:4])
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def spoken_yes_no(said: str) -> YesNo:
    """Return yes or no where the answer holds one of the two words and not the other, as VLMEvalKit judges."""
    words = _without_marks(said.lower(), _PERIOD_BESIDE_NO_DIGIT).split()
    if ("yes" in words) == ("no" in words):
        return "other"
    return "yes" if "yes" in words else "no"


def yes_no_scores(labels: Sequence[YesNo], parsed: Sequence[YesNo], *, other_is_no: bool) -> dict[str, float]:
    """Return accuracy, precision, recall and F1 of "yes", and the share of answers that are yes.

    POPE, arXiv 2305.10355, section 4.2. `yes_ratio` is that of the answers, as there; what lmms-eval prints by that
    name is the share of labels that are yes, which no model can change.

    Args:
        labels: The published answers.
        parsed: What was said.
        other_is_no: Whether an answer that is neither misses a "yes", as in VLMEvalKit; lmms-eval leaves it out of the
            recall, though not of the accuracy.
    """
    pairs = list(zip(labels, parsed, strict=True))
    hits = pairs.count(("yes", "yes"))
    alarms = pairs.count(("no", "yes"))
    misses = pairs.count(("yes", "no")) + other_is_no * pairs.count(("yes", "other"))
    precision = hits / (hits + alarms) if hits + alarms else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    return {
        "accuracy": sum(label == said for label, said in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": sum(said == "yes" for said in parsed) / len(pairs),
    }
