"""What an answer of one's own is worth: rewards that need no judge (Flash-VL, Sec. 4.7)."""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
# A hyphen between two words or numbers is no sign.
_NUMBER = re.compile(rf"(?P<sign>(?<![\w)])-)?(?P<value>{_DIGITS})(?:\s*/\s*(?P<divisor>\d+(?:\.\d+)?)(?!\d))?")
# A solution that is a number may name its variable before it and a unit after it: `x = 12 cm`, `30^\circ`.
_MEASURE = re.compile(rf"[^\w.-]*(?:[A-Za-z]\s*=\s*)?{_NUMBER.pattern}\s*[\^{{}}\\°%]*[A-Za-z°²³]*\W*")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_DRESS = re.compile(r"\\text\s*\{([^{}]*)\}|\\[,;! ]|\\left|\\right|\$")
_FORM = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
LONGEST = 4000  # characters of a number; Python refuses one of more than 4300 digits
_ARTICLE = re.compile(r"^(?:a|an|the) ")


def verified(said: str, solution: str) -> float:
    r"""Return 1 where an answer is the solution, else 0.

    Of both, what counts is the content of the last `<answer>` tags or `\boxed{}`, where there is any. A solution that
    is a number is compared by value with the last number that is said (`1,200`, `-3.50`, `3/4`, `\frac{3}{4}`; no unit
    is read); any other by its text, whatever the case, the blanks and the marks around it.
    """
    given, wanted = _final(said), _final(solution)
    measure = _MEASURE.fullmatch(wanted)
    if measure is None:
        return float(_plain(given) == _plain(wanted))
    numbers = [value for match in _NUMBER.finditer(given) if (value := _value(match)) is not None]
    return float(bool(numbers) and numbers[-1] == _value(measure))


def formatted(said: str, _: str) -> float:
    """Return 1 for thoughts in `<think>` tags and an answer in `<answer>` tags after them, nothing more; else 0."""
    form = _FORM.fullmatch(said)
    return float(form is not None and not any("<" in part for part in form.groups()))


REWARDS: dict[str, Callable[[str, str], float]] = {"verified": verified, "format": formatted}


def _final(text: str) -> str:
    """Return the part of an answer that counts, fractions written with a slash and LaTeX's dress taken off."""
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/")  # noqa: RUF001 (other signs for the same)
    for marked in (_TAGGED, _BOXED):
        text = (marked.findall(text) or [text])[-1]
    return _DRESS.sub(lambda found: found[1] or "", _FRACTION.sub(r"\1/\2", text)).strip()


def _value(match: re.Match[str]) -> Fraction | None:
    """Return what a number is; None where it is divided by zero, or longer than Python reads."""
    if len(match[0]) > LONGEST:
        return None
    value, divisor = Fraction(match["value"].replace(",", "")), Fraction(match["divisor"] or 1)
    return None if divisor == 0 else (-value if match["sign"] else value) / divisor


def _plain(text: str) -> str:
    """Return a text without case, article, surrounding marks and repeated blanks."""
    words = re.sub(r"\s+", " ", text.casefold()).strip(" .,:;!?\"'()[]*`")
    return _ARTICLE.sub("", words)
