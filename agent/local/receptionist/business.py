"""What the receptionist knows about the business: read out of the session's instructions. Pure.

A fact is a line ``Opening hours: Monday to Friday, nine to five`` or any sentence about the subject, such as
``We are open from nine to five.`` Instructions that name no fact at all get the example below, so that a first
call on a laptop has something to ask about; every answer from it says that it is a demonstration.
"""

import enum
import re
from datetime import datetime
from typing import Final

import attrs


class Subject(enum.StrEnum):
    """What callers ask about."""

    HOURS = "hours"
    PRICES = "prices"
    ADDRESS = "address"
    SERVICES = "services"
    PHONE = "phone"
    PARKING = "parking"
    PAYMENT = "payment"


_LABELS: Final = {
    Subject.HOURS: r"(?:opening |business |office )?hours|open(?:ing)?(?: times)?",
    Subject.PRICES: r"prices?|pricing|rates?|fees?|costs?",
    Subject.ADDRESS: r"address|location|directions",
    Subject.SERVICES: r"services?|treatments?|what we do",
    Subject.PHONE: r"(?:tele)?phone(?: number)?",
    Subject.PARKING: r"parking",
    Subject.PAYMENT: r"payments?(?: methods?)?|insurance",
}
_SENTENCES: Final = {
    Subject.HOURS: r"\b(?:open (?:from|on|every|daily|at|\w+day)|closed on|opening hours (?:are|is))\b",
    Subject.PRICES: r"[$€£]\s?\d|\b\d+ (?:dollars|euros|pounds)\b|\b(?:costs?|prices? (?:start|are))\b",
    Subject.ADDRESS: r"\b(?:located (?:at|in|on)|our (?:address|office|shop) is)\b",
    Subject.SERVICES: r"\bwe (?:offer|provide)\b",
    Subject.PHONE: r"\bour (?:tele)?phone number is\b",
    Subject.PARKING: r"\bparking\b",
    Subject.PAYMENT: r"\bwe (?:accept|take) (?:cash|card|credit|insurance)",
}
_LEADS: Final = {
    Subject.HOURS: "Our opening hours are {}",
    Subject.PRICES: "These are our prices: {}",
    Subject.ADDRESS: "You find us at {}",
    Subject.SERVICES: "We offer {}",
    Subject.PHONE: "Our phone number is {}",
    Subject.PARKING: "About parking: {}",
    Subject.PAYMENT: "About payment: {}",
}
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_LABEL_LINE: Final = re.compile(r"^[\s*-]*([A-Za-z ]{3,30}?)\s*:\s*(\S.*?)\s*$", re.MULTILINE)
_BUSINESS: Final = re.compile(
    r"\b(?i:receptionist|assistant|front desk) (?:of|for|at) ((?:the |an? )?[A-Z]\w*(?: (?:and |& )?[A-Z]\w*)*)"
)

_NOW: Final = re.compile(r"\bIt is now \w+, (\d{4}-\d\d-\d\d), (\d\d:\d\d)")
"""As the agent tells every model (``agent.call.services``)."""

EXAMPLE_INSTRUCTIONS: Final = """\
You are the receptionist of Harbour Dental.
Opening hours: Monday to Friday from nine in the morning to six in the evening, and Saturday from nine to one.
Prices: a check-up is forty dollars, a cleaning is sixty dollars, and a filling starts at ninety dollars.
Address: twelve Harbour Street, next to the old lighthouse.
Services: check-up, cleaning, filling, whitening.
Parking: there are free places behind the house.
Payment: we take cash, cards and most insurances.
"""
"""An example business, for instructions that state no facts."""


@attrs.frozen
class Facts:
    """Whole sentences to say, by subject, and the services by name."""

    sentences: dict[Subject, str]
    services: tuple[str, ...] = ()
    business: str = ""
    now: datetime | None = None
    """When the instructions were written, local and naive, if they say it."""

    def about(self, subject: Subject) -> str:
        """A sentence that answers a question about ``subject``; empty if the instructions do not say."""
        return self.sentences.get(subject, "")


def read_context(instructions: str) -> Facts:
    """What ``instructions`` say about the business, or the example's facts if they say nothing."""
    facts = _read(instructions)
    if facts.sentences:
        return facts
    example = _read(EXAMPLE_INSTRUCTIONS)
    marked = {
        subject: f"In this demonstration, {text[0].lower()}{text[1:]}"
        for subject, text in example.sentences.items()
    }
    return Facts(marked, example.services, facts.business, facts.now)


def _read(instructions: str) -> Facts:
    said: dict[Subject, str] = {}
    services: tuple[str, ...] = ()
    for label, value in _LABEL_LINE.findall(instructions):
        for subject, pattern in _LABELS.items():
            if subject not in said and re.fullmatch(pattern, label.strip(), re.IGNORECASE):
                said[subject] = _sentence(_LEADS[subject].format(value))
                if subject is Subject.SERVICES:
                    services = tuple(filter(None, (part.strip(" .") for part in re.split(r",|;| and ", value))))
    prose = _LABEL_LINE.sub("", instructions)
    for text in _SENTENCE_END.split(prose):
        for subject, pattern in _SENTENCES.items():
            if subject not in said and re.search(pattern, text, re.IGNORECASE):
                said[subject] = _sentence(text.strip())
                break
    business = _BUSINESS.search(instructions)
    now = _NOW.search(instructions)
    return Facts(
        said,
        services,
        business[1] if business else "",
        datetime.fromisoformat(f"{now[1]}T{now[2]}") if now else None,
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
