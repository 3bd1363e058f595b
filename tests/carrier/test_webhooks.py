"""Twilio's webhooks and the watch routes, through the ASGI application without a socket."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from xml.etree import ElementTree as ET

import attrs
import httpx
import psycopg
import pytest
import trio
from trio.testing import MockClock
from twilio.request_validator import RequestValidator

from agent.carrier import webhooks
from agent.carrier.http_app import make_admin_app, make_app
from agent.carrier.replays import FirstAnswer, Replays
from agent.carrier.signature import SignatureCheck
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.carrier.twiml import VOICES
from agent.core.admission import Admission
from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.records import RecordingCallback
from agent.core.telemetry import Telemetry
from agent.core.tenant import Tenant
from agent.core.units import CallSid, RecordingSid
from agent.store.tenant_directory import TenantDirectory
from agent.web.asgi import Origin

AUTH = "auth token of the account"
BASE = "https://agent.example.com"
CALL = CallSid("CA" + "1" * 32)
FIELDS = {"CallSid": CALL, "From": "+15550001111", "To": "+15552223333", "CallStatus": "ringing"}


def behind_the_door(app: Any) -> Any:
    """``app`` with what the front door says of a request."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {"origin": Origin("192.0.2.1", "http://inner:8080")}}, receive, send)

    return served


@attrs.define(eq=False)
class Front:
    """The application with a client that posts as Twilio would."""

    client: httpx.AsyncClient
    webhooks: webhooks.VoiceWebhooks

    async def post(self, path: str, fields: dict[str, str] = FIELDS, token: str | None = AUTH) -> httpx.Response:
        """Post ``fields``, signed with ``token``."""
        headers = {}
        if token is not None:
            headers["X-Twilio-Signature"] = RequestValidator(token).compute_signature(BASE + path, fields)
        return await self.client.post(path, data=fields, headers=headers)

    @property
    def counts(self) -> dict[str, int]:
        """Events counted so far."""
        return dict(self.webhooks.events.counts)


@asynccontextmanager
async def open_front(
    *,
    auth: str | None = AUTH,
    allow_unsigned: bool = False,
    not_ready: Callable[[], str] = lambda: "",
    max_calls: int = 1,
    keep: FirstAnswer | None = None,
    **more: Any,
) -> AsyncIterator[Front]:
    check = SignatureCheck(auth, BASE, allow_unsigned)
    events = EventLog(Telemetry())
    voice = webhooks.VoiceWebhooks(
        check,
        StreamTokens(b"secret"),
        events,
        Admission(max_calls, not_ready),
        Replays(events, keep=keep),
        **more,
    )
    transport = httpx.ASGITransport(behind_the_door(make_app(voice)))
    async with httpx.AsyncClient(transport=transport, base_url="http://inner:8080") as client:
        yield Front(client, voice)


def stream_of(answer: httpx.Response) -> tuple[str, str]:
    """The stream's URL and token in an answer that connects the call."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/xml")
    stream = ET.fromstring(answer.text).find("Connect/Stream")  # noqa: S314 - our own
    assert stream is not None
    parameter = stream.find("Parameter[@name='token']")
    assert parameter is not None
    return stream.attrib["url"], parameter.attrib["value"]


@pytest.mark.parametrize(("path", "direction"), [("/voice/incoming", "inbound"), ("/voice/outgoing", "outbound")])
async def test_a_call_is_connected_with_a_token_that_knows_it(path: str, direction: Any) -> None:
    async with open_front() as front:
        url, token = stream_of(await front.post(path))
        assert url == "wss://agent.example.com/media-stream"
        issued = front.webhooks.tokens.admit(token, CALL, time.time())
        assert issued == CallTicket(CALL, direction, "+15550001111", "+15552223333")
        assert front.counts == {"CALL_ANNOUNCED": 1}


@pytest.mark.parametrize(
    "path", ["/voice/incoming", "/voice/outgoing", "/voice/status", "/voice/stream", "/voice/recording"]
)
@pytest.mark.parametrize("token", [None, "of another account"])
async def test_only_twilio_may_call_a_webhook(path: str, token: str | None) -> None:
    async with open_front() as front:
        answer = await front.post(path, token=token)
        assert answer.status_code == 403
        assert "Signature" in answer.json()["detail"]
        assert front.counts == {"WEBHOOK_REFUSED": 1}


async def test_without_an_auth_token_every_webhook_is_refused_with_what_to_set() -> None:
    async with open_front(auth=None) as front:
        for token in (None, AUTH):
            answer = await front.post("/voice/incoming", token=token)
            assert answer.status_code == 403
            assert "TWILIO_AUTH_TOKEN" in answer.json()["detail"]


async def test_unsigned_webhooks_are_taken_when_allowed() -> None:
    async with open_front(auth=None, allow_unsigned=True) as front:
        stream_of(await front.post("/voice/incoming", token=None))


@pytest.mark.parametrize(
    "reasons",
    [
        {"not_ready": lambda: "the model is starting"},
        {"not_ready": lambda: "the server is stopping"},
        {"max_calls": 0},
    ],
)
async def test_when_no_call_can_be_taken_the_caller_is_told(reasons: Any) -> None:
    async with open_front(**reasons) as front:
        answer = await front.post("/voice/incoming")
        assert [child.tag for child in ET.fromstring(answer.text)] == ["Say", "Hangup"]  # noqa: S314 - our own
        assert front.counts == {"CALL_REFUSED": 1}


SHOP = Tenant("shop", "Shop", ("+15552223333",), language="de")
HEBREW = Tenant("default", "", language="he")


def make_book(unknown_number: Literal["default", "refuse"]) -> TenantDirectory:
    book = TenantDirectory(HEBREW, unknown_number)
    book.replace([SHOP])
    return book


async def test_pc_5_a_call_to_nobodys_number_is_refused_in_the_default_language() -> None:
    """AGENT_UNKNOWN_NUMBER=refuse; a tenant's call is taken, as is one that a tenant's number makes."""
    async with open_front(tenants=make_book("refuse")) as front:
        stream_of(await front.post("/voice/incoming"))
        stream_of(await front.post("/voice/outgoing", {**FIELDS, "From": SHOP.numbers[0], "To": "+15550001111"}))
        answer = await front.post("/voice/incoming", {**FIELDS, "To": "+15559999999"})
        [say, hang_up] = ET.fromstring(answer.text)  # noqa: S314 - our own
        assert (say.tag, say.attrib, hang_up.tag) == (
            "Say",
            {"language": "he-IL", "voice": VOICES["he-IL"]},
            "Hangup",
        )
        assert front.counts == {"CALL_ANNOUNCED": 2, "CALL_REFUSED": 1}


async def test_pc_5_a_call_to_nobodys_number_is_the_default_tenants() -> None:
    async with open_front(tenants=make_book("default")) as front:
        stream_of(await front.post("/voice/incoming", {**FIELDS, "To": "+15559999999"}))


async def test_pc_5_a_busy_tenants_caller_is_told_so_in_its_language() -> None:
    async with open_front(tenants=make_book("refuse"), max_calls=0) as front:
        answer = await front.post("/voice/incoming")
        said = ET.fromstring(answer.text)[0].attrib  # noqa: S314 - our own
        assert said == {"language": "de-DE", "voice": VOICES["de-DE"]}


@pytest.mark.parametrize(
    ("answered_by", "connected"),
    [
        ("human", True),
        ("unknown", True),
        ("machine_start", False),
        ("machine_end_beep", False),
        ("fax", False),
    ],
)
async def test_machines_are_hung_up_on(answered_by: str, connected: bool) -> None:  # noqa: FBT001 - parametrized
    async with open_front() as front:
        answer = await front.post("/voice/outgoing", {**FIELDS, "AnsweredBy": answered_by})
        assert ("<Connect>" in answer.text) is connected
        assert ("<Hangup" in answer.text) is not connected


async def test_a_call_s_progress_is_counted() -> None:
    async with open_front() as front:
        answer = await front.post("/voice/status", {**FIELDS, "CallStatus": "completed"})
        assert answer.status_code == 204
        assert front.counts == {"CALL_STATUS": 1}


async def test_the_query_is_part_of_what_is_signed() -> None:
    async with open_front() as front:
        stream_of(await front.post("/voice/incoming?tenant=a%20b&x="))


async def test_what_is_not_a_voice_webhook_is_refused() -> None:
    async with open_front(allow_unsigned=True) as front:
        post = front.client.post
        assert (await post("/voice/incoming", content=b"")).status_code == 400
        assert (await post("/voice/incoming", content=b"a=%ff\xff")).status_code == 400
        assert (await post("/voice/incoming", content=b"a=1&" * 300)).status_code == 400
        assert (await front.client.get("/voice/incoming")).status_code == 405
        assert (await front.client.get("/nowhere")).status_code == 404


@pytest.mark.parametrize(
    "sid", ["", "CA1", "CA" + "g" * 32, "CA" + "1" * 33, "ca" + "1" * 32, "CA../" + "1" * 29]
)
@pytest.mark.parametrize("path", ["/voice/incoming", "/voice/outgoing", "/voice/status", "/voice/stream"])
async def test_a_call_has_a_sid_also_where_nothing_is_signed(path: str, sid: str) -> None:
    async with open_front(auth=None, allow_unsigned=True) as front:
        assert (await front.post(path, {**FIELDS, "CallSid": sid}, token=None)).status_code == 400


async def test_readiness_says_yes_or_no_and_no_more() -> None:
    reason = ""
    async with open_front(not_ready=lambda: reason) as front:
        ready = await front.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        reason = "the model is starting"
        ready = await front.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        alive = await front.client.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"alive": True})


PAGES = ("/", "/metrics", "/openapi.json")


@asynccontextmanager
async def open_admin(token: str | None) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of the public port and of the operator's."""
    async with open_front() as front:
        public = make_app(front.webhooks, token)
        admin = make_admin_app(front.webhooks, public, token)
        async with (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(behind_the_door(public)), base_url="http://a"
            ) as outside,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(behind_the_door(admin)), base_url="http://b"
            ) as inside,
        ):
            yield outside, inside


@pytest.mark.sockets  # /metrics is written in a thread
async def test_the_operators_pages_are_on_a_port_of_their_own() -> None:
    async with open_admin(None) as (outside, inside):
        for path in (*PAGES, "/docs", "/redoc"):
            assert (await outside.get(path)).status_code == 404
        about = (await inside.get("/")).json()
        assert about["version"]
        assert about["voice_webhook"] == "https://agent.example.com/voice/incoming"
        assert about["media_stream"] == "wss://agent.example.com/media-stream"
        paths = json.loads((await inside.get("/openapi.json")).text)["paths"]
        assert {"/voice/incoming", "/voice/outgoing", "/voice/status", "/readyz"} <= paths.keys()
        metrics = await inside.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "agent_active_calls 0.0" in metrics.text
        assert (await inside.get("/docs")).status_code == 404


@pytest.mark.sockets  # /metrics is written in a thread
async def test_with_a_token_the_operators_pages_are_everywhere_for_those_who_have_it() -> None:
    async with open_admin("a secret") as clients:
        for client in clients:
            for path in PAGES:
                for wrong in ("", "Bearer ", "Bearer wrong", "Basic a secret", "a secret", "Bearer a secret\xff"):
                    headers = [(b"authorization", wrong.encode("latin-1"))]
                    assert (await client.get(path, headers=headers)).status_code == 401
                assert (await client.get(path, headers={"authorization": "Bearer a secret"})).status_code == 200
            assert (await client.get("/readyz")).status_code == 200


# DO-2: requests that come twice


async def test_a_repeated_request_gets_the_first_answer_and_has_no_other_effect() -> None:
    """The same token, one promised line, one announcement; another call, path or field is another request."""
    async with open_front() as front:
        first = await front.post("/voice/incoming")
        again = await front.post("/voice/incoming")
        assert again.text == first.text
        assert front.webhooks.tokens.promised(time.time()) == 1
        assert front.counts == {"CALL_ANNOUNCED": 1, "WEBHOOK_REPEATED": 1}
        for path, change in (("/voice/incoming", {"From": "+15550001112"}), ("/voice/outgoing", {})):
            assert (await front.post(path, FIELDS | change)).text != first.text


async def test_a_call_that_was_refused_stays_refused() -> None:
    async with open_front(max_calls=0) as front:
        refused = await front.post("/voice/incoming")
        front.webhooks.admission.max_calls = 1
        assert (await front.post("/voice/incoming")).text == refused.text


async def test_what_another_process_answered_is_answered_again() -> None:
    """And its line is not kept here."""

    async def keep(key: bytes, answer: str) -> str:
        await trio.lowlevel.checkpoint()
        return "<Response>of another process</Response>"

    async with open_front(keep=keep) as front:
        for _ in range(2):
            assert (await front.post("/voice/incoming")).text == "<Response>of another process</Response>"
        assert front.webhooks.tokens.promised(time.time()) == 0


@pytest.mark.parametrize(
    "error", [DatabaseError("away"), psycopg.OperationalError("gone"), OSError("no route"), None]
)
async def test_without_postgres_the_call_is_taken_and_the_cache_remembers(
    autojump_clock: MockClock, error: Exception | None
) -> None:
    """``None``: it hangs."""

    async def keep(key: bytes, answer: str) -> str:
        if error is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        raise error or AssertionError

    async with open_front(keep=keep) as front:
        answers = [await front.post("/voice/incoming") for _ in range(3)]
        stream_of(answers[0])
        assert len({answer.text for answer in answers}) == 1
        assert front.counts["REPLAYS_IN_MEMORY"] == 1


async def test_two_repeats_at_once_get_one_answer() -> None:
    async with open_front() as front:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await front.post("/voice/incoming")).text)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len(set(answers)) == 1
        assert front.counts["CALL_ANNOUNCED"] == 1


async def test_a_recordings_status_is_kept_once_but_tried_until_it_is() -> None:
    kept: list[RecordingCallback] = []

    async def keep(told: RecordingCallback) -> None:
        await trio.lowlevel.checkpoint()
        kept.append(told)
        if len(kept) == 1:
            raise DatabaseError("away")

    async with open_listening_front(keep) as front:
        statuses = [(await front.post("/voice/recording", RECORDING_FIELDS)).status_code for _ in range(4)]
    assert statuses == [503, 204, 204, 204]
    assert len(kept) == 2


# Recordings

RECORDING_FIELDS = {
    "AccountSid": "AC" + "0" * 32,
    "CallSid": CALL,
    "RecordingSid": "RE" + "2" * 32,
    "RecordingUrl": "https://api.twilio.com/2010-04-01/Accounts/AC0/Recordings/RE2",
    "RecordingStatus": "completed",
    "RecordingDuration": "17",
    "RecordingChannels": "2",
}


@asynccontextmanager
async def open_listening_front(
    told: Callable[[RecordingCallback], Awaitable[None]],
) -> AsyncIterator[Front]:
    async with open_front() as front:
        front.webhooks.recording_told = told
        yield front


async def test_what_is_told_of_a_recording_is_handed_on() -> None:
    """With what was said of it; what was not said, or makes no sense, is left out."""
    kept: list[RecordingCallback] = []

    async def keep(told: RecordingCallback) -> None:
        await trio.lowlevel.checkpoint()
        kept.append(told)

    async with open_listening_front(keep) as front:
        assert (await front.post("/voice/recording", RECORDING_FIELDS)).status_code == 204
        odd = {"RecordingStatus": "absent", "RecordingDuration": "-1", "RecordingChannels": "7"}
        assert (await front.post("/voice/recording", {**RECORDING_FIELDS, **odd})).status_code == 204
        long = {"RecordingUrl": "https://x/" + "y" * 3000, "RecordingDuration": "9" * 30}
        assert (await front.post("/voice/recording", {**RECORDING_FIELDS, **long})).status_code == 204
    sid = RecordingSid("RE" + "2" * 32)
    url = RECORDING_FIELDS["RecordingUrl"]
    assert kept == [
        RecordingCallback(CALL, sid, "completed", url, 17, 2),
        RecordingCallback(CALL, sid, "absent", url),
        RecordingCallback(CALL, sid, "completed", "", None, 2),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"CallSid": ""},
        {"CallSid": "CA/../x"},
        {"RecordingSid": "R"},
        {"RecordingSid": "RE" + "2" * 100},
        {"RecordingStatus": "exploded"},
        {"RecordingStatus": ""},
    ],
)
async def test_what_is_no_recording_status_is_refused(wrong: dict[str, str]) -> None:
    async with open_front() as front:
        assert (await front.post("/voice/recording", {**RECORDING_FIELDS, **wrong})).status_code == 400


@pytest.mark.parametrize(
    "error", [DatabaseError("the database is away"), OSError("no route"), psycopg.OperationalError("gone")]
)
async def test_a_status_that_cannot_be_kept_is_for_the_fallback(error: Exception) -> None:
    async def fail(_: RecordingCallback) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with open_listening_front(fail) as front:
        assert (await front.post("/voice/recording", RECORDING_FIELDS)).status_code == 503
        assert front.counts["RECORDING_NOT_NOTED"] == 1


async def test_a_store_that_hangs_is_not_waited_for(autojump_clock: MockClock) -> None:
    async def hang(_: RecordingCallback) -> None:
        await trio.sleep_forever()

    async with open_listening_front(hang) as front:
        assert (await front.post("/voice/recording", RECORDING_FIELDS)).status_code == 503
    assert trio.current_time() == pytest.approx(webhooks.RECORDING_TOLD_S)


async def test_without_a_store_a_status_is_only_counted() -> None:
    async with open_front() as front:
        assert (await front.post("/voice/recording", RECORDING_FIELDS)).status_code == 204
        assert front.counts == {"RECORDING_STATUS": 1}


async def test_a_stream_s_status_callback_comes_to_a_route_of_ours() -> None:
    async with open_front() as front:
        answer = await front.post("/voice/incoming")
        stream = ET.fromstring(answer.text).find("Connect/Stream")  # noqa: S314 - our own
        assert stream is not None
        assert stream.attrib["statusCallback"] == f"{BASE}/voice/stream"
        for event in ("stream-started", "stream-stopped"):
            fields = {"CallSid": CALL, "StreamSid": "MZ1", "StreamEvent": event}
            assert (await front.post("/voice/stream", fields)).status_code == 204
        assert front.counts == {"CALL_ANNOUNCED": 1, "STREAM_STATUS": 2}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("31920: Stream - WebSocket - Handshake Error", "31920", "STREAM_REFUSED"),
        ("Error 31921, close", "31921", "CALL_ENDED"),
        ("31901", "31901", "AGENT_PUBLIC_URL"),
        ("something new" + "!" * 500, "", "twilio.com/docs/api/errors"),
        ("", "", "twilio.com/docs/api/errors"),
    ],
)
async def test_an_error_of_a_stream_is_logged_with_what_it_means_and_what_to_do(
    error: str, code: str, words: str
) -> None:
    logged: list[tuple[str, dict[str, Any]]] = []
    async with open_front() as front:
        front.webhooks.events.listener = lambda event, fields: logged.append((event, fields))
        fields = {"CallSid": CALL, "StreamSid": "MZ1", "StreamEvent": "stream-error", "StreamError": error}
        assert (await front.post("/voice/stream", fields)).status_code == 204
    [(event, told)] = logged
    assert event == "STREAM_ERROR"
    assert (told["call"], told["stream"], told["code"]) == (CALL, "MZ1", code)
    assert words in told["advice"]
    assert told["meaning"]
    assert len(told["error"]) <= 200


@pytest.mark.parametrize("kept", ["", "/agent"])
async def test_webhooks_are_found_whether_a_proxy_keeps_the_prefix_or_not(kept: str) -> None:
    base = "https://a.example/agent"
    voice = webhooks.VoiceWebhooks(
        SignatureCheck(AUTH, base, allow_unsigned=False),
        StreamTokens(b"secret"),
        EventLog(Telemetry()),
        Admission(1),
        Replays(EventLog(Telemetry())),
    )
    transport = httpx.ASGITransport(behind_the_door(make_app(voice)))
    async with httpx.AsyncClient(transport=transport, base_url="http://inner:8080") as client:
        signature = RequestValidator(AUTH).compute_signature(f"{base}/voice/incoming", FIELDS)
        headers = {"X-Twilio-Signature": signature}
        answer = await client.post(f"{kept}/voice/incoming", data=FIELDS, headers=headers)
        assert stream_of(answer)[0] == "wss://a.example/agent/media-stream"
        assert (await client.get(f"{kept}/healthz")).status_code == 200
        assert (await client.post("/other/voice/incoming", data=FIELDS, headers=headers)).status_code == 404
