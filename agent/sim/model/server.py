"""A scripted OpenAI Realtime server: hears by loudness, answers from a script, fails on demand.

In a test of your own::

    model = ScriptedRealtime(
        [Answer("Good morning!", 900), Answer("Goodbye.", 600, tool_call=ToolCall("end_call"))],
        transcripts=["That is all, thank you."],
    )
    async with memory_realtime(lambda: model)() as model_end:   # or serve_realtime over TCP
        ...                                                     # let the agent talk to model_end
    assert model.session.conversation.truncations == []
    assert model.errors_sent == []

An answer is given whenever the caller stops speaking (``create_response``) or the client asks for one; the
first one is the greeting. Each answer's audio carries its number, so that a frame on the carrier's wire can be
attributed: see ``agent.sim.sounds.numbers_in``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import attrs
import msgspec
import trio
from typing_extensions import override

from agent.core.errors import SocketClosedError
from agent.core.task_nursery import open_task_nursery
from agent.sim.link import HeldStream
from agent.sim.memory import RealtimeServer
from agent.sim.model.energy_vad import EnergyVad
from agent.sim.model.script import Answer, Faults, Script
from agent.sim.model.session import ModelSession
from agent.sim.profile import Profile
from agent.sim.tasks import Wakeup
from agent.wire.websocket import TrioWebSocket, open_server_over


@attrs.define(eq=False, kw_only=True)
class ScriptedRealtime(RealtimeServer):
    """The model of one call: its sessions (more than one after a reconnect) go through one script.

    When ``answers`` are used up, ``default`` is said again and again. ``transcripts`` is what the caller is
    taken to have said, turn by turn. ``vad_dbfs`` is the loudness of speech; ``record`` keeps every event
    received, ``record_audio`` the caller's audio as well.
    """

    answers: Iterable[Answer] = attrs.field(default=(), kw_only=False)
    default: Answer = attrs.field(factory=lambda: Answer("I see."))
    transcripts: Iterable[str] = ()
    faults: Faults = attrs.field(factory=Faults)
    profile: Profile = attrs.field(factory=Profile)
    """``Profile.real(seed)``: what was seen of the real service happens, by chance."""
    cancel_lag_ms: int = 0
    """For how long deltas may still follow a cancel."""
    transcription_delay_ms: int = 200
    vad_dbfs: float = -40.0
    record: bool = True
    record_audio: bool = False
    script: Script = attrs.field(init=False)
    """What is left to be said."""
    sessions: list[ModelSession] = attrs.field(init=False, factory=list)
    _wakeup: Wakeup = attrs.field(init=False, factory=Wakeup)
    """Wakes the writer of the last session."""

    @script.default
    def _make_script(self) -> Script:
        return Script(deque(self.answers), self.default, deque(self.transcripts))

    @property
    def session(self) -> ModelSession:
        """The last session. Raises IndexError before the first."""
        return self.sessions[-1]

    @property
    def received(self) -> list[tuple[float, dict[str, Any]]]:
        """Every event of the client in all sessions, appended audio left out."""
        return [entry for session in self.sessions for entry in session.received]

    @property
    def errors_sent(self) -> list[dict[str, Any]]:
        """The ``error`` objects of all error events sent."""
        return [error for session in self.sessions for error in session.errors_sent]

    def inject(self, event: Mapping[str, Any] | str) -> None:
        """Send an event of your own in the last session, now; text is sent as it is."""
        message = event if isinstance(event, str) else msgspec.json.encode(event).decode()
        self.session.ready.append(message)
        self._wakeup.ring()

    def disconnect(self, *, drop: bool = False) -> None:
        """Close the last session's socket now, with ``drop`` without a close frame."""
        self.session.closing = "drop" if drop else "close"
        self._wakeup.ring()

    @override
    async def serve(self, socket: TrioWebSocket, link: HeldStream | None = None) -> None:
        """Serve one connection until either side closes it; a cancel closes it too.

        ``link`` is the server's end of the connection underneath; the faults ``deaf_at`` and
        ``never_answer_close`` need it (ValueError without).
        """
        faults = self.faults if len(self.sessions) < self.faults.sessions else Faults()
        if link is None and (faults.deaf_at is not None or faults.never_answer_close):
            raise ValueError("deaf_at and never_answer_close need the link underneath the socket")
        if link is not None and faults.never_answer_close:
            link.never_close()
        session = ModelSession(
            script=self.script,
            profile=self.profile,
            number=len(self.sessions),
            faults=faults,
            vad=EnergyVad(threshold_dbfs=self.vad_dbfs),
            cancel_lag_ms=self.cancel_lag_ms,
            transcription_delay_ms=self.transcription_delay_ms,
            record=self.record,
            record_audio=self.record_audio,
        )
        wakeup = Wakeup()
        self.sessions.append(session)
        self._wakeup = wakeup
        session.open(trio.current_time())
        try:
            async with open_task_nursery() as task_nursery:
                task_nursery.start_soon(_read, socket, session, wakeup)
                await _write(socket, session, wakeup, link)
            if link is not None and faults.never_answer_close and session.faults.close_at is None:
                await link.until_peer_gone()
        finally:
            # Both shield and bound themselves.
            if session.closing == "drop":
                await socket.abort()  # noqa: ASYNC102
            await socket.aclose(_close_code(session))  # noqa: ASYNC102


def _close_code(session: ModelSession) -> int:
    return session.faults.close_code if session.closing == "close" else 1000


async def _read(socket: TrioWebSocket, session: ModelSession, wakeup: Wakeup) -> None:
    """Give the session what comes; at the end of the socket, have the writer end as well."""
    try:
        while True:
            message = await socket.receive()
            session.receive(message, trio.current_time())
            if session.closing or session.deaf:
                wakeup.ring()
            else:
                wakeup.ring_for(session.next_due())
    except SocketClosedError:
        session.closing = session.closing or "close"
        wakeup.ring()


async def _write(socket: TrioWebSocket, session: ModelSession, wakeup: Wakeup, link: HeldStream | None) -> None:
    """Send what is due when it is due, until the session is to be closed."""
    try:
        while True:
            for message in session.due(trio.current_time()):
                await socket.send(message)
            if session.deaf and link is not None:
                link.hold()
            if session.closing is not None and not session.ready:
                return
            await wakeup.wait(session.next_due())
    except SocketClosedError:
        return


async def serve_realtime(
    port: int,
    server_factory: Callable[[], ScriptedRealtime],
    *,
    host: str = "127.0.0.1",
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve Realtime sessions over TCP until cancelled; each connection gets its own ``server_factory()``.

    ``task_status`` is started with the URL for ``OPENAI_REALTIME_URL``. Raises OSError if ``port`` is taken;
    0 takes a free one. A connection that breaks during the handshake is dropped.
    """

    async def serve_connection(stream: trio.SocketStream) -> None:
        link = HeldStream(stream)
        try:
            async with open_server_over(link) as handshake:
                await server_factory().serve(await handshake.accept(), link)
        except (SocketClosedError, trio.TooSlowError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve_connection, port, host=host))
        task_status.started(f"ws://{host}:{listeners[0].socket.getsockname()[1]}/v1/realtime")
