"""Twilio's REST API through its own package and real sockets, against the simulated account."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from agent.carrier import rest as carrier_rest
from agent.carrier import twiml
from agent.carrier.rest import NumberWebhook, TwilioRest, open_twilio_rest
from agent.core.errors import CarrierError
from agent.core.settings import load_settings
from agent.core.units import CallSid
from agent.sim.carrier.rest.api import SERVER_FAILS, UNKNOWN, RestFault
from agent.sim.carrier.twilio import SimulatedCall, SimulatedTwilio, open_simulated_twilio

pytestmark = pytest.mark.sockets
ACCOUNT = "AC" + "a" * 32
AUTH = "token of the account"
CALL = CallSid("CA" + "c" * 32)
NUMBER = "+15552223333"


@asynccontextmanager
async def open_account(
    auth_token: str = AUTH, api_url: str = "", public_url: str = ""
) -> AsyncIterator[tuple[SimulatedTwilio, TwilioRest]]:
    with trio.fail_after(20):
        async with open_simulated_twilio(
            agent_url="http://127.0.0.1:1", auth_token=AUTH, account_sid=ACCOUNT, numbers=[NUMBER]
        ) as twilio:
            twilio.calls[CALL] = SimulatedCall(
                sid=CALL, direction="inbound", from_="+1", to=NUMBER, status="in-progress"
            )
            settings = load_settings(
                twilio_account_sid=ACCOUNT,
                twilio_auth_token=auth_token,
                twilio_number=NUMBER,
                twilio_api_url=api_url or twilio.api_url,
                public_url=public_url,
            )
            with open_twilio_rest(settings) as rest:
                assert rest is not None
                yield twilio, rest


async def test_a_call_is_hung_up() -> None:
    async with open_account() as (twilio, rest):
        await rest.hang_up(CALL)
        [request] = twilio.api.requests
        assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"
        assert request.form == {"Status": "completed"}


@pytest.mark.parametrize("fault", [UNKNOWN, RestFault(400, 21220)])
async def test_a_call_that_has_ended_may_be_hung_up(fault: RestFault) -> None:
    async with open_account() as (twilio, rest):
        twilio.api.faults.append(fault)
        await rest.hang_up(CALL)
        assert twilio.api.requests[0].answer == fault.status


async def test_a_call_is_given_new_instructions() -> None:
    async with open_account() as (twilio, rest):
        await rest.instruct(CALL, twiml.refuse_politely(twiml.UNAVAILABLE, "de"))
        [request] = twilio.api.requests
        assert "wir können Ihren Anruf" in request.form["Twiml"]
        twilio.api.faults.append(RestFault(400, 21220))
        with pytest.raises(CarrierError, match="instructing"):
            await rest.instruct(CALL, twiml.hang_up())


async def test_a_call_is_transferred_by_new_instructions_for_it() -> None:
    async with open_account() as (twilio, rest):
        await rest.transfer(CALL, "+15557770001")
        [request] = twilio.api.requests
        assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"
        assert list(request.form) == ["Twiml"]
        assert "<Dial>+15557770001</Dial>" in request.form["Twiml"]


@pytest.mark.parametrize("fault", [UNKNOWN, RestFault(400, 21220), SERVER_FAILS])
async def test_a_call_that_has_ended_cannot_be_transferred(fault: RestFault) -> None:
    async with open_account() as (twilio, rest):
        twilio.api.faults.append(fault)
        with pytest.raises(CarrierError, match="transferring"):
            await rest.transfer(CALL, "+15557770001")


async def test_recordings_have_a_channel_for_each_side() -> None:
    async with open_account() as (twilio, rest):
        sid = await rest.start_recording(CALL)
        assert twilio.api.recordings == {sid: CALL}
        assert twilio.api.requests[0].form == {"RecordingChannels": "dual"}


async def test_a_recording_that_is_to_be_told_of_names_our_url() -> None:
    async with open_account(public_url="https://agent.example.com") as (twilio, rest):
        await rest.start_recording(CALL)
        assert twilio.api.requests[0].form == {
            "RecordingChannels": "dual",
            "RecordingStatusCallback": "https://agent.example.com/voice/recording",
            "RecordingStatusCallbackEvent": "in-progress,completed,absent",
            "RecordingStatusCallbackMethod": "POST",
        }


@pytest.mark.parametrize("detect", [False, True])
async def test_an_outbound_call_is_placed(detect: bool) -> None:  # noqa: FBT001 - parametrized
    async with open_account() as (twilio, rest):
        sid = await rest.create_call(
            "+15550001111",
            url="http://127.0.0.1:1/a",
            status_callback="http://127.0.0.1:1/b",
            machine_detection=detect,
        )
        assert sid in twilio.calls
        form = twilio.api.requests[0].form
        assert (form["To"], form["From"], form["Url"]) == ("+15550001111", NUMBER, "http://127.0.0.1:1/a")
        assert form["StatusCallbackEvent"] == "initiated,ringing,answered,completed"
        assert ("MachineDetection" in form) is detect


async def test_the_account_and_its_numbers() -> None:
    async with open_account() as (_, rest):
        assert await rest.account_name() == "Simulated account"
        webhook = await rest.incoming_number_webhook(NUMBER)
        assert webhook == NumberWebhook("http://127.0.0.1:1/voice/incoming", "POST")
        assert await rest.incoming_number_webhook("+15559999999") is None


async def test_a_failing_api_is_a_carrier_error_that_says_what_and_why() -> None:
    async with open_account() as (twilio, rest):
        twilio.api.faults.append(SERVER_FAILS)
        with pytest.raises(CarrierError, match=f"hanging up {CALL}: HTTP 500: .*as asked for"):
            await rest.hang_up(CALL)
        with pytest.raises(CarrierError, match="HTTP 404"):
            await rest.start_recording(CallSid("CAunknown"))


async def test_wrong_credentials_are_a_carrier_error_without_the_secret() -> None:
    async with open_account(auth_token="wrong and secret") as (_, rest):  # noqa: S106
        with pytest.raises(CarrierError, match="HTTP 401") as caught:
            await rest.account_name()
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(rest)


async def test_an_api_that_cannot_be_reached_is_a_carrier_error() -> None:
    async with open_account(api_url="http://127.0.0.1:1") as (_, rest):
        with pytest.raises(CarrierError, match="ConnectionError"):
            await rest.hang_up(CALL)


async def test_an_api_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_rest, "HTTP_TIMEOUT_S", 0.2)
    async with open_account() as (twilio, rest):
        twilio.api.faults.append(RestFault(delay_s=5))
        with trio.fail_after(3), pytest.raises(CarrierError, match="ReadTimeout"):
            await rest.hang_up(CALL)


async def test_a_cancel_waits_for_a_write_and_leaves_a_read_alone() -> None:
    """What a write did would be unknown; a read is nobody's loss."""
    async with open_account() as (twilio, rest):
        twilio.api.faults.append(RestFault(delay_s=0.5))
        with trio.move_on_after(0.1):
            await rest.hang_up(CALL)
        assert [request.form for request in twilio.api.requests] == [{"Status": "completed"}]
        twilio.api.faults.append(RestFault(delay_s=1))
        with trio.move_on_after(0.1) as reading:
            await rest.account_name()
        assert reading.cancelled_caught
        assert len(twilio.api.requests) == 1
        await trio.sleep(1)  # the abandoned thread ends before the account is closed


async def test_without_credentials_there_is_no_rest() -> None:
    with open_twilio_rest(load_settings(twilio_account_sid=ACCOUNT)) as rest:
        assert rest is None


def test_the_first_recording_imports_nothing() -> None:
    """ST-3: the package imports lazily; done in a call it holds the interpreter for 45 ms of the greeting."""
    code = (
        "import sys\nfrom agent.carrier.rest import open_twilio_rest\n"
        "from agent.core.settings import load_settings\n"
        f"with open_twilio_rest(load_settings(twilio_account_sid={ACCOUNT!r}, twilio_auth_token='t')) as rest:\n"
        "    before = set(sys.modules); rest._client.calls('CA1').recordings\n"
        "sys.exit(', '.join(set(sys.modules) - before) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
