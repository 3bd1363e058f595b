"""Twilio around the media stream, over real sockets: its REST API, its webhooks, calls both ways.

In a test of your own, against a running agent (settings ``TWILIO_API_URL`` = ``twilio.api_url``)::

    async with open_simulated_twilio(agent_url="http://127.0.0.1:8080", auth_token="secret") as twilio:
        async with twilio.place_call("+15550001111", "+15552223333") as stream:
            await stream.until_closed()                # the agent says goodbye and hangs up by REST
        assert twilio.api.requests[-1].form == {"Status": "completed"}
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

import attrs
import httpx
import trio
from typing_extensions import override

from agent.core.errors import AgentError
from agent.core.task_nursery import open_task_nursery
from agent.sim.carrier.dialling import Caller, parse_twiml
from agent.sim.carrier.rest.api import ENDED, CallDesk, RestApi
from agent.sim.carrier.rest.recordings import Recordings, SimulatedRecording
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.carrier.tape import Tape
from agent.sim.serving import serve_app

TOO_SHORT: Final = 16101
"""Why there is no recording: https://www.twilio.com/docs/api/errors/16101."""
ENDED_RECORDINGS: Final = ("completed", "absent", "failed")
STATUS_S: Final = 2.0
"""How long a status callback may take."""
Callee = Callable[[SimulatedStream], Awaitable[None]]
CallStatus = Literal["queued", "ringing", "in-progress", "completed", "busy", "no-answer", "failed"]


async def listen(stream: SimulatedStream) -> None:
    """The callee of calls that nobody wrote a script for: stays on the line, says nothing."""
    await stream.until_closed()


@attrs.frozen
class Webhook:
    """A webhook posted to the agent; ``answer`` is its HTTP status, 0 when there was none."""

    t_s: float
    url: str
    fields: dict[str, str] = attrs.field(repr=False)
    answer: int


@attrs.define(eq=False, kw_only=True)
class SimulatedCall:
    """One call of the account."""

    sid: str
    direction: Literal["inbound", "outbound-api"]
    from_: str
    to: str
    status: CallStatus
    status_url: str = ""
    status_events: frozenset[str] = frozenset({"completed"})
    voice_url: str = ""
    machine_detection: bool = False
    answered_s: float | None = None
    stream: SimulatedStream | None = None
    hang_up_at_birth: bool = False
    error: str = ""
    """Why an outbound call failed."""
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False, kw_only=True)
class SimulatedTwilio(CallDesk):
    """One account. Made by ``open_simulated_twilio``."""

    account_sid: str
    auth_token: str
    numbers: dict[str, str]
    caller: Caller
    api: RestApi = attrs.field(init=False)
    api_url: str = ""
    calls: dict[str, SimulatedCall] = attrs.field(factory=dict)
    webhooks: list[Webhook] = attrs.field(factory=list)
    """About calls."""
    recordings: Recordings = attrs.field(factory=Recordings)
    recording_webhooks: list[Webhook] = attrs.field(factory=list)
    processing_s: float = 0.1
    """How long a recording is worked on after its call has ended."""
    callee: Callee = listen
    """What whoever is called does; the call ends when it returns."""
    callee_answers: Literal["human", "machine_start", "busy", "no-answer"] = "human"
    rings_s: float = 0.2
    _tasks: trio.Nursery

    @api.default
    def _make_api(self) -> RestApi:
        return RestApi(self)

    @asynccontextmanager
    async def place_call(self, from_: str, to: str, **stream: Any) -> AsyncIterator[SimulatedStream]:
        """Call the agent; yields the call's media stream, on which the caller speaks and hangs up.

        ``stream`` is passed on to ``open_simulated_stream``. Raises CallNotTakenError, httpx.HTTPError, and
        what ``agent.wire.websocket.open_client`` raises. After it, ``/voice/status`` is told.
        """
        call = SimulatedCall(
            sid=f"CA{secrets.token_hex(16)}",
            direction="inbound",
            from_=from_,
            to=to,
            status="ringing",
            status_url=f"{self.caller.agent_url}/voice/status",
        )
        self.calls[call.sid] = call
        voice_url = self.numbers.get(to) or f"{self.caller.agent_url}/voice/incoming"
        status: CallStatus = "failed"
        try:
            response = await self._ask(voice_url, call)
            async with self._connected(call, response, stream) as simulated:
                status = "completed"
                yield simulated
        finally:
            with trio.move_on_after(STATUS_S, shield=True):
                await self._end(call, status)

    # What the REST API asks.

    @override
    def status_of(self, call_sid: str) -> str | None:
        call = self.calls.get(call_sid)
        return call.status if call else None

    @override
    async def complete(self, call_sid: str) -> None:
        call = self.calls[call_sid]
        call.hang_up_at_birth = True
        if call.stream is not None:
            self._tasks.start_soon(call.stream.hang_up)
        await trio.lowlevel.checkpoint()

    @override
    def dial(self, form: dict[str, str]) -> str:
        events = form.get("StatusCallbackEvent", "completed")
        call = SimulatedCall(
            sid=f"CA{secrets.token_hex(16)}",
            direction="outbound-api",
            from_=form.get("From", ""),
            to=form.get("To", ""),
            status="queued",
            status_url=form.get("StatusCallback", ""),
            status_events=frozenset(events.split(",")),
            voice_url=form.get("Url", ""),
            machine_detection=bool(form.get("MachineDetection")),
        )
        self.calls[call.sid] = call
        self._tasks.start_soon(self._ring, call)
        return call.sid

    @override
    def describe(self, call_sid: str) -> dict[str, Any]:
        call = self.calls[call_sid]
        return {
            "sid": call.sid,
            "account_sid": self.account_sid,
            "status": call.status,
            "direction": call.direction,
            "from": call.from_,
            "to": call.to,
        }

    @override
    def record(self, call_sid: str, form: dict[str, str]) -> SimulatedRecording:
        recording = self.recordings.start(
            call_sid,
            2 if form.get("RecordingChannels") == "dual" else 1,
            callback=form.get("RecordingStatusCallback", ""),
            events=form.get("RecordingStatusCallbackEvent", ""),
        )
        self._tasks.start_soon(self._tell_of, recording, self.calls[call_sid])
        return recording

    # Calls.

    async def _ring(self, call: SimulatedCall) -> None:
        """An outbound call, from ringing to its end; what fails is noted in the call."""
        status: CallStatus = "failed"
        try:
            await self._tell(call, "initiated")
            call.status = "ringing"
            await self._tell(call, "ringing")
            await trio.sleep(self.rings_s)
            match self.callee_answers:
                case "busy" | "no-answer" as refusal:
                    status = refusal
                case _:
                    await self._converse(call)
                    status = "completed"
        except (AgentError, httpx.HTTPError, OSError, trio.TooSlowError) as error:
            call.error = str(error)
        finally:
            with trio.move_on_after(STATUS_S, shield=True):
                await self._end(call, status)

    async def _converse(self, call: SimulatedCall) -> None:
        """The callee picked up: ask the agent what to do, and be the callee of the stream it wants."""
        call.status = "in-progress"
        await self._tell(call, "answered")
        response = await self._ask(call.voice_url, call)
        async with self._connected(call, response, {}) as stream:
            await self.callee(stream)

    @asynccontextmanager
    async def _connected(
        self, call: SimulatedCall, response: httpx.Response, options: dict[str, Any]
    ) -> AsyncIterator[SimulatedStream]:
        order = parse_twiml(response)
        call.status = "in-progress"
        call.answered_s = trio.current_time()
        async with self.caller.connect(order, call.sid, **options) as stream:
            call.stream = stream
            if call.hang_up_at_birth:
                await stream.hang_up()
            yield stream

    async def _end(self, call: SimulatedCall, status: CallStatus) -> None:
        call.status = status
        call.ended.set()
        for recording in self.recordings.of_call(call.sid):
            if recording.status == "in-progress":
                self._tasks.start_soon(self._process, recording, call, trio.current_time())
        await self._tell(call, "completed")

    async def _process(self, recording: SimulatedRecording, call: SimulatedCall, ended_s: float) -> None:
        """Work on a recording of a call that has ended, and tell when it is ready."""
        recording.status = "processing"
        await trio.sleep(self.processing_s)
        tapes = (call.stream.said, call.stream.playback.tape) if call.stream else (Tape(), Tape())
        self.recordings.process(recording, *tapes, ended_s)
        if recording.status in ENDED_RECORDINGS:
            await self._tell_of(recording, call)

    # Webhooks.

    async def _tell(self, call: SimulatedCall, event: str) -> None:
        """Post a status callback, if one is wanted; one that fails is noted and forgotten, as Twilio does."""
        if call.status_url and event in call.status_events:
            with trio.move_on_after(STATUS_S), suppress(httpx.HTTPError):
                await self._ask(call.status_url, call)

    async def _tell_of(self, recording: SimulatedRecording, call: SimulatedCall) -> None:
        """Post a recording's status, if that is wanted; one that fails is noted and forgotten."""
        if not recording.callback or recording.status not in recording.callback_events:
            return
        fields = {
            "AccountSid": self.account_sid,
            "CallSid": call.sid,
            "RecordingSid": recording.sid,
            "RecordingUrl": f"{self.api_url}/2010-04-01/Accounts/{self.account_sid}/Recordings/{recording.sid}",
            "RecordingStatus": recording.status,
            "RecordingDuration": str(recording.duration_s) if recording.status == "completed" else "-1",
            "RecordingChannels": str(recording.channels),
            "RecordingSource": "StartCallRecordingAPI",
            "RecordingTrack": "both",
            **({"ErrorCode": str(TOO_SHORT)} if recording.status == "absent" else {}),
        }
        with suppress(httpx.HTTPError):
            await self._post(recording.callback, fields, self.recording_webhooks)

    async def _ask(self, url: str, call: SimulatedCall) -> httpx.Response:
        fields = self.caller.fields(call.sid, call.from_, call.to, call.direction, call.status)
        if call.machine_detection and call.status == "in-progress":
            fields["AnsweredBy"] = self.callee_answers
        if call.status in ENDED and call.answered_s is not None:
            fields["CallDuration"] = str(round(trio.current_time() - call.answered_s))
        return await self._post(url, fields, self.webhooks)

    async def _post(self, url: str, fields: dict[str, str], noted: list[Webhook]) -> httpx.Response:
        """Post a webhook, and note it with its answer."""
        url, answer = self.caller.reachable(url), 0
        try:
            response = await self.caller.post(url, fields)
            answer = response.status_code
        finally:
            noted.append(Webhook(trio.current_time(), url, fields, answer))
        return response


@asynccontextmanager
async def open_simulated_twilio(
    *,
    agent_url: str,
    auth_token: str,
    account_sid: str = "AC" + "0" * 32,
    numbers: Iterable[str] = (),
    public_url: str = "",
) -> AsyncIterator[SimulatedTwilio]:
    """A Twilio account whose numbers ring at the agent, with its REST API on a free port of 127.0.0.1.

    ``public_url`` is the agent's URL as Twilio knows it, when it is not ``agent_url``. Leaving cancels the
    calls that are left.
    """
    async with open_task_nursery() as task_nursery:
        twilio = SimulatedTwilio(
            account_sid=account_sid,
            auth_token=auth_token,
            numbers=dict.fromkeys(numbers, f"{public_url or agent_url}/voice/incoming"),
            caller=Caller(agent_url.rstrip("/"), auth_token, account_sid, public_url.rstrip("/")),
            tasks=task_nursery,
        )
        twilio.api_url = await task_nursery.start(serve_app, twilio.api.make_app())
        yield twilio
