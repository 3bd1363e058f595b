"""The English phrases that extraction by rules knows. Pure; every pattern is linear in the length of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

_I: Final = re.IGNORECASE
_LONGEST_LINE: Final = 4000
"""More of one line is not looked at: nobody gives their name in the fifth minute of a monologue."""

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

_WORD: Final = r"[A-Z][\w'-]{1,30}"
_PARTICLE: Final = r"(?:(?:de|del|van|von|der|la|le|bin|ben|al|St\.|O') ?)"
_FULL_NAME: Final = rf"((?:(?:Dr|Mr|Mrs|Ms)\.? )?{_PARTICLE}{{0,2}}{_WORD}(?: {_PARTICLE}{{0,2}}{_WORD}){{0,3}})"
_PLACE: Final = rf"((?:St\. )?{_WORD}(?:[ -](?:(?:upon|on|de|la|del|of|sur)[ -]){{0,2}}{_WORD}){{0,2}})"
_NAME_SAID: Final = re.compile(
    rf"\b(?i:(?:my (?:full |first |last )?|the )name(?: is|'s)|name's|call me|i am called)[,:]? {_FULL_NAME}"
)
_NAME_SMALL: Final = re.compile(
    r"\b(?i:my (?:full |first )?name(?: is|'s))[,:]? ([a-z][a-z'-]{1,20}(?: [a-z][a-z'-]{1,20})?)"
    r"(?=[.,!?]|$| and )"
)
_NAME_LIKELY: Final = re.compile(
    rf"(?:^|[.,!?] )\W*(?i:(?:hello|hi|hey|yes|good (?:morning|afternoon|evening))[,.!]? )?"
    rf"(?i:this is|i'm|i am|it's|it is) {_FULL_NAME}(?= (?i:calling|speaking|here|from|and)\b|[.,!?]|$)"
)
_CITY_SAID: Final = re.compile(
    rf"\b(?i:(?:live|living) (?:in|near)|(?:i'm|i am|we're|we are)(?: calling| based| located)? (?:in|from)"
    rf"|calling (?:you )?from|(?:based|located) in|(?:my|our|the) (?:city|town) is|come from)"
    rf",? (?:(?i:the )?(?i:city|town) of )?{_PLACE}"
)
_CITY_AFTER_NAME: Final = re.compile(rf"\b{_WORD} from {_PLACE}(?=[.,!?]|$| (?i:and|calling|i)\b)")
_NOT_A_NAME: Final = re.compile(
    r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(?:January|February|March|April|May|June|July|August|September"
    r"|October|November|December|English|Sorry|Just|Not|Calling|Fine|Good|Great|Okay|Ok|Yes|No|Interested|Looking"
    r"|Here|Ready|Sure|The|And|From|Trying|Still|Also|Very|Thanks|Thank|Please|Well|Hello|Hi|That|This|What|AI"
    r"|Um|Uh|Him|Her|Them|You|It|Spelled|Important|Private|Actually|Christmas|Easter|Tomorrow|Today))",
    _I,
)
_ENGLISH: Final = re.compile(
    r"\b(?:the|you|your|my|i|i'm|i'd|is|are|have|please|thanks|hello|and|of|to|it's|this|that|what|how|can|do)\b",
    _I,
)
_FEWEST_ENGLISH: Final = 2
_QUESTION_OPENS: Final = re.compile(
    r"^\W*(?:what|when|where|who|how|which|why|do|does|is|are|can|could|would|will)\b", _I
)
_ASKS: Final[dict[Literal["name", "city"], re.Pattern[str]]] = {
    "name": re.compile(
        r"\b(?:your (?:full |first |last )?name|who (?:am i|is) (?:speaking|calling)|name,? please)\b", _I
    ),
    "city": re.compile(
        r"\b(?:(?:which|what|your) (?:city|town)|where (?:are you|do you live)|city,? please)\b", _I
    ),
}
_FILLER: Final = re.compile(
    r"^(?:(?:yes|yeah|sure|well|okay|ok|um+|uh+|oh|hi|hello|of course|it's|it is|that's|i'm|i am|in|from|near)"
    r"\b\W*)+",
    _I,
)
_BARE: Final = re.compile(rf"{_WORD}(?:[ -]{_PARTICLE}?{_WORD}){{0,3}}")
_SHORTEST_SERVICE: Final = 3


def says(what: str, text: str) -> bool:
    """Whether ``text`` has one of the phrases of the kind ``what``."""
    return _SAYS[what].search(_plain(text)) is not None


def is_english(lines: Sequence[str]) -> bool:
    """Whether ``lines`` together have a few of the words that English cannot do without."""
    found = {word.lower() for line in lines for word in _ENGLISH.findall(_plain(line))}
    return len(found) >= _FEWEST_ENGLISH


def asked_for(text: str) -> Literal["name", "city"] | None:
    """What the agent's words ask for last; None: neither."""
    found = [(match.end(), what) for what, pattern in _ASKS.items() for match in pattern.finditer(_plain(text))]
    return max(found)[1] if found else None


def find_name(text: str) -> str:
    """The name the speaker gives as their own."""
    plain = _plain(text)
    for pattern in (_NAME_SAID, _NAME_LIKELY):
        for match in pattern.finditer(plain):
            if name := _proper(match[1]):
                return name
    small = _NAME_SMALL.search(plain)
    if small and not any(_NOT_A_NAME.fullmatch(word) for word in small[1].split()):
        return small[1].title()
    return ""


def find_city(text: str) -> str:
    """The place the speaker says they are in or from."""
    plain = _plain(text)
    for pattern in (_CITY_SAID, _CITY_AFTER_NAME):
        for match in pattern.finditer(plain):
            if city := _proper(match[1]):
                return city
    return ""


def find_service(text: str, services: Sequence[str]) -> str:
    """The last of ``services`` that is named in ``text``, in any language; "check-up" and "check up" are one."""
    folded = f" {_folded(text)} "
    joined = folded.replace(" ", "")
    found = [
        (place, len(key), service)
        for service in services
        if len(key := _service_key(service)) >= _SHORTEST_SERVICE
        if (place := max(folded.rfind(f" {key} "), folded.rfind(f" {key}s "))) >= 0
        or (" " in key and (place := joined.rfind(key.replace(" ", ""))) >= 0)
        # Other scripts join words with prepositions, or do not divide them at all.
        or (not key.isascii() and (place := folded.rfind(key)) >= 0)
    ]
    return max(found)[2] if found else ""


def bare_answer(text: str) -> str:
    """The name or place in a short answer to a question for it, such as "It's Miller." or "Boston, please"."""
    plain = _plain(text)
    if _QUESTION_OPENS.match(plain):
        return ""
    answer = re.split(r"[.!?,]", _FILLER.sub("", plain), maxsplit=1)[0].strip()
    return _proper(answer) if _BARE.fullmatch(answer) else ""


def _proper(words: str) -> str:
    """``words`` up to the first that names neither people nor places; empty if that is the first."""
    kept: list[str] = []
    for word in words.split():
        if _NOT_A_NAME.fullmatch(word):
            break
        kept.append(word)
    return re.sub(r"'s?$", "", " ".join(kept))


def _plain(text: str) -> str:
    return text[:_LONGEST_LINE].replace("\u2019", "'").strip()


@lru_cache(1024)
def _service_key(service: str) -> str:
    return _folded(service)


def _folded(text: str) -> str:
    """Words in lower case without punctuation, divided by single spaces."""
    return " ".join(re.findall(r"\w+", text[:_LONGEST_LINE].casefold()))
