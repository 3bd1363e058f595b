"""One session of the scripted model: events in, events out, at times passed in. No I/O, no clock.

``agent.sim.model.server`` runs it over a socket. The event names and shapes are those of the GA Realtime API
(``openai.types.realtime``; the tests validate every event sent against them).
"""

from __future__ import annotations

import heapq
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from math import inf
from random import Random
from typing import Any, Final, Literal

import attrs
import msgspec

from agent.model.server_shapes import ErrorDetails, EventRefusedError, Outbox, Output
from agent.sim.model.conversation import SimulatedConversation
from agent.sim.model.energy_vad import EnergyVad
from agent.sim.model.hearing import Hearing
from agent.sim.model.real_wire import RealWire
from agent.sim.model.response import SimulatedMessage, SimulatedResponse
from agent.sim.model.script import Answer, Faults, Milestone, Script, plan, plan_roughly
from agent.sim.model.sending import ResponseSender, as_ulaw
from agent.sim.model.settings import SessionSettings
from agent.sim.model.transcribing import Transcribing
from agent.sim.profile import Profile

_APPEND_HEAD: Final = '{"type":"input_audio_buffer.append","audio":"'
_APPEND_TAIL: Final = '"}'
TO_NOISE: Final = (11, Answer("Sorry, I did not get that.", 600))
"""What is answered to noise; its audio carries a number of its own."""
_BUSY: Final = ("conversation_already_has_active_response", "Conversation already has an active response")


@attrs.define(eq=False, kw_only=True)
class ModelSession:
    """The state of one session. Call ``open`` first; then ``receive``, ``due`` and ``next_due`` as time goes."""

    script: Script
    profile: Profile = attrs.field(factory=Profile)
    number: int = 0
    """Counted from 0 over the sessions of its server."""
    faults: Faults = attrs.field(factory=Faults)
    vad: EnergyVad = attrs.field(factory=EnergyVad)
    cancel_lag_ms: int = 0
    """For how long deltas may still follow a cancel."""
    transcription_delay_ms: int = 200
    record: bool = True
    record_audio: bool = False

    received: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list)
    """Every event of the client but appended audio, with its time; stays empty without ``record``."""
    received_counts: Counter[str] = attrs.field(factory=Counter)
    responses: list[SimulatedResponse] = attrs.field(factory=list)
    appended: bytearray = attrs.field(factory=bytearray)
    """Caller audio; stays empty without ``record_audio``."""
    settings: SessionSettings = attrs.field(init=False)
    ready: list[str] = attrs.field(factory=list)
    """What ``due`` gives out next."""
    errors_sent: list[dict[str, Any]] = attrs.field(factory=list)
    outbox: Outbox = attrs.field(init=False)
    conversation: SimulatedConversation = attrs.field(init=False)
    active: SimulatedResponse | None = None
    """The response being generated."""
    closing: Literal["close", "drop"] | None = None
    """What the shell is to do with the socket, once everything due before it was sent."""
    deaf: bool = False
    """Whether the shell is to stop reading."""

    _sender: ResponseSender = attrs.field(init=False)
    _transcribing: Transcribing = attrs.field(init=False)
    _chance: Random | None = attrs.field(init=False)
    """What answers and the room draw from; None: nothing happens by chance."""
    _hearing: Hearing = attrs.field(init=False)
    _agenda: list[tuple[float, int, Callable[[float], None]]] = attrs.field(factory=list)
    _order: count[int] = attrs.field(factory=count)
    _reached: set[Milestone] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        faults, is_real = self.faults, self.profile.is_real
        self.settings = SessionSettings(refuses=faults.refuse_setting, pcm_by_default=is_real)
        wire, self._chance = self._draws("wire"), self._draws("room")
        self.outbox = (
            Outbox(self.ready.append)
            if wire is None
            else Outbox(RealWire(self.ready.append, wire).put, session=f"{wire.getrandbits(32):08x}")
        )
        self.conversation = SimulatedConversation(self.outbox)
        self._sender = ResponseSender(self.ready, self.outbox, self.conversation, faults, self.settings)
        self._transcribing = Transcribing(
            self.outbox, self._later, self.transcription_delay_ms / 1000, self._draws("transcripts")
        )
        self._hearing = Hearing(
            self.vad,
            self.settings,
            self.outbox,
            self._later,
            faults.speech_started_delay_ms / 1000,
            self._interrupt,
            self._end_turn,
            None if self.profile.quiet_room else self._chance,
        )

    def _draws(self, part: str) -> Random | None:
        return self.profile.chance(f"model {self.number} {part}") if self.profile.is_real else None

    def open(self, now: float) -> None:
        """Begin: the client has connected."""
        self._reach(Milestone.CONNECTED, now)
        self._later(now, lambda _: self.outbox.send("session.created", session=self.settings.resource()))
        self._hearing.open(now)

    def receive(self, raw: str | bytes, now: float) -> None:
        """Take one message of the client."""
        self._run(now)
        if self.closing:
            return
        event: dict[str, Any] | None = None
        try:
            if isinstance(raw, str) and raw.startswith(_APPEND_HEAD) and raw.endswith(_APPEND_TAIL):
                self._append(raw[len(_APPEND_HEAD) : -len(_APPEND_TAIL)], now)
            else:
                event = _decoded(raw)
                self._take(event, now)
        except EventRefusedError as refused:
            self.error(refused.error, event)

    def error(self, error: ErrorDetails, cause: Mapping[str, Any] | None = None) -> None:
        """Send an error event; ``cause`` is the client's event, if it was one's fault."""
        self.errors_sent.append(self.outbox.error(error, cause.get("event_id") if cause else None))

    def due(self, now: float) -> list[str]:
        """The messages to be sent by ``now``, in order; to be asked again after ``next_due``."""
        self._run(now)
        ready = self.ready[:]
        self.ready.clear()
        return ready

    def next_due(self) -> float:
        """When ``due`` has something if nothing is received; inf: never."""
        if self.ready:
            return -inf
        if self.closing:
            return inf
        return min(self._agenda[0][0] if self._agenda else inf, self.active.next_s() if self.active else inf)

    # Time.

    def _run(self, now: float) -> None:
        while self.closing is None:
            agenda_s = self._agenda[0][0] if self._agenda else inf
            answer_s = self.active.next_s() if self.active else inf
            if min(agenda_s, answer_s) > now:
                return
            if agenda_s <= answer_s:
                at_s, _, action = heapq.heappop(self._agenda)
                action(at_s)
            elif self.active is not None:
                self._advance(self.active, answer_s)

    def _later(self, at_s: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._order), action))

    def _reach(self, stage: Milestone, now: float) -> None:
        if stage in self._reached:
            return
        self._reached.add(stage)
        if self.faults.error_at is not None and self.faults.error_at[0] == stage:
            error = self.faults.error_at[1]
            self._later(now, lambda _: self.error(error))
        if self.faults.deaf_at == stage:
            self.deaf = True
        if self.faults.close_at == stage:
            self.closing = "drop" if self.faults.drop else "close"

    # What the client asks for.

    def _take(self, event: dict[str, Any], now: float) -> None:
        kind = str(event.get("type"))
        if kind == "input_audio_buffer.append":
            self._append(event.get("audio"), now)
            return
        self.received_counts[kind] += 1
        if self.record:
            self.received.append((now, event))
        self._handle(kind, event, now)

    def _handle(self, kind: str, event: Mapping[str, Any], now: float) -> None:
        match kind:
            case "session.update":
                self._update(event, now)
            case "response.create":
                self._create(event, now)
            case "response.cancel":
                self._cancel(event, now)
            case "conversation.item.create":
                self.conversation.create(event)
            case "conversation.item.truncate":
                self.conversation.truncate(event)
            case "conversation.item.delete":
                self.conversation.delete(event)
            case "input_audio_buffer.commit":
                self._commit(self.outbox.new_id("item"), now)
            case "input_audio_buffer.clear":
                self.outbox.send("input_audio_buffer.cleared")
            case _:
                raise EventRefusedError("invalid_value", f"Invalid value: '{kind}'.", "type")

    def _update(self, event: Mapping[str, Any], now: float) -> None:
        self.settings.update(event.get("session"))
        detection = self.settings.detection or {}
        self.vad.prefix_padding_ms = detection.get("prefix_padding_ms", self.vad.prefix_padding_ms)
        self.vad.silence_duration_ms = detection.get("silence_duration_ms", self.vad.silence_duration_ms)
        self.outbox.send("session.updated", session=self.settings.resource())
        self._later(now, lambda at_s: self._reach(Milestone.UPDATED, at_s))

    def _create(self, event: Mapping[str, Any], now: float) -> None:
        if self.active is not None:
            raise EventRefusedError(*_BUSY)
        request = event.get("response")
        self._begin(now, request if isinstance(request, dict) else {})

    def _cancel(self, event: Mapping[str, Any], now: float) -> None:
        active = self.active
        if active is None or active.is_cut or event.get("response_id", active.id) != active.id:
            raise EventRefusedError("response_cancel_not_active", "Cancellation failed: no active response found")
        active.cut(now + self.cancel_lag_ms / 1000, "client_cancelled")

    # Answers.

    def _begin(self, now: float, request: Mapping[str, Any], *, to_noise: bool = False) -> None:
        number, answer = TO_NOISE if to_noise else self.script.next_answer()
        code, response_id = number % 12, self.outbox.new_id("resp")
        steps = plan_roughly(answer, code, self._chance) if self._chance else plan(answer, code)
        phases = ("commentary", "final_answer") if steps and steps[-1].part else (None,)
        items = [Output(response_id, self.outbox.new_id("item"), index) for index in range(len(phases))]
        response = SimulatedResponse(
            id=response_id,
            messages=tuple(map(SimulatedMessage, items, phases)),
            number=number,
            answer=answer,
            steps=steps,
            created_s=now + answer.created_ms / 1000,
            request=request,
        )
        self.active = response
        self.responses.append(response)
        self._later(response.created_s, lambda at_s: self._announce(response, at_s))

    def _announce(self, response: SimulatedResponse, now: float) -> None:
        self._sender.announce(response)
        if self.faults.fail_answers is not None:
            self.active = None
            self._sender.end(response, "failed")
        else:
            self._hearing.expect_echo(now)

    def _advance(self, response: SimulatedResponse, at_s: float) -> None:
        if not self._sender.advance(response):
            self.active = None
            self._sender.end(response, "cancelled" if response.is_cut else "completed")
        elif response.sent_bytes * 2 >= response.total_bytes:
            self._reach(Milestone.ANSWERING, at_s)

    # The caller's audio.

    def _append(self, payload: object, now: float) -> None:
        self.received_counts["input_audio_buffer.append"] += 1
        text = payload if isinstance(payload, str) else "%"
        try:
            text = as_ulaw(text) if self.settings.hears_pcm else text
            self._hearing.append(text, now)
        except (Base64Error, ValueError):
            raise EventRefusedError("invalid_value", "Invalid 'audio'. Expected base64.", "audio") from None
        if self.record_audio:
            self.appended += a2b_base64(text)
        if self.received_counts["input_audio_buffer.append"] >= self.faults.after_appends:
            self._reach(Milestone.APPENDED, now)

    def _interrupt(self, at_s: float) -> None:
        if self.settings.interrupts and self.active and not self.active.is_cut:
            self.active.cut(at_s, "turn_detected")

    def _end_turn(self, item_id: str, at_s: float, noise: bool) -> None:  # noqa: FBT001  (Hearing's callback)
        self._commit(item_id, at_s, "" if noise else None)
        if not self.settings.answers_turns:
            return
        if self.active is None:
            self._begin(at_s, {}, to_noise=noise)
        elif self.faults.busy_error:
            self.error(EventRefusedError(*_BUSY).error)

    def _commit(self, item_id: str, at_s: float, transcript: str | None = None) -> None:
        previous = self.conversation.last_id
        self.outbox.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        self.conversation.add_user_audio(item_id)
        if self.settings.transcribes:
            words = self.script.next_transcript() if transcript is None else transcript
            self._transcribing.commit(item_id, words, at_s)


def _decoded(raw: str | bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EventRefusedError("invalid_json", f"We could not parse the JSON body: {error}") from None
