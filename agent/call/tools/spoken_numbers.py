"""Did the caller say this telephone number? Pure.

What is said is a transcript: digits in any script, or their names in English and Hebrew.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

import phonenumbers

_NAMES: Final = (
    ("zero", "oh", "nought", "אפס"),
    ("one", "אחת", "אחד"),
    ("two", "שתיים", "שתים", "שניים"),
    ("three", "שלוש", "שלושה"),
    ("four", "ארבע", "ארבעה"),
    ("five", "חמש", "חמישה"),
    ("six", "שש", "שישה"),
    ("seven", "שבע", "שבעה"),
    ("eight", "שמונה"),
    ("nine", "תשע", "תשעה"),
)
_DIGITS: Final = {name: str(digit) for digit, names in enumerate(_NAMES) for name in names}
_TIMES: Final = {"double": 2, "triple": 3}
_WORD: Final = re.compile(r"\d|[^\W\d_]+")


def digits_said(text: str) -> str:
    """The digits in what was said, in order: ``oh five two, double seven`` is 05277."""
    digits, times = "", 1
    for word in _WORD.findall(text.lower()):
        digit = str(unicodedata.digit(word)) if word.isdecimal() else _DIGITS.get(word, "")
        digits += digit * times
        times = _TIMES.get(word, 1)
    return digits


def is_said(number: str, said: Iterable[str]) -> bool:
    """Whether ``number`` (E.164) was said, with or without its country code, in one turn or several."""
    national = str(phonenumbers.parse(number).national_number)
    return national in digits_said(" ".join(said))
