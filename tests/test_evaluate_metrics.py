"""The rules that answers are scored by, on examples that were worked out by hand."""

import pytest

from saccade.evaluate.letters import leading_letter, mentioned_letter, plain_letter, stated_letter
from saccade.evaluate.metrics import (
    anls,
    contains,
    exact_match,
    leading_yes_no,
    levenshtein,
    normalize_answer,
    relaxed_accuracy,
    spoken_yes_no,
    vqa_accuracy,
    whole_yes_no,
    yes_no_scores,
)

OPTIONS = {"A": "red car", "B": "blue", "C": "cat", "D": "dog"}


@pytest.mark.parametrize(
    ("said", "expected", "loose", "strict"),
    [
        (" Left ", "left", 1, 1),
        ("left.", "left", 1, 0),  # a period counts only where punctuation does
        ("t-shirt", "t shirt", 0, 0),  # the hyphen goes, the blank stays: "tshirt" is not "t shirt"
        ("right", "left", 0, 0),
    ],
)
def test_exact_match(said: str, expected: str, loose: int, strict: int) -> None:
    assert exact_match(said, expected) == loose
    assert exact_match(said, expected, punctuation=True) == strict


@pytest.mark.parametrize(
    ("said", "as_server", "as_kit"),
    [
        ("The Red car", "red car", "red car"),  # articles go
        ("two", "2", "2"),
        ("dont", "don't", "don't"),
        ("1,500", "1500", "1500"),  # the server drops every comma first; the kit the comma inside a number
        ("a/b", "b", "b"),  # no blank beside the slash: it becomes one, and "a" is an article
        ("dog's", "dog 's", "dog's"),
        ("5.", "5", "5."),  # the server keeps a period before a digit only, the kit one behind a digit too
        ("3.5", "3.5", "3.5"),
        ("yes\nsir", "yes sir", "yes sir"),
    ],
)
def test_answers_are_normalized(said: str, as_server: str, as_kit: str) -> None:
    assert normalize_answer(said) == as_server
    assert normalize_answer(said, first_words=False) == as_kit


def test_vqa_accuracy_averages_over_the_people_left_out() -> None:
    # Two of ten said stop. Leave one of them out: one other, 1/3. Leave one of the eight out: two others, 2/3.
    # (2 * 1/3 + 8 * 2/3) / 10 = 0.6
    assert vqa_accuracy("Stop.", ["stop"] * 2 + ["go"] * 8) == pytest.approx(0.6)
    # Three of ten: 3 * 2/3 + 7 * 1 = 9 of 10.
    assert vqa_accuracy("stop", ["stop"] * 3 + ["go"] * 7) == pytest.approx(0.9)
    assert vqa_accuracy("stop", ["stop"] * 4 + ["go"] * 6) == 1
    assert vqa_accuracy("wait", ["stop"] * 4 + ["go"] * 6) == 0


@pytest.mark.parametrize(
    ("said", "expected", "score"),
    [
        ("105", "100", 1),  # 5 % off
        ("106", "100", 0),
        ("95 ", "100", 1),
        ("-95", "-100", 1),
        ("50%", "0.5", 1),  # a percentage is a hundredth
        ("50", "50%", 0),  # 50 is not 0.5
        ("0.0", "0", 0),  # an expected 0 is compared as text
        ("0", "0", 1),
        ("1,000", "1000", 0),  # a comma makes it text
        ("Blue", "blue", 1),
        ("light blue", "blue", 0),
    ],
)
def test_relaxed_accuracy(said: str, expected: str, score: int) -> None:
    assert relaxed_accuracy(said, expected) == score


def test_levenshtein() -> None:
    assert levenshtein("kitten", "sitting") == 3  # k to s, e to i, and a g
    assert levenshtein("", "abc") == levenshtein("abc", "") == 3
    assert levenshtein("same", "same") == 0


def test_anls() -> None:
    assert anls("1969", ["1968"]) == pytest.approx(0.75)  # one of four characters
    assert anls("Hello  World ", ["hello world"]) == 1  # cased and spaced alike, nothing to edit
    assert anls("abcd", ["xycd", "abxx"]) == pytest.approx(0.5)  # the nearest counts; 0.5 is not below the threshold
    assert anls("abcd", ["xyzd"]) == 0  # 0.25 is
    assert anls("ab", ["a  b"]) == pytest.approx(0.75)  # "ab" to "a b" is one edit, divided by the four of "a  b"


def test_contains() -> None:
    assert contains("It says CENTRE here", ["centre"]) == 1
    assert contains("center", ["centre"]) == 0
    assert contains("one\ntwo", ["one two"]) == 1
    assert contains(r"\frac { a } { b }", [r"\frac{a}{b}"], is_formula=True) == 1
    assert contains("X", ["x"], is_formula=True) == 0  # formulas keep their case
    assert contains("\uff21\uff22", ["ab"], full_width=True) == 1
    assert contains("\uff21\uff22", ["ab"]) == 0


@pytest.mark.parametrize(
    ("said", "whole", "leading", "spoken"),
    [
        ("Yes", "yes", "yes", "yes"),
        (" no ", "no", "no", "no"),
        ("Yes.", "other", "yes", "yes"),
        ("no, it is not", "other", "no", "no"),
        ("y", "other", "yes", "other"),
        ("I see no dog", "other", "other", "no"),  # "I se" holds neither
        ("nose", "other", "no", "other"),  # a quirk: it begins with "no"
        ("yes and no", "other", "yes", "other"),
        ("", "other", "other", "other"),
    ],
)
def test_yes_or_no(said: str, whole: str, leading: str, spoken: str) -> None:
    assert (whole_yes_no(said), leading_yes_no(said), spoken_yes_no(said)) == (whole, leading, spoken)


def test_scores_of_yes_and_no() -> None:
    # Of three to say yes to: one hit, one miss, one neither. Of two to say no to: one alarm, one right.
    labels = ["yes", "yes", "yes", "no", "no"]
    parsed = ["yes", "no", "other", "yes", "no"]
    scores = yes_no_scores(labels, parsed, other_is_no=False)
    assert scores == {
        "accuracy": pytest.approx(2 / 5),
        "precision": pytest.approx(1 / 2),
        "recall": pytest.approx(1 / 2),  # 1 of the 2 that were answered
        "f1": pytest.approx(1 / 2),
        "yes_ratio": pytest.approx(2 / 5),
    }
    counted = yes_no_scores(labels, parsed, other_is_no=True)
    assert counted["recall"] == pytest.approx(1 / 3)
    assert counted["f1"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (5 / 6))  # 0.4
    assert yes_no_scores(["yes"], ["other"], other_is_no=True)["f1"] == 0


@pytest.mark.parametrize(
    ("said", "plain", "leading", "stated", "mentioned"),
    [
        ("B", "B", "B", "B", "B"),
        ("b", "B", "B", "", ""),
        ("B. blue", "B", "B", "B", "B"),
        ("(B)", "", "B", "B", "B"),
        ("The answer is B", "", "", "B", "B"),
        # Two letters, so the option: 38 characters are more than twice the 17 of all options.
        ("The answer is B because A is a red car", "", "", "A", ""),
        ("It is blue", "", "", "B", "B"),
        ("a cat or a dog", "", "", "", ""),  # two options
        ("A cat", "", "", "A", "A"),  # three words or fewer: the letter
        ("A cat sits there now", "", "", "C", "C"),  # more: an article, so the option
        ("Cannot determine the answer", "", "", "C", ""),  # a quirk: any capital, where there is nothing better
        ("My answer is B/C/x", "", "", "C", ""),  # a quirk: behind the phrase, the last letter
        ("", "", "", "", ""),
    ],
)
def test_letters(said: str, plain: str, leading: str, stated: str, mentioned: str) -> None:
    found = [find(said, OPTIONS) for find in (plain_letter, leading_letter, stated_letter, mentioned_letter)]
    assert found == [plain, leading, stated, mentioned]
