"""Twilio around the stream, simulated, phones the real front door: webhooks, signatures, REST, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
from greeting_agent import AGENT, AUTH, CALLER, GreetingAgent, open_world
from memory_rest import MemoryRest
from trio.testing import MockClock

from agent.carrier.rest import CarrierRest, open_twilio_rest
from agent.carrier.stream_token import CallTicket
from agent.core.errors import CarrierError, HandshakeRejectedError
from agent.core.settings import load_settings
from agent.core.units import CallSid
from agent.sim.carrier.dialling import Caller, CallNotTakenError, StreamOrder, parse_twiml, place_call
from agent.sim.carrier.rest.api import NOT_FOUND, SERVER_FAILS
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.carrier.twilio import SimulatedCall, SimulatedTwilio
from agent.sim.memory import open_memory_sockets


@asynccontextmanager
async def open_rest(twilio: SimulatedTwilio) -> AsyncIterator[CarrierRest]:
    """The agent's own REST, against the simulated account."""
    settings = load_settings(
        twilio_account_sid=twilio.account_sid,
        twilio_auth_token=twilio.auth_token,
        twilio_number=AGENT,
        twilio_api_url=twilio.api_url,
    )
    with open_twilio_rest(settings) as rest:
        assert rest is not None
        yield rest


@pytest.mark.sockets
@pytest.mark.parametrize("public_url", ["", "https://agent.example.com"])
async def test_an_inbound_call_is_signed_connected_and_reported(public_url: str) -> None:
    """Webhook, handshake and status callback are signed for the URL as Twilio knows it, proxy or not."""
    agent = GreetingAgent()
    async with open_world(agent, public_url=public_url) as twilio:
        async with twilio.place_call(CALLER, AGENT) as stream:
            await stream.until_heard_ms(200)
            [call] = twilio.calls.values()
            assert (call.status, call.stream) == ("in-progress", stream)
        assert call.status == "completed"
    assert agent.tickets == [CallTicket(CallSid(call.sid), "inbound", CALLER, AGENT)]
    assert [webhook.answer for webhook in twilio.webhooks] == [200, 204]
    assert [webhook.fields["CallStatus"] for webhook in twilio.webhooks] == ["ringing", "completed"]
    assert twilio.webhooks[-1].fields["CallDuration"] == "0"
    assert stream.playback.tape.audio() == b"\x11" * 1600


@pytest.mark.sockets
async def test_a_hang_up_by_rest_stops_the_stream() -> None:
    """The agent hangs up; the stream gets its stop, later changes of the call are refused."""
    agent = GreetingAgent()
    async with open_world(agent) as twilio, open_rest(twilio) as rest:

        async def goodbye(ticket: CallTicket) -> None:
            await rest.start_recording(ticket.call_sid)
            await rest.hang_up(ticket.call_sid)

        agent.after_greeting = goodbye
        async with twilio.place_call(CALLER, AGENT) as stream:
            assert await stream.until_closed() == 1000
        assert stream.counts["rx stop"] == 1
        assert twilio.api.requests[0].path.endswith("/Recordings.json")
        assert twilio.api.recordings
        assert twilio.status_of(stream.call_sid) == "completed"
        with pytest.raises(CarrierError, match=str(NOT_FOUND)):
            await rest.start_recording(stream.call_sid)
        await rest.hang_up(stream.call_sid)
        twilio.api.ended_call_error = (400, 21220)
        await rest.hang_up(stream.call_sid)
        assert [request.answer for request in twilio.api.requests] == [201, 200, 404, 404, 400]


@pytest.mark.sockets
async def test_an_agent_that_does_not_take_the_call() -> None:
    """TwiML without a stream, a wrong signature and an agent that is away are told apart."""
    agent = GreetingAgent(not_ready="the model is away")
    async with open_world(agent) as twilio:
        with pytest.raises(CallNotTakenError, match=r"HTTP 200 .*All our lines are busy"):
            async with twilio.place_call(CALLER, AGENT):
                pass
        assert [call.status for call in twilio.calls.values()] == ["failed"]
        twilio.caller = attrs.evolve(twilio.caller, auth_token="another token")  # noqa: S106
        with pytest.raises(CallNotTakenError, match="HTTP 403"):
            async with twilio.place_call(CALLER, AGENT):
                pass
        agent_url = twilio.caller.agent_url
        with pytest.raises(CallNotTakenError, match="HTTP 403"):
            async with place_call(agent_url, CALLER, AGENT):
                pass
        caller = Caller(agent_url)
        order = StreamOrder(f"ws{agent_url.removeprefix('http')}/media-stream", {})
        with pytest.raises(HandshakeRejectedError):
            async with caller.connect(order, "CA1"):
                pass
    with pytest.raises(httpx.ConnectError):
        async with place_call("http://127.0.0.1:1", CALLER, AGENT):
            pass


@pytest.mark.sockets
async def test_an_outbound_call_rings_connects_and_reports() -> None:
    """Scenario C: created by REST, answered by a human, TwiML fetched, every status told."""
    agent = GreetingAgent()
    heard: list[SimulatedStream] = []

    async def callee(stream: SimulatedStream) -> None:
        await stream.until_heard_ms(200)
        heard.append(stream)
        await stream.hang_up()

    async with open_world(agent) as twilio, open_rest(twilio) as rest:
        twilio.callee = callee
        base = twilio.caller.agent_url
        sid = await _dial(rest, base)
        call = twilio.calls[sid]
        await call.ended.wait()
        await _until_told(twilio, call)
    assert call.error == ""
    assert heard[0].call_sid == sid
    assert agent.tickets == [CallTicket(CallSid(sid), "outbound", AGENT, CALLER)]
    told = [hook.fields["CallStatus"] for hook in twilio.webhooks if hook.url.endswith("/voice/status")]
    assert told == ["queued", "ringing", "in-progress", "completed"]
    assert [hook.fields.get("AnsweredBy") for hook in twilio.webhooks][-2] == "human"


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("answers", "status"), [("busy", "busy"), ("no-answer", "no-answer"), ("machine_start", "failed")]
)
async def test_an_outbound_call_that_nobody_takes(answers: str, status: str) -> None:
    """A machine is told to hang up, so there is no stream; the simulated call says so."""
    agent = GreetingAgent()
    async with open_world(agent) as twilio, open_rest(twilio) as rest:
        twilio.callee_answers = answers  # type: ignore[assignment]  # parametrised
        call = twilio.calls[await _dial(rest, twilio.caller.agent_url)]
        await call.ended.wait()
        await _until_told(twilio, call)
    assert call.status == status
    assert agent.tickets == []


@pytest.mark.sockets
async def test_a_call_hung_up_while_it_rings_is_stopped_when_it_is_answered() -> None:
    agent = GreetingAgent()
    async with open_world(agent) as twilio, open_rest(twilio) as rest:
        sid = await _dial(rest, twilio.caller.agent_url)
        await rest.hang_up(CallSid(sid))
        await twilio.calls[sid].ended.wait()
        stream = twilio.calls[sid].stream
        assert stream is not None
        assert stream.counts["rx stop"] == 1


async def _dial(rest: CarrierRest, base: str) -> str:
    create_call = rest.create_call  # type: ignore[attr-defined]  # not all carriers dial
    sid: str = await create_call(
        CALLER, url=f"{base}/voice/outgoing", status_callback=f"{base}/voice/status", machine_detection=True
    )
    return sid


async def _until_told(twilio: SimulatedTwilio, call: SimulatedCall) -> None:
    while twilio.webhooks[-1].fields["CallStatus"] != call.status:  # noqa: ASYNC110  (bounded by open_world)
        await trio.sleep(0.01)


@pytest.mark.sockets
async def test_a_call_without_a_number_to_call_from_is_refused() -> None:
    async with open_world(GreetingAgent()) as twilio:
        api = f"{twilio.api_url}/2010-04-01/Accounts/{twilio.account_sid}"
        async with httpx.AsyncClient(auth=(twilio.account_sid, AUTH), trust_env=False) as client:
            answer = await client.post(f"{api}/Calls.json", data={"To": CALLER})
            assert (answer.status_code, answer.json()["code"]) == (400, 21213)
            twilio.api.faults.append(SERVER_FAILS)
            assert (await client.get(f"{api}.json")).status_code == 500
            assert (await client.get(f"{api}.json")).status_code == 200


def test_twiml_is_read_as_twilio_reads_it() -> None:
    body = (
        "<Response><Connect><Stream url='wss://a/b'><Parameter name='token' value='t&amp;u'/></Stream>"
        "</Connect></Response>"
    )
    assert parse_twiml(httpx.Response(200, text=body)) == StreamOrder("wss://a/b", {"token": "t&u"})
    for wrong in ("", "<Response/>", "<Response><Connect><Stream/></Connect></Response>", "<html>"):
        with pytest.raises(CallNotTakenError):
            parse_twiml(httpx.Response(200, text=wrong))


# In virtual time.


async def test_rest_in_memory_takes_its_time_and_ends_the_stream(autojump_clock: MockClock) -> None:
    """MemoryRest is a CarrierRest: requests take time, failures are CarrierErrors, a hang-up stops the stream."""
    rest = MemoryRest(delay_s=0.25)
    carrier: CarrierRest = rest
    async with (
        open_memory_sockets() as (carrier_end, _),
        open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1") as stream,
    ):
        rest.streams["CA1"] = stream
        rest.failures.append("the account is suspended")
        with pytest.raises(CarrierError, match="suspended"):
            await carrier.start_recording(CallSid("CA1"))
        recording = await carrier.start_recording(CallSid("CA1"))
        assert await carrier.start_recording(CallSid("CA1")) == recording
        await carrier.hang_up(CallSid("CA1"))
        assert stream.is_closed
        await carrier.hang_up(CallSid("CA_unknown"))
        sid = await rest.create_call(CALLER, url="", status_callback="")
    assert rest.created == [sid]
    assert rest.hung_up == ["CA1", "CA_unknown"]
    assert [request.what for request in rest.requests] == [
        *["start_recording"] * 3,
        *["hang_up"] * 2,
        "create_call",
    ]
    times = [request.t_s for request in rest.requests]
    assert times[:4] == pytest.approx([0.0, 0.25, 0.5, 0.75])
