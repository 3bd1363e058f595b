"""Who answers what: a session's responses as a table of states, and what the caller is owed (DESIGN D7). Pure.

Three facts make this necessary. A cancel is only right between a response's ``created`` and its ``done`` (BI-3).
A barge-in can fall between our ``response.create`` and its ``created``. And with ``interrupt_response`` off the
provider does not answer a turn that was committed while an answer was active: we then ask for it (BI-6).
"""

import enum
from collections.abc import Mapping
from math import inf
from typing import Final

import attrs

from agent.audio.generation import Generation, Purpose
from agent.core.units import GenerationId, ItemId, ResponseId
from agent.model.events import FunctionCallDone

ANSWER_GRACE_S: Final = 2.0
"""How long the provider may take to begin the answer to a committed turn before we ask for it."""
FREED_GRACE_S: Final = 0.1
"""The same when the turn was committed while another answer was active: by then it has most likely refused."""

_WORDS_OF_ITS_OWN: Final = (Purpose.GREETING, Purpose.IDLE, Purpose.FILLER, Purpose.FAREWELL)
"""Answers that say what we asked for: who waits for an answer to his own words still does."""
_FOR_THE_CALLER: Final = (Purpose.TURN, Purpose.TOOL, Purpose.KEYS)
"""Requests that somebody waits for."""


class Stage(enum.Enum):
    """Where a response stands with the provider."""

    ASKED = "asked"
    """Our ``response.create`` is on its way; a response of the provider's own begins here, too."""
    UNWANTED = "unwanted"
    """As ``ASKED``, but a barge-in came meanwhile."""
    GENERATING = "generating"
    """Between its ``created`` and its ``done``."""
    CANCELLED = "cancelled"
    """Likewise, and ``response.cancel`` is sent: exactly at the step that leads here."""
    OVER = "over"
    """Done, or refused."""


class Step(enum.Enum):
    """What happens to a response."""

    CREATED = "created"
    """``response.created`` came."""
    CUT = "cut"
    """Nobody wants it any more: a barge-in, an answer too long, a greeting that settled the turn."""
    DONE = "done"
    """``response.done`` came."""
    REFUSED = "refused"
    """The provider refused our request."""


STEPS: Final[Mapping[Stage, Mapping[Step, Stage]]] = {
    Stage.ASKED: {Step.CREATED: Stage.GENERATING, Step.CUT: Stage.UNWANTED, Step.REFUSED: Stage.OVER},
    Stage.UNWANTED: {Step.CREATED: Stage.CANCELLED, Step.REFUSED: Stage.OVER},
    Stage.GENERATING: {Step.CUT: Stage.CANCELLED, Step.DONE: Stage.OVER},
    Stage.CANCELLED: {Step.DONE: Stage.OVER},
    Stage.OVER: {},
}
"""What is not here changes nothing: a second cut sends no second cancel, a repeated ``created`` begins none."""

_ACTIVE: Final = (Stage.GENERATING, Stage.CANCELLED)


@attrs.define(eq=False)
class Response:
    """One response of a session, asked for by us or begun by the provider."""

    purpose: Purpose
    stage: Stage = Stage.ASKED
    id: ResponseId | None = None
    generation: Generation | None = None
    """What of it is spoken; None before it begins, and for one that was unwanted at its birth."""
    tool_calls: list[FunctionCallDone] = attrs.field(factory=list)
    """The tools it wants; they are run once it is done, for one that is cut short may not have meant them."""

    def take(self, step: Step) -> bool:
        """Make a step of the table; False if it makes none from here."""
        stage = STEPS[self.stage].get(step)
        self.stage = stage or self.stage
        return stage is not None

    @property
    def active(self) -> bool:
        """Whether it is between its ``created`` and its ``done``."""
        return self.stage in _ACTIVE

    @property
    def owed(self) -> bool:
        """Whether somebody waits for it if it is lost; a greeting that was not begun is asked for anew."""
        if self.stage is Stage.GENERATING:
            begun = self.generation is not None and self.generation.received_bytes
            return bool(begun) or self.purpose is not Purpose.GREETING
        return self.stage is Stage.ASKED and self.purpose in _FOR_THE_CALLER


@attrs.define(eq=False)
class Session:
    """All that is lost with a session with the model. Its ids mean nothing to the next one."""

    ready: bool = False
    """The provider confirmed our settings: it may be asked, and what it says may be played."""
    responses: dict[ResponseId, Response] = attrs.field(factory=dict)
    """Every response of this session: one that was done is not born again."""
    open: list[Response] = attrs.field(factory=list)
    """Those that are asked for or active, the oldest first."""
    requests: dict[str, Response] = attrs.field(factory=dict)
    """Our requests by the event id that a refusal names."""
    retold: dict[GenerationId, ItemId] = attrs.field(factory=dict)
    """Answers of a session before that still played when this one was told of them, by the items that tell it."""
    tool_names: dict[ItemId, str] = attrs.field(factory=dict)
    tool_uses: set[str] = attrs.field(factory=set)
    """Uses of tools that came: a repeated event is no second use."""
    turn_open: bool = False
    """The caller began to speak, and the turn is not committed."""
    appended_ms: int = 0
    """Caller audio given to the model: its clock for speech events."""


class Debt(enum.Enum):
    """What the caller is owed."""

    NONE = "none"
    PROVIDER = "provider"
    """An answer that the provider begins by itself; we ask for it when it takes too long."""
    WHEN_FREE = "when free"
    """An answer that we ask for when the one under way is over: the provider gives but one at a time."""
    NOW = "now"
    """An answer that we ask for as soon as we can."""


@attrs.define(eq=False)
class ResponseTracker:
    """The responses of the present session, and what the caller is owed, which outlives it."""

    session: Session = attrs.field(factory=Session)
    debt: Debt = Debt.NONE
    _patient_until: float = -inf
    """When a debt of the provider's becomes ours."""

    def asked(self, purpose: Purpose) -> Response:
        """A ``response.create`` was sent."""
        response = Response(purpose)
        self.session.open.append(response)
        return response

    def refused(self, response: Response) -> bool:
        """The provider refused a ``response.create`` of ours; whether it still stood."""
        stood = response.take(Step.REFUSED)
        if stood:
            self.session.open.remove(response)
        if self.debt is Debt.WHEN_FREE and not self.busy:
            self.debt = Debt.NOW
        return stood

    def owe(self, debt: Debt, until: float = -inf) -> None:
        """An answer is owed; one of the provider's is waited for ``until``."""
        self.debt, self._patient_until = debt, until

    def committed(self, now: float) -> None:
        """The caller's turn is over and is owed an answer."""
        self.owe(Debt.PROVIDER, now + ANSWER_GRACE_S)

    def settled(self) -> None:
        """Nothing is owed any more."""
        self.debt = Debt.NONE

    def created(
        self, response_id: ResponseId, purpose: Purpose | None, *, caller_speaking: bool
    ) -> Response | None:
        """A response began; ``purpose`` is what its metadata says, if any. None for one known, or done, already.

        It is to be cancelled at once, and its stage says so, if a barge-in came while it was underway, or if the
        caller speaks on: then it answers half a turn, and the whole one will be answered. A greeting is not:
        protection decides on it later.
        """
        session = self.session
        if response_id in session.responses:
            return None
        response = self._request_for(purpose)
        if response is None:
            response = Response(purpose or Purpose.ANSWER)
            session.open.append(response)
        session.responses[response_id], response.id = response, response_id
        if caller_speaking and response.purpose is not Purpose.GREETING:
            response.take(Step.CUT)
        response.take(Step.CREATED)
        unwanted = response.stage is Stage.CANCELLED
        if not (unwanted or response.purpose in _WORDS_OF_ITS_OWN or self.debt is Debt.WHEN_FREE):
            self.settled()
        return response

    def _request_for(self, purpose: Purpose | None) -> Response | None:
        """The request of ours that a response meets; without metadata the oldest, unless a turn waits."""
        asked = (response for response in self.session.open if not response.active)
        if purpose is None:
            return next(asked, None) if self.debt is Debt.NONE else None
        return next((response for response in asked if response.purpose is purpose), None)

    def done(self, response_id: ResponseId, now: float) -> Response:
        """A response generates no more."""
        session = self.session
        response = session.responses.setdefault(response_id, Response(Purpose.ANSWER, Stage.OVER, response_id))
        if response.take(Step.DONE):
            session.open.remove(response)
        if self.debt in (Debt.PROVIDER, Debt.WHEN_FREE) and not self._active:
            patient_until = self._patient_until if self.debt is Debt.PROVIDER else inf
            self.owe(Debt.PROVIDER, min(patient_until, now + FREED_GRACE_S))
        return response

    def barge_in(self) -> list[ResponseId]:
        """The responses to cancel now, each at most once; those asked for are cancelled at their birth."""
        active = self._active
        if active:
            return [response.id for response in active if response.take(Step.CUT) and response.id]
        for response in self.session.open:
            response.take(Step.CUT)
        return []

    def cancel(self, response_id: ResponseId) -> bool:
        """Whether ``response.cancel`` is to be sent for this response: active, and not cancelled before."""
        response = self.session.responses.get(response_id)
        return response is not None and response.take(Step.CUT)

    def answer_due(self, now: float, *, caller_speaking: bool) -> bool:
        """Whether a committed turn got no answer and one is to be requested now (BI-6)."""
        owed_at = self.owed_at
        if owed_at is None or now < owed_at or caller_speaking:
            return False
        self.settled()
        return True

    @property
    def owed_at(self) -> float | None:
        """When to ask ``answer_due`` next; None if no turn is owed an answer or one is being given."""
        if self.debt in (Debt.NONE, Debt.WHEN_FREE) or self.busy or not self.session.ready:
            return None
        return -inf if self.debt is Debt.NOW else self._patient_until

    @property
    def owes_answer(self) -> bool:
        """Whether the caller's last turn has no answer yet."""
        return self.debt is not Debt.NONE

    @property
    def _active(self) -> list[Response]:
        return [response for response in self.session.open if response.active]

    @property
    def busy(self) -> bool:
        """Whether a response is active or asked for."""
        return bool(self.session.open)

    def session_lost(self) -> Session:
        """The session is gone as a whole: whoever was being answered, or spoke, is owed an answer again."""
        lost, self.session = self.session, Session()
        if lost.turn_open or self.owes_answer or any(response.owed for response in lost.open):
            self.owe(Debt.NOW)
        return lost
