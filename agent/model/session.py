"""The model's side of a call: sessions one after the other, as many as the call needs (DESIGN D2, D11).

One session is one WebSocket: a reader that decodes and tells, a writer that empties the outbox, a keepalive. A
lost one is replaced with growing pauses between the tries; a session near the provider's limit of 60 minutes is
replaced when nobody speaks.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Protocol

import attrs
import trio

from agent.core.errors import (
    HandshakeRejectedError,
    MalformedMessageError,
    ModelUnavailableError,
    SocketClosedError,
)
from agent.core.event_log import EventLog
from agent.core.graceful import run_until_stopped
from agent.model.errors import handshake_is_fatal
from agent.model.events import (
    AudioDelta,
    ErrorEvent,
    ModelEvent,
    SessionCreated,
    SessionUpdated,
    decode_event,
)
from agent.model.opening import SessionOpening
from agent.model.outbox import ModelOutbox
from agent.model.requests import encode_session_update
from agent.wire.websocket import MessageSocket

Connector = Callable[[], AbstractAsyncContextManager[MessageSocket]]
"""Opens a socket to the model. Raises OSError, HandshakeRejectedError, SocketClosedError, trio.TooSlowError."""

RETRY_PAUSES_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Pauses before the tries to reach the model again; after the last the call is given up."""
OUTAGE_S: Final = 6.0
"""No try begins when the model was away for longer than this: a caller waits in silence meanwhile."""
OPENED_S: Final = 3.0
"""How long a session may take for each step of its opening: ``session.created``, and confirming our settings."""
SILENT_S: Final = 4.0
"""A session that answers nothing for so long, a question of ours included, is lost, whatever its socket says."""
STUCK_S: Final = 8.0
"""A session that shows signs of life, and nothing of an answer that is asked for, is lost after this."""
PROBE_AFTER_S: Final = 1.5
"""Silence, while an answer is due or after words of the caller, after which a sign of life is asked for."""
WATCH_S: Final = 0.5
STABLE_AFTER_S: Final = 10.0
"""A session that lasted this long was a good one: the pauses begin anew."""
PING_EVERY_S: Final = 10.0
PING_BOUND_S: Final = 10.0
RENEW_AFTER_S: Final = 55 * 60.0
"""Sessions of the provider end at 60 minutes; from here on the next quiet moment is taken."""
RENEW_AT_LATEST_S: Final = 59 * 60.0
WRITER_GRACE_S: Final = 0.5


class SessionUser(Protocol):
    """The call, as its sessions with the model know it. Nothing here blocks or raises."""

    def settings(self) -> dict[str, Any]:
        """The ``session`` object that a new session is to confirm before anything else is said."""

    def ready(self) -> list[str]:
        """The session has confirmed: what it is told next."""

    def on_audio(self, event: AudioDelta) -> None:
        """Audio of an answer: the short way of what comes most."""

    def on_event(self, event: ModelEvent) -> None:
        """Any other event."""

    def lost(self) -> None:
        """The session is gone; called before any pause and before the next one opens."""

    def next_event_id(self) -> str:
        """An id for an event of ours, by which its errors name it."""

    @property
    def quiet(self) -> bool:
        """Whether nobody speaks and nothing is owed: the moment for a planned hand-over."""

    @property
    def answer_due(self) -> bool:
        """Whether an answer is asked for or being generated: then silence means that something is wrong."""

    @property
    def unheard_voice(self) -> bool:
        """Whether the caller said something, by our own ear, since the model was last heard from."""


@attrs.define(eq=False)
class ModelSessions:
    """The sessions of one call. ``run`` is one task of the call's nursery."""

    connect: Connector
    outbox: ModelOutbox
    events: EventLog
    user: SessionUser
    sessions: int = 0
    """Sessions that began; a socket that was opened is not one yet."""
    _created: trio.Event = attrs.field(factory=trio.Event)
    """The present session began; nothing is written before, so nothing is lost with one that never does."""
    _renewed: str = ""
    """Why we ended the present session ourselves, if we did."""
    _heard_s: float = 0.0
    """When the model last said anything but that it is there, or had nothing to say."""
    _alive_s: float = 0.0
    """When anything came from it, or nothing was due."""
    _probed: bool = False
    _ready: bool = False
    """The present session confirmed our settings."""
    _useful: bool = False
    """The present session brought audio, or lasted: one that did not is part of the outage before it."""
    _hopeless: str = ""
    """Why no session of this call can be what we need."""
    _update_id: str = ""
    _opening: SessionOpening = attrs.field(factory=SessionOpening)
    _session_scope: trio.CancelScope | None = None

    @property
    def reconnects(self) -> int:
        """Sessions after the first."""
        return max(self.sessions - 1, 0)

    async def run(self) -> None:
        """Keep a session open until cancelled.

        Raises ModelUnavailableError when the provider refuses for good or the tries are used up. A cancel ends
        the writer between two messages and closes the socket, both within a second.
        """
        there_s = trio.current_time()
        pauses = iter(RETRY_PAUSES_S)
        while True:
            tried = trio.current_time()
            reason = await self._one_session()
            self.outbox.lose_session()
            self.user.lost()
            now = trio.current_time()
            if self._useful or (self._ready and now - tried > STABLE_AFTER_S):
                there_s, pauses = now, iter(RETRY_PAUSES_S)
            pause_s = next(pauses, None)
            if pause_s is None or now - there_s > OUTAGE_S:
                raise ModelUnavailableError(reason)
            if self._renewed:
                self.events.emit("MODEL_SESSION_RENEWED", reason=reason)
            else:
                self.events.emit("MODEL_SESSION_LOST", "warning", reason=reason, next_try_in_s=pause_s)
            await trio.sleep(pause_s)

    def renew(self, reason: str) -> None:
        """End the present session on purpose; ``run`` opens another."""
        if self._session_scope is not None:
            self._renewed = reason
            self._session_scope.cancel(reason=reason)

    async def _one_session(self) -> str:
        """Open a session and run it to its end; returns why it ended."""
        self._created, self._renewed = trio.Event(), ""
        self._ready = self._useful = self._probed = False
        try:
            async with self.connect() as socket:
                return await self._converse(socket)
        except HandshakeRejectedError as error:
            if handshake_is_fatal(error.status):
                raise ModelUnavailableError(str(error)) from error
            return str(error)
        except (SocketClosedError, OSError) as error:
            return str(error) or type(error).__name__
        except trio.TooSlowError:
            return "the model did not answer in time"

    async def _converse(self, socket: MessageSocket) -> str:
        reason = ""
        self._heard_s = self._alive_s = trio.current_time()
        try:
            with trio.CancelScope() as self._session_scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, socket)
                    nursery.start_soon(self._write, socket)
                    nursery.start_soon(self._keep_alive, socket)
                    nursery.start_soon(self._watch)
        except* SocketClosedError as closed:
            reason = str(closed.exceptions[0])
        finally:
            self._session_scope = None
        if self._hopeless:
            raise ModelUnavailableError(self._hopeless)
        return self._renewed or reason

    def _end_for_good(self, reason: str) -> None:
        """No session of this call can be what we need."""
        self._hopeless = reason
        if self._session_scope is not None:
            self._session_scope.cancel(reason=reason)

    async def _read(self, socket: MessageSocket) -> None:
        """Read until cancelled. Raises SocketClosedError.

        While it waits, ``_take`` may be called in its stead.
        """
        socket.serve_by(self._take)
        while True:
            self._take(await socket.receive())

    def _take(self, raw: str | bytes) -> None:
        self._alive_s, self._probed = trio.current_time(), False
        try:
            event = decode_event(raw)
        except MalformedMessageError as error:
            self.events.emit_first(error.kind.upper(), detail=error.detail[:200])
            return
        if not isinstance(event, SessionUpdated):
            self._heard_s = self._alive_s
        if not self._ready:
            self._open(event)
        elif type(event) is AudioDelta:
            self._useful = True
            self.user.on_audio(event)
        else:
            self.user.on_event(event)

    def _open(self, event: ModelEvent) -> None:
        """Take an event of a session that has not confirmed our settings: nothing of it is heard (MO-1)."""
        match event:
            case SessionCreated() if not self._created.is_set():
                self.sessions += 1
                self._created.set()
                self.outbox.open_session(self._update())
            case SessionUpdated():
                self._confirm(event)
            case ErrorEvent() if event.event_id == self._update_id:
                self._drop(event)
            case ErrorEvent():
                self.user.on_event(event)
            case _:
                self.events.count("EVENT_BEFORE_CONFIRMATION")

    def _update(self) -> str:
        self._update_id = self.user.next_event_id()
        return encode_session_update(self._opening.settings(self.user.settings()), self._update_id)

    def _confirm(self, event: SessionUpdated) -> None:
        wrong = self._opening.contradictions(event)
        if wrong:
            self.events.emit("MODEL_SETTINGS_NOT_CONFIRMED", "error", wrong=wrong)
            self._end_for_good(f"the model does not confirm our settings: {'; '.join(wrong)}")
            return
        self._ready = True
        self.outbox.begin(self.user.ready())

    def _drop(self, error: ErrorEvent) -> None:
        """The provider refused our settings: leave out the one it names, and ask again."""
        self.events.emit(
            "MODEL_SETTING_REFUSED",
            "error",
            setting=error.param,
            message=error.message,
            cure="set another value: docs/settings.md names what sets it",
        )
        if self._opening.drop(error):
            self.outbox.open_session(self._update())
        else:
            self._end_for_good(f"the model refuses the session's settings: {error.message}")

    async def _write(self, socket: MessageSocket) -> None:
        await self._created.wait()
        await run_until_stopped(partial(self.outbox.run, socket), self.outbox.stop, grace_s=WRITER_GRACE_S)

    async def _keep_alive(self, socket: MessageSocket) -> None:
        while True:
            await trio.sleep(PING_EVERY_S)
            with trio.move_on_after(PING_BOUND_S) as waiting:
                await socket.ping()
            if waiting.cancelled_caught:
                raise SocketClosedError(1006, "no answer to a ping")

    async def _watch(self) -> None:
        """Raise SocketClosedError for a session that does not begin, or falls silent when it should speak.

        One that nears its limit is ended while nobody speaks, at RENEW_AT_LATEST_S in any case.
        """
        began_s = trio.current_time()
        while True:
            await trio.sleep(WATCH_S)
            now = trio.current_time()
            if now - began_s >= (RENEW_AFTER_S if self.user.quiet else RENEW_AT_LATEST_S):
                self.renew("the session nears its limit")
            due = not self._ready or self.user.answer_due or self.user.unheard_voice
            if not due:
                self._heard_s = self._alive_s = now
            deaf = now - self._alive_s > (SILENT_S if self._ready else OPENED_S)
            if deaf or (self.user.answer_due and now - self._heard_s > STUCK_S):
                raise SocketClosedError(1006, "the model is silent")
            if self._ready and now - self._alive_s > PROBE_AFTER_S and not self._probed:
                self._probed = True
                self.outbox.put(encode_session_update({"type": "realtime"}, self.user.next_event_id()))
