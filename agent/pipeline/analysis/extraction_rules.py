"""The English phrases that extraction by rules knows. Pure; every pattern is linear in the length of the text."""

import re
from collections.abc import Sequence
from typing import Final

from agent.pipeline.analysis.spoken_names import Slot, plain

_I: Final = re.IGNORECASE

_PHRASES: Final = {
    "wrong_number": r"\b(?:wrong number|misdialled|misdialed|dialled the wrong|dialed the wrong)\b",
    "complaint": (
        r"\b(?:complain(?:t|ing)?|unacceptable|terrible|awful|disgusted|ripped off|very unhappy|not (?:at all )?"
        r"(?:happy|satisfied) with|want (?:a|my) (?:refund|money back)|give me my money back|disappointed)\b"
    ),
    "booking": (
        r"\b(?:(?:make|book|schedule|have|get|need|want|like|arrange) (?:an?|another|my|the) "
        r"(?:\w+ ){0,2}(?:appointment|booking|reservation|visit)|(?:to|please) (?:book|schedule|reserve)"
        r"|appointment (?:for|on|at|tomorrow|today|next|please)|come in (?:for|on|at|tomorrow|today|next|this)"
        r"|(?:reschedule|move|change|rebook) (?:my|our|the|an?) (?:appointment|booking|visit))\b"
    ),
    "human": (
        r"\b(?:(?:speak|talk|connect me|put me through|transfer me) (?:to|with) (?:an?|the|some|your|any)? ?"
        r"(?:\w+ )?(?:human|person|somebody|someone|one|body|agent|manager|operator|representative|receptionist"
        r"|doctor|owner|staff)|real person|human being|transfer me|(?:an? |the )operator)\b"
    ),
    "question": (
        r"^\W*(?:so |and |well |hi |hello |yes )?,? ?(?:what|when|where|who|how|which|why|do you|does|are you"
        r"|is there|can you|could you|can i|could i)\b"
        r"|\b(?:i(?:'d like| would like| want|'m calling| am calling) to (?:ask|know|find out)|i have a question"
        r"|wondering (?:if|whether|what|how))\b"
    ),
    "not_interested": (
        r"\b(?:(?:not|no longer) interested|(?:don't|do not|never|stop) call(?:ing)?(?: me| us| here)?"
        r"(?: again| any ?more)?|take me off|remove (?:me|my number))\b"
    ),
    "customer": (
        r"\bi(?:'m| am|'ve been| have been) (?:already )?(?:an? )?(?:existing |regular |current |long-?time )?"
        r"(?:customer|client|patient|member)\b|\bi(?:'ve| have) been (?:coming to|with) you\b"
    ),
    "call_back": r"\b(?:call|ring|phone) (?:me|us) (?:back|later|tomorrow)\b|\breturn my call\b",
    "booked": (
        r"\b(?:(?:you(?:'re| are)|it(?:'s| is)|that(?:'s| is)|appointment is|have you|i(?:'ve| have)(?: you)?)"
        r"(?: all| now| been)? (?:booked|scheduled|confirmed|put (?:you )?down)"
        r"|your appointment (?:is|has been) (?:booked|scheduled|confirmed|set|made|on|for))\b"
    ),
}
_SAYS: Final = {name: re.compile(pattern, _I) for name, pattern in _PHRASES.items()}

_ENGLISH: Final = re.compile(
    r"\b(?:the|you|your|my|i|i'm|i'd|is|are|have|please|thanks|hello|and|of|to|it's|this|that|what|how|can|do)\b",
    _I,
)
_FEWEST_ENGLISH: Final = 2
_ASKS: Final[dict[Slot, re.Pattern[str]]] = {
    Slot.NAME: re.compile(
        r"\b(?:your (?:full |first |last )?name|who (?:am i|is) (?:speaking|calling)|name,? please)\b", _I
    ),
    Slot.CITY: re.compile(
        r"\b(?:(?:which|what|your) (?:city|town)|where (?:are you|do you live)|city,? please)\b", _I
    ),
}


def says(what: str, text: str) -> bool:
    """Whether ``text`` has one of the phrases of the kind ``what``."""
    return _SAYS[what].search(plain(text)) is not None


def is_english(lines: Sequence[str]) -> bool:
    """Whether ``lines`` together have a few of the words that English cannot do without."""
    found = {word.lower() for line in lines for word in _ENGLISH.findall(plain(line))}
    return len(found) >= _FEWEST_ENGLISH


def asked_for(text: str) -> Slot | None:
    """What the agent's words ask for last; None: neither."""
    found = [(match.end(), what) for what, pattern in _ASKS.items() for match in pattern.finditer(plain(text))]
    return max(found)[1] if found else None
