"""What of a value may be in a log: no control characters, no whole phone numbers, no more than a glance at it.

Much of what is logged was said by strangers: callers, models, whoever connects. A terminal obeys escape
sequences, a newline begins what looks like another line, and logs go where records of calls do not. Pure.
"""

import re
from typing import Any, Final

MOST_CHARACTERS: Final = 2_000
"""Of one text: a sentence of a provider, not a record."""
MOST_TRACEBACK: Final = 20_000
MOST_ITEMS: Final = 50
_DEEPEST: Final = 4
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, turns a line round or is none: C0, DEL, C1, separators, bidi controls, surrogates."""
_CONTROL_IN_LINES: Final = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_NUMBER: Final = re.compile(
    # With a plus sign, plain or as in a URL; or 8 to 19 digits that are not a date, part of a word, of a SID, of
    # an address or of a fraction.
    r"(?:\+|%2B)\s?[1-9](?:[ ().\-]{0,2}\d){5,15}"
    r"|(?<![\w.\-:])\(?(?!\d{4}-\d\d-\d\d(?!\d))\d(?:[ ()\-]{0,2}\d){7,18}(?![\w\-:]|\.\d)",
    re.IGNORECASE,
)
_ALL_BUT_TWO: Final = re.compile(r"(?<!%)\d(?=(?:\D*\d){2})")


def tidy(value: Any, *, show_numbers: bool = False, depth: int = 0) -> Any:
    """``value`` as a log may have it; what is neither text, number nor collection becomes its ``repr``."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth < _DEEPEST:
        items = list(value.items())[:MOST_ITEMS]
        return {
            tidy_text(str(name), show_numbers=show_numbers): tidy(
                part, show_numbers=show_numbers, depth=depth + 1
            )
            for name, part in items
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [tidy(part, show_numbers=show_numbers, depth=depth + 1) for part in list(value)[:MOST_ITEMS]]
    return tidy_text(str(value) if isinstance(value, str) else repr(value), show_numbers=show_numbers)


def tidy_text(text: str, *, show_numbers: bool = False) -> str:
    """One line of it."""
    text = _CONTROL.sub(_escaped, _cut(text, MOST_CHARACTERS))
    return text if show_numbers else mask_numbers(text)


def tidy_traceback(text: str, *, show_numbers: bool = False) -> str:
    """Its lines, each indented: what an error quotes cannot look like a line of the log."""
    text = _CONTROL_IN_LINES.sub(_escaped, _cut(text, MOST_TRACEBACK))
    text = "\n".join(f"  {line}" for line in text.split("\n"))
    return text if show_numbers else mask_numbers(text)


def mask_numbers(text: str) -> str:
    """``text`` with the phone numbers in it masked, and what looks like one: all digits but the last two."""
    return _NUMBER.sub(lambda found: _ALL_BUT_TWO.sub("*", found[0]), text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more)"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what has two hex digits
