"""The dialogue of the embedded model: text in, words to say and tools to call out. Pure, English only.

It answers questions from the session's instructions, takes down the caller's name and city (and service and
time, if an appointment is wanted), calls the declared tools that fit, and says goodbye. The state is a frozen
value: an answer that was cancelled before anything of it was spoken simply keeps the old one.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from agent.local.receptionist.business import Facts, Subject
from agent.local.receptionist.dates import When, read_when
from agent.local.receptionist.tools import (
    DeclaredTool,
    PlannedCall,
    ToolPurpose,
    closing_call,
    recording_call,
    takes_appointments,
)
from agent.local.receptionist.understanding import Intent, Meaning, understand
from agent.pipeline.analysis.spoken_names import Slot

ASK_AT_MOST: Final = 2
"""How often the same particular is asked for before it is let go."""
_QUESTIONS: Final = {
    Slot.NAME: "May I have your name, please?",
    Slot.CITY: "Which city are you calling from?",
    Slot.SERVICE: "What would you like to come in for?",
    Slot.APPOINTMENT: "Which day and time would suit you?",
}
_ON_WHICH_DAY: Final = "On which day?"
_AT_WHAT_TIME: Final = "At what time would that be?"
_ANYTHING_ELSE: Final = "Is there anything else I can do for you?"
_HELP: Final = "How can I help you?"
_UNHEARD: Final = "Sorry, I did not catch that."
_UNKNOWN: Final = "I am afraid I cannot answer that, but I will make a note of it."
_TIME_IS_UP: Final = "I am sorry, our time is up."
_ONE_MOMENT: Final = "One moment, please."
_STILL_THERE: Final = "Are you still there?"


@attrs.frozen
class State:
    """What is known of the call so far; ``asked`` is the particular the last answer asked for."""

    slots: Mapping[Slot, str] = attrs.field(factory=dict)
    asked: Slot | None = None
    times_asked: Mapping[Slot, int] = attrs.field(factory=dict)
    booking: bool = False
    when: When = attrs.field(factory=When)
    """Of the appointment: the halves that were said; its slot is filled when both were."""
    wished: str = ""
    """The words in which it was said."""
    made: frozenset[PlannedCall] = frozenset()
    last_said: str = ""


@attrs.frozen
class Reply:
    """What to say, and then which tools to call; either may be empty."""

    text: str
    calls: tuple[PlannedCall, ...] = ()


@attrs.frozen
class Receptionist:
    """One for each set of instructions and tools; it holds nothing of a call."""

    facts: Facts
    tools: tuple[DeclaredTool, ...] = ()

    def respond(self, state: State, text: str) -> tuple[State, Reply]:
        """The answer to what the caller said; empty ``text`` is speech that could not be understood."""
        if not text.strip():
            return self._end_turn(state, [_UNHEARD])
        meaning = understand(text, asked=state.asked, services=self.facts.services)
        if Intent.REPEAT in meaning.intents and state.last_said:
            return state, Reply(state.last_said)
        state = attrs.evolve(
            state,
            slots={**state.slots, **meaning.slots},
            booking=state.booking or Intent.BOOKING in meaning.intents or Slot.APPOINTMENT in meaning.slots,
        )
        if Slot.APPOINTMENT in meaning.slots:
            state, meaning = self._date(state, meaning)
        parts = [self._answer(subject) for subject in meaning.subjects]
        parts += _acknowledge(meaning)
        if Intent.HUMAN in meaning.intents:
            return self._transfer(state, parts)
        if Intent.GOODBYE in meaning.intents:
            return self._goodbye(state, parts)
        if Intent.WHO in meaning.intents:
            parts.append(
                f"I am the automatic assistant{f' of {self.facts.business}' if self.facts.business else ''}."
            )
        return self._end_turn(state, parts or [_small_talk(state, meaning, text)])

    def _date(self, state: State, meaning: Meaning) -> tuple[State, Meaning]:
        """Read day and time of an appointment; if one of them is missing, it is asked for next."""
        words, now = meaning.slots[Slot.APPOINTMENT], self.facts.now
        state = attrs.evolve(state, wished=f"{state.wished}, {words}" if state.wished else words)
        if now is None:
            return state, meaning
        when = state.when.completed_by(read_when(words, now), now)
        known, heard = dict(state.slots), dict(meaning.slots)
        for slots in (known, heard):
            slots.pop(Slot.APPOINTMENT, None)
            if when.spoken:
                slots[Slot.APPOINTMENT] = when.spoken
        return attrs.evolve(state, when=when, slots=known), attrs.evolve(meaning, slots=heard)

    def say(self, state: State, text: str) -> tuple[State, Reply]:
        """Say exactly ``text``, as a greeting is said."""
        return attrs.evolve(state, last_said=text), Reply(text)

    def follow(self, state: State, instructions: str) -> tuple[State, Reply] | None:
        """What instructions for one answer ask for: a goodbye, patience, a check, a greeting; None: not known.

        A goodbye that was ordered calls no tool to end the call: whoever ordered it ends it.
        """
        wish = instructions.lower()
        if "goodbye" in wish or "good-bye" in wish or "farewell" in wish:
            return self._spoken(state, [_TIME_IS_UP if "limit" in wish else "", _farewell(state)])
        if "wait a moment" in wish:
            return state, Reply(_ONE_MOMENT)
        if "still there" in wish or "silent" in wish or "silence" in wish:
            return self.say(state, _STILL_THERE)
        if "greet" in wish or "welcome" in wish:
            return self.greet(state)
        return None

    def greet(self, state: State) -> tuple[State, Reply]:
        """Open the call."""
        name = f" This is {self.facts.business}." if self.facts.business else ""
        return self.say(state, f"Hello!{name} {_HELP}")

    def carry_on(self, state: State) -> tuple[State, Reply]:
        """An answer was asked for and there is nothing to answer: begin, or ask the next question."""
        return self._end_turn(state, []) if state.last_said else self.greet(state)

    def after_tools(self, state: State, outputs: Sequence[str]) -> tuple[State, Reply]:
        """What to say when the tools called last have answered with ``outputs`` (JSON by convention)."""
        results = [_result(output) for output in outputs]
        if not all(worked for worked, _ in results):
            return self._end_turn(state, ["I am sorry, that did not work. Someone will call you back about it."])
        told = [message for _, message in results if message]
        return self._end_turn(state, told or ["I have noted everything."])

    def _answer(self, subject: Subject) -> str:
        return self.facts.about(subject) or _UNKNOWN

    def _end_turn(self, state: State, parts: list[str]) -> tuple[State, Reply]:
        """Close the turn with the next question, or with the tools that are due instead of it."""
        calls = () if self._to_ask(state) else self._due(state)
        if calls:
            return self._spoken(attrs.evolve(state, asked=None, made=state.made | {*calls}), parts, calls)
        ask = next(iter(self._to_ask(state)), None)
        if ask is None:
            known = bool(state.slots or state.last_said)
            return self._spoken(attrs.evolve(state, asked=None), [*parts, _ANYTHING_ELSE if known else _HELP])
        times = {**state.times_asked, ask: state.times_asked.get(ask, 0) + 1}
        return self._spoken(attrs.evolve(state, asked=ask, times_asked=times), [*parts, _question(ask, state)])

    def _goodbye(self, state: State, parts: list[str]) -> tuple[State, Reply]:
        calls = (*self._due(state, asking=False), *self._closing(ToolPurpose.END, "The caller said goodbye."))
        return self._spoken(
            attrs.evolve(state, asked=None, made=state.made | {*calls}), [*parts, _farewell(state)], calls
        )

    def _transfer(self, state: State, parts: list[str]) -> tuple[State, Reply]:
        calls = self._closing(ToolPurpose.TRANSFER, "The caller asked for a person.")
        if not calls:
            return self._end_turn(
                state, [*parts, "Nobody is free at the moment, but someone will call you back."]
            )
        return self._spoken(attrs.evolve(state, asked=None), [*parts, "Of course, I will connect you."], calls)

    def _spoken(
        self, state: State, parts: Sequence[str], calls: tuple[PlannedCall, ...] = ()
    ) -> tuple[State, Reply]:
        text = " ".join(dict.fromkeys(part for part in parts if part))
        return attrs.evolve(state, last_said=text or state.last_said), Reply(text, calls)

    def _to_ask(self, state: State) -> list[Slot]:
        wanted = [Slot.NAME, Slot.CITY] + ([Slot.SERVICE, Slot.APPOINTMENT] if state.booking else [])
        return [
            slot for slot in wanted if slot not in state.slots and state.times_asked.get(slot, 0) < ASK_AT_MOST
        ]

    def _due(self, state: State, *, asking: bool = True) -> tuple[PlannedCall, ...]:
        """Recording tools that have what they need; each set of arguments is sent once."""
        still = self._to_ask(state) if asking else []
        tools = [tool for tool in self.tools if tool.purpose is ToolPurpose.RECORD]
        moment = state.when.moment.isoformat(timespec="minutes") if state.when.moment else ""
        is_made = bool(moment or not self.facts.now) and any(takes_appointments(tool) for tool in tools)
        note = f"Would like to come: {state.wished}" if state.wished and not is_made else ""
        calls = (
            recording_call(tool, state.slots, still_to_ask=still, moment=moment, note=note) for tool in tools
        )
        return tuple(call for call in calls if call is not None and call not in state.made)

    def _closing(self, purpose: ToolPurpose, reason: str) -> tuple[PlannedCall, ...]:
        calls = (closing_call(tool, reason) for tool in self.tools if tool.purpose is purpose)
        return tuple(call for call in calls if call is not None)[:1]


def _question(slot: Slot, state: State) -> str:
    if slot is Slot.APPOINTMENT and state.when.day is not None:
        return _AT_WHAT_TIME
    if slot is Slot.APPOINTMENT and state.when.time is not None:
        return _ON_WHICH_DAY
    return _QUESTIONS[slot]


def _farewell(state: State) -> str:
    name = state.slots.get(Slot.NAME)
    return f"Thank you for calling{f', {name}' if name else ''}. Goodbye!"


def _acknowledge(meaning: Meaning) -> list[str]:
    slots = meaning.slots
    said = []
    if name := slots.get(Slot.NAME):
        said.append(f"Thank you, {name}.")
    if city := slots.get(Slot.CITY):
        said.append(f"{city}, noted.")
    if appointment := slots.get(Slot.APPOINTMENT):
        said.append(f"{appointment[0].upper()}{appointment[1:]}, very well.")
    elif Slot.SERVICE in slots and not meaning.subjects:
        said.append(f"{slots[Slot.SERVICE].capitalize()}, very well.")
    return said


def _small_talk(state: State, meaning: Meaning, text: str) -> str:
    """How an answer opens when the caller's words asked for nothing and told nothing."""
    if text.rstrip().endswith("?"):
        return _UNKNOWN
    if Intent.BOOKING in meaning.intents:
        return "Gladly."
    if Intent.GREETING in meaning.intents:
        return "Hello!" if state.last_said else f"Hello! {_HELP}"
    return "All right."


def _result(output: str) -> tuple[bool, str]:
    """Whether the tool worked, and the message it wants said."""
    try:
        value = json.loads(output)
    except ValueError:
        return True, ""
    if not isinstance(value, dict):
        return True, ""
    failed = bool(value.get("error")) or value.get("ok") is False or value.get("success") is False
    message = value.get("message")
    return not failed, message if isinstance(message, str) else ""
