"""What a caller's words mean: what is asked, what is wanted, which particulars they give. Pure, English only.

Written for what Whisper makes of telephone speech: it punctuates, and capitalises names of people and places.
"""

import enum
import re
from collections.abc import Sequence
from typing import Final

import attrs

from agent.local.receptionist.business import Subject
from agent.pipeline.analysis.spoken_names import (
    DAY,
    MONTH,
    QUESTION_OPENING,
    Slot,
    find_city,
    find_name,
    find_service,
    find_wish,
    plain,
)


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

_NUMBER: Final = (
    r"(?:\d{1,2}(?::\d{2})?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
    r"(?: (?:thirty|fifteen))?"
)
_DATE: Final = (
    rf"(?:(?:the )?day after tomorrow|today|tomorrow|tonight|(?:(?:this|next|on) )?{DAY}s?|next week"
    rf"|(?:on )?(?:the )?\d{{1,2}}(?:st|nd|rd|th)(?: of {MONTH})?|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?)"
)
_CLOCK: Final = (
    rf"(?:(?:half past|quarter (?:past|to)) {_NUMBER}|{_NUMBER} ?(?:a\.?m\b\.?|p\.?m\b\.?|o'?clock)"
    rf"|(?:at|around|by) {_NUMBER}|(?:at )?(?:noon|midday)|(?:in the )?(?:early |late )?"
    r"(?:morning|afternoon|evening))"
)
_APPOINTMENT: Final = re.compile(
    rf"\b(?:{_DATE}(?:,? (?:at |around |in the )?{_CLOCK})*|{_CLOCK}(?:,? (?:on )?{_DATE})?)", _I
)
_MOST_WORDS: Final = 4
_NO_MORE: Final = re.compile(r"\W*(?:no|nope|not really)(?:\W+(?:thanks?|thank you|nothing|sir|madam))*\W*", _I)


def understand(text: str, *, asked: Slot | None = None, services: Sequence[str] = ()) -> Meaning:
    """The meaning of ``text``; ``asked`` is what the caller was just asked for: a bare answer gives that."""
    text = plain(text)
    intents = frozenset(intent for intent, pattern in _INTENTS.items() if pattern.search(text))
    if asked is None and _NO_MORE.fullmatch(text):
        intents |= {Intent.GOODBYE}
    found = {subject: match.start() for subject, pattern in _SUBJECTS.items() if (match := pattern.search(text))}
    subjects = tuple(sorted(found, key=found.__getitem__))
    slots = _slots(text, None, services)
    if asked is not None and not (subjects or intents - {Intent.AFFIRM, Intent.DENY, Intent.GREETING}):
        slots = _slots(text, asked, services) | slots
    if asked is Slot.APPOINTMENT and not (subjects or slots or intents - {Intent.AFFIRM, Intent.GREETING}):
        # No moment, and still what the caller said of it: "around lunch", "I do not know".
        words = re.split(r"[.!?,]", text)[0].strip()
        if words and len(words.split()) <= _MOST_WORDS and not QUESTION_OPENING.match(text):
            slots = {Slot.APPOINTMENT: words}
    return Meaning(subjects, intents, slots)


def _slots(text: str, asked: Slot | None, services: Sequence[str]) -> dict[Slot, str]:
    asks = QUESTION_OPENING.match(text) and asked is not Slot.APPOINTMENT
    appointment = None if asks else _APPOINTMENT.search(text)
    found = {
        Slot.NAME: find_name(text, asked),
        Slot.CITY: find_city(text, asked),
        Slot.SERVICE: find_service(text, services) or find_wish(text, asked),
        Slot.APPOINTMENT: appointment[0].removeprefix("on ").strip(" .,") if appointment else "",
    }
    return {slot: value for slot, value in found.items() if value}
