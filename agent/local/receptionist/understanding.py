"""What a caller's words mean: what is asked, what is wanted, which particulars they give. Pure, English only.

Written for what Whisper makes of telephone speech: it punctuates, and capitalises names of people and places.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final

import attrs

from agent.local.receptionist.business import Subject


class Slot(enum.StrEnum):
    """The particulars a receptionist asks for, in the order of asking."""

    NAME = "name"
    CITY = "city"
    SERVICE = "service"
    APPOINTMENT = "appointment"


class Intent(enum.StrEnum):
    """What the caller does with a sentence, besides asking about a subject."""

    GREETING = "greeting"
    GOODBYE = "goodbye"
    BOOKING = "booking"
    AFFIRM = "affirm"
    DENY = "deny"
    REPEAT = "repeat"
    HUMAN = "human"
    WHO = "who"


@attrs.frozen
class Meaning:
    """All that was found in one turn of the caller."""

    subjects: tuple[Subject, ...] = ()
    intents: frozenset[Intent] = frozenset()
    slots: dict[Slot, str] = attrs.field(factory=dict)


_I = re.IGNORECASE
_INTENTS: Final = {
    Intent.GOODBYE: re.compile(
        r"\bgood[- ]?bye\b|\bbye\b|\bsee you\b|\bthat(?:'s| is| will be|'ll be) (?:all|it)\b(?! (?:about|right))"
        r"|\bnothing (?:else|more)\b|\bhang up\b"
        r"|\bhave a (?:nice|good|great|lovely) (?:day|evening|one|weekend)\b",
        _I,
    ),
    Intent.GREETING: re.compile(r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening))\b", _I),
    Intent.BOOKING: re.compile(r"\b(?:appointment|book|booking|schedule|reserve|reservation|come in)\b", _I),
    Intent.AFFIRM: re.compile(r"^\W*(?:yes|yeah|yep|sure|okay|ok|correct|right|of course|please)\b", _I),
    Intent.DENY: re.compile(r"^\W*(?:no|nope|not really|no thanks)\b", _I),
    Intent.REPEAT: re.compile(
        r"\b(?:repeat|say (?:that|it) again|once more|come again|pardon|didn't (?:catch|hear|get))\b", _I
    ),
    Intent.HUMAN: re.compile(
        r"\b(?:(?:speak|talk) (?:to|with) (?:a|an|some|the) ?(?:human|person|one|body|agent|manager|operator)"
        r"|real person|human being|operator|transfer me)\b",
        _I,
    ),
    Intent.WHO: re.compile(
        r"\b(?:who (?:is this|are you|am i)|are you (?:a )?(?:robot|machine|human|real))\b", _I
    ),
}
_SUBJECTS: Final = {
    Subject.HOURS: re.compile(
        r"\b(?:(?:opening|business|office) (?:hours|times)|your hours|what (?:time|hours)|when (?:are|do) you"
        r"|(?:are|is) (?:you|it) open|open (?:on|today|tomorrow|at|until)|(?:do )?you (?:open|close))\b",
        _I,
    ),
    Subject.PRICES: re.compile(r"\b(?:how much|prices?|pricing|costs?|fees?|expensive|charge|rates)\b", _I),
    Subject.ADDRESS: re.compile(
        r"\b(?:address|where (?:are|is|can i find) (?:you|your|it|the)|located|location|directions|find you)\b",
        _I,
    ),
    Subject.SERVICES: re.compile(
        r"\b(?:what (?:services|treatments|do you (?:do|offer))|which services|services do you|do you offer)\b",
        _I,
    ),
    Subject.PHONE: re.compile(r"\byour (?:tele)?phone number\b", _I),
    Subject.PARKING: re.compile(r"\bpark(?:ing)?\b", _I),
    Subject.PAYMENT: re.compile(r"\b(?:payment|credit cards?|pay (?:by|with|in)|insurance|cash)\b", _I),
}

_DAY: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH: Final = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
_NUMBER: Final = (
    r"(?:\d{1,2}(?::\d{2})?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
    r"(?: (?:thirty|fifteen))?"
)
_DATE: Final = (
    rf"(?:(?:the )?day after tomorrow|today|tomorrow|tonight|(?:(?:this|next|on) )?{_DAY}s?|next week"
    rf"|(?:on )?(?:the )?\d{{1,2}}(?:st|nd|rd|th)(?: of {_MONTH})?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?)"
)
_CLOCK: Final = (
    rf"(?:(?:half past|quarter (?:past|to)) {_NUMBER}|{_NUMBER} ?(?:a\.?m\b\.?|p\.?m\b\.?|o'?clock)"
    rf"|(?:at|around|by) {_NUMBER}|(?:at )?(?:noon|midday)|(?:in the )?(?:early |late )?"
    r"(?:morning|afternoon|evening))"
)
_APPOINTMENT: Final = re.compile(
    rf"\b(?:{_DATE}(?:,? (?:at |around |in the )?{_CLOCK})*|{_CLOCK}(?:,? (?:on )?{_DATE})?)", _I
)
_QUESTION_OPENING: Final = re.compile(r"^\W*(?:what|when|where|who|how|which|why|do|does|is|are|can|could)\b", _I)

_WORD: Final = r"[A-Z][\w'-]*"
_NAMES: Final = rf"({_WORD}(?: (?:(?:de|van|von|der|la|O') )*{_WORD}){{0,3}})"
_PLACES: Final = rf"((?:St\. )?{_WORD}(?:(?: |-)(?:(?:upon|on|de|la|del)[ -])?{_WORD}){{0,2}})"
_NAME_SURE: Final = re.compile(
    r"\b(?i:my (?:full |first )?name(?: is|'s)|the name is|call me|i am called)[, ]+(.+)"
)
_NAME_LIKELY: Final = re.compile(
    rf"\b(?i:this is|i'm|i am|it's|it is|speaking with)[, ]+{_NAMES}(?! (?i:street|road|avenue))"
)
_CITY: Final = re.compile(
    rf"\b(?i:(?:live|based|located|living|calling|am|i'm|are|home|house|office|we're) (?:in|from|near|at)"
    rf"|(?:my |the )?(?:city|town) is|from|in|near)[, ]+(?:(?i:the )?(?i:city|town) of )?{_PLACES}"
)
_NO_NAME: Final = re.compile(
    r"(?:a|an|and|at|calling|fine|from|good|great|here|hello|hi|i|in|interested|just|looking|no|not|of|ok|okay|on"
    r"|ready|so|sorry|still|sure|thanks|thank|the|to|trying|um|uh|very|well|with|yes|yeah|my|name|is|it's|it|please)",
    _I,
)
_NO_PLACE: Final = re.compile(rf"^(?:{_DAY}s?|{_MONTH}|English|I|AM|PM|The|Dr|Mr|Mrs)\b", _I)
_FILLERS: Final = re.compile(
    r"^(?:\W*\b(?:yes|yeah|sure|well|okay|ok|um+|uh+|oh|hi|hello|of course|it's|it is|that's|that is|i'm|i am|in"
    r"|from|my (?:name|city|town) is|we're|near|please|a|an|the|for|just|on|at)\b)+\W*",
    _I,
)
_SERVICE: Final = re.compile(
    r"\b(?:book|need|want|like|have|get|interested in|looking for|appointment for|come in for|schedule)"
    r" (?:to (?:book|have|get|schedule) )?(?:an? |some |my )?((?:[a-z-]+ ){0,2}?[a-z-]+)(?= (?:for|on|at|in|next"
    r"|this|tomorrow|today|please|and|,)\b|[.,!?]|$)",
    _I,
)
_NO_SERVICE: Final = re.compile(
    r"\b(?:appointments?|know|ask|speak|talk|book|schedule|that|it|you|me|us|my|i|information|help|question|call|one"
    r"|bye|time|nice|good|day|make|see|to|hours?|address|prices?|for|thanks?|thank|all|"
    + _DAY
    + "|"
    + _MONTH
    + r")\b",
    _I,
)
_NO_MORE: Final = re.compile(r"\W*(?:no|nope|not really)(?:\W+(?:thanks?|thank you|nothing|sir|madam))*\W*", _I)
_MOST_WORDS: Final = 4


def understand(text: str, *, asked: Slot | None = None, services: Sequence[str] = ()) -> Meaning:
    """The meaning of ``text``; ``asked`` is what the caller was just asked for: a bare answer gives that."""
    text = text.replace("\u2019", "'").strip()
    intents = frozenset(intent for intent, pattern in _INTENTS.items() if pattern.search(text))
    if asked is None and _NO_MORE.fullmatch(text):
        intents |= {Intent.GOODBYE}
    found = {subject: match.start() for subject, pattern in _SUBJECTS.items() if (match := pattern.search(text))}
    subjects = tuple(sorted(found, key=found.__getitem__))
    slots = _slots(text, asked, services)
    if asked is Slot.NAME and Slot.CITY in slots and Slot.NAME not in slots and (name := _name_before(text)):
        slots[Slot.NAME] = name
    bare = not (subjects or slots or intents - {Intent.AFFIRM, Intent.GREETING})
    if asked is not None and bare and (answer := _bare_answer(text, asked)):
        slots[asked] = answer
    return Meaning(subjects, intents, slots)


def _slots(text: str, asked: Slot | None, services: Sequence[str]) -> dict[Slot, str]:
    appointment = (
        None if _QUESTION_OPENING.match(text) and asked is not Slot.APPOINTMENT else _APPOINTMENT.search(text)
    )
    found = {
        Slot.NAME: _name(text),
        Slot.CITY: _city(text),
        Slot.SERVICE: _service(text, services),
        Slot.APPOINTMENT: appointment[0].removeprefix("on ").strip(" .,") if appointment else "",
    }
    return {slot: value for slot, value in found.items() if value}


def _name(text: str) -> str:
    if sure := _NAME_SURE.search(text):
        return _leading_name(sure[1])
    for likely in _NAME_LIKELY.finditer(text):
        if not _NO_NAME.fullmatch(likely[1].split()[0]):
            return likely[1].rstrip("'")
    return ""


def _name_before(text: str) -> str:
    """The name in "John Miller from Chicago"."""
    found = re.match(rf"{_NAMES},? (?:and |i'm |I'm |I live |I am )*(?:from|in|near)\b", _FILLERS.sub("", text))
    return found[1] if found else ""


def _leading_name(text: str) -> str:
    """The name at the start of ``text``: capitalised words, or one or two small ones if there are none."""
    if capitalised := re.match(_NAMES, text):
        return capitalised[1]
    words = re.split(r"[.,!?]", text)[0].split()
    plain: list[str] = []
    for word in words[:2]:
        if _NO_NAME.fullmatch(word) or not word.replace("-", "").replace("'", "").isalpha():
            break
        plain.append(word.capitalize())
    return " ".join(plain)


def _city(text: str) -> str:
    for match in _CITY.finditer(text):
        if not _NO_PLACE.match(match[1]):
            return match[1]
    return ""


def _service(text: str, services: Sequence[str]) -> str:
    folded = _folded(text)
    for service in services:
        if _folded(service) in folded:
            return service
    if _QUESTION_OPENING.match(text):
        return ""
    for match in _SERVICE.finditer(text):
        if not _NO_SERVICE.search(match[1]):
            return match[1].strip().lower()
    return ""


def _folded(text: str) -> str:
    """``text`` as speech recognition cannot get it wrong: "check-up", "check up" and "checkup" are one word."""
    return re.sub(r"[^a-z]", "", text.lower())


def _bare_answer(text: str, asked: Slot) -> str:
    """What is left of "It's Miller." or "Boston, please" without the words around it."""
    answer = re.split(r"[.!?,]", _FILLERS.sub("", text))[0].strip()
    answer = re.sub(r"\s+please$", "", answer, flags=_I)
    words = answer.split()
    if not words or len(words) > _MOST_WORDS or _QUESTION_OPENING.match(text):
        return ""
    if asked in {Slot.NAME, Slot.CITY}:
        if any(not re.sub(r"['-]", "", word).isalpha() for word in words) or _NO_NAME.fullmatch(words[0]):
            return ""
        return " ".join(word[0].upper() + word[1:] for word in words)
    return answer.lower() if asked is Slot.SERVICE else answer
