"""What a call was about, found by rules: a summary and the particulars of the caller, without any model. Pure.

The rules know English, as it is written down from telephone speech. In another language they find next to
nothing, and what is not found stays empty: the summary then is what was said, word for word.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol

import attrs

from agent.core.records import Turn
from agent.core.tenant import Tenant
from agent.pipeline.analysis.extraction_rules import asked_for, is_english, says
from agent.pipeline.analysis.spoken_names import find_city, find_name, find_service

INTENTS: Final = ("booking", "question", "complaint", "human", "wrong_number", "other")
LEAD_STATUSES: Final = ("new", "contacted", "qualified", "appointment", "not_interested", "customer")
LONGEST: Final = {"name": 120, "city": 100, "service": 120, "intent": 20, "lead_status": 20, "follow_up": 500}
"""Characters of each particular, whoever found it."""
LONGEST_SUMMARY: Final = 2000
_LONGEST_QUOTE: Final = 240
_QUOTES: Final = 4
_BIDI_CONTROLS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Controls of direction: they could turn around the text that follows, and text does not need them."""


@attrs.frozen
class TranscriptLine:
    """One thing that was said, ``at_s`` seconds after the answer; of the agent only what was heard.

    ``booked`` is what was done besides: an appointment that was made, in words.
    """

    role: Literal["caller", "agent", "booked"]
    text: str
    at_s: float = 0.0


@attrs.frozen
class Extraction:
    """The particulars of a call, each empty if unknown.

    ``intent`` is one of INTENTS, ``lead_status`` one of LEAD_STATUSES; ``follow_up`` says what is left to do.
    """

    name: str = ""
    city: str = ""
    service: str = ""
    intent: str = ""
    lead_status: str = ""
    follow_up: str = ""


class Analyst(Protocol):
    """Who reads a call afterwards."""

    async def summarise(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> str:
        """What the call was about, in a few sentences; empty if nothing was said.

        Raises ProviderError (a later try may do better), ModelGoneError (another model may) and StepDeadError
        (none will). A cancel stops it.
        """

    async def extract(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> Extraction:
        """The particulars of the call. Raises and is cancelled as ``summarise``."""


def conversation_of(turns: Iterable[Turn]) -> tuple[TranscriptLine, ...]:
    """The lines of a call's transcript: what the caller said and what was heard of the agent."""
    return tuple(
        TranscriptLine(turn.role, text, turn.started_ms / 1000)
        for turn in turns
        if (text := clean(turn.heard_text if turn.role == "agent" else turn.text))
    )


def extract_by_rules(conversation: Sequence[TranscriptLine], tenant: Tenant) -> Extraction:
    """The particulars that the rules are sure of."""
    name = city = service = ""
    asked = None
    for line in conversation:
        text = clean(line.text)
        if line.role != "caller":
            asked = asked_for(text)
            continue
        # Who is corrected or asked again means the last answer, so what comes later counts.
        city = find_city(text, asked) or city
        name = find_name(text, asked) or name
        service = find_service(text, tenant.services) or service
        asked = None
    said = [clean(line.text) for line in conversation if line.role == "caller"]
    intent = _intent(said, service)
    booked = any(
        line.role == "booked" or (line.role == "agent" and says("booked", line.text)) for line in conversation
    )
    status = _lead_status(said, intent, booked=booked)
    follow_up = _follow_up(said, intent, booked=booked)
    return tidy(Extraction(name, city, service, intent, status, follow_up), tenant)


def summarise_by_rules(conversation: Sequence[TranscriptLine], tenant: Tenant) -> str:
    """A sentence on who wanted what, where the rules know, and the caller's own words."""
    said = [text for line in conversation if line.role == "caller" and (text := clean(line.text))]
    if not said:
        return ""
    found = extract_by_rules(conversation, tenant)
    quotes = [cut(text, _LONGEST_QUOTE) for text in _most_telling(said)]
    if found.intent in ("", "other"):
        return cut("\n".join(quotes), LONGEST_SUMMARY)
    who = f"{found.name or 'The caller'}{f' from {found.city}' if found.city else ''}"
    wanted = _WANTED[found.intent].format(f" ({found.service})" if found.service else "")
    made = [f"An appointment was made: {clean(line.text)}." for line in conversation if line.role == "booked"]
    sentences = [f"{who} {wanted}", *made, *([found.follow_up] if found.follow_up else [])]
    return cut(" ".join(sentences) + "\nIn the caller's words:\n" + "\n".join(quotes), LONGEST_SUMMARY)


def tidy(found: Extraction, tenant: Tenant) -> Extraction:
    """``found``, whoever found it, as it may be kept: of sane length, in known words, on one line each."""
    values = {name: cut(clean(value), LONGEST[name]) for name, value in attrs.asdict(found).items()}
    if values["intent"] not in INTENTS:
        values["intent"] = ""
    if values["lead_status"] not in LEAD_STATUSES:
        values["lead_status"] = ""
    known = {service.casefold(): service for service in tenant.services}
    values["service"] = known.get(values["service"].casefold(), values["service"])
    return Extraction(**values)


def clean(text: str) -> str:
    """``text`` on one line, without controls, half characters and what turns around directions."""
    if not text.isprintable():
        text = "".join(letter for letter in text if letter.isprintable() or _is_wanted(letter))
    return " ".join(text.split())


def _is_wanted(letter: str) -> bool:
    """Of what does not print: white space, and joiners inside words (some scripts and emoji need them)."""
    return letter.isspace() or (unicodedata.category(letter) == "Cf" and letter not in _BIDI_CONTROLS)


def cut(text: str, longest: int) -> str:
    """``text`` in at most ``longest`` characters, ended with … between two words where there are words.

    A letter is not parted from its accents, an emoji not from what it is joined with.
    """
    if len(text) <= longest:
        return text
    end = longest - 1
    while end > 0 and (unicodedata.combining(text[end]) or "\u200d" in text[end - 1 : end + 1]):
        end -= 1
    space = text.rfind(" ", end // 2, end + 1)
    return text[: space if space > 0 else end].rstrip() + "…"


_WANTED: Final = {
    "booking": "wanted an appointment{}.",
    "question": "asked a question{}.",
    "complaint": "complained{}.",
    "human": "wanted to speak with a person{}.",
    "wrong_number": "had the wrong number{}.",
}


def _most_telling(said: Sequence[str]) -> list[str]:
    """The first and the longest of the caller's lines, in the order they were said."""
    ranked = sorted(range(len(said)), key=lambda index: (index != 0, -len(said[index]), index))
    return [said[index] for index in sorted(ranked[:_QUOTES])]


def _intent(lines: Sequence[str], service: str) -> str:
    for intent in ("wrong_number", "complaint", "booking", "human", "question"):
        if any(says(intent, text) for text in lines):
            return intent
    if not is_english(lines):
        return ""
    if any("?" in text for text in lines):
        return "question"
    return "booking" if service else "other"


def _lead_status(lines: Sequence[str], intent: str, *, booked: bool) -> str:
    if any(says("not_interested", text) for text in lines) or intent == "wrong_number":
        return "not_interested"
    if booked:
        return "appointment"
    if any(says("customer", text) for text in lines):
        return "customer"
    return {"booking": "qualified", "question": "contacted", "human": "contacted"}.get(intent, "")


def _follow_up(lines: Sequence[str], intent: str, *, booked: bool) -> str:
    if any(says("not_interested", text) for text in lines):
        return ""
    if intent == "complaint":
        return "Call back about the complaint."
    if any(says("call_back", text) for text in lines) or intent == "human":
        return "Call back: the caller wants to speak with a person."
    if intent == "booking" and not booked:
        return "Call back: an appointment was asked for and is not booked yet."
    return ""
