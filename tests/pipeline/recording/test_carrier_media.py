"""Twilio's recordings over HTTP: what is asked and how, whom the credentials go to, and what answers mean."""

from __future__ import annotations

import gc
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from agent.core.errors import CarrierError, NotReadyError, StepDeadError
from agent.core.settings import load_settings
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording import download as recordings
from agent.pipeline.recording.carrier_media import TwilioRecordings, is_twilios, open_twilio_recordings
from agent.pipeline.recording.download import RESUMES, RecordingMedia, RecordingState, fetch_recording
from agent.sim.carrier.rest.api import SERVER_FAILS, TOO_MANY_REQUESTS, RestFault
from agent.sim.carrier.rest.recordings import GeneratedSound, SimulatedRecording
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio

ACCOUNT = "AC" + "a" * 32
AUTH = "token of the account"
CALL = CallSid("CA" + "c" * 32)
RECORDING = RecordingSid("RE" + "e" * 32)
API = "https://api.twilio.com"
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{RECORDING}"
BASIC = f"Basic {b64encode(f'{ACCOUNT}:{AUTH}'.encode()).decode()}"
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "RESUME_PAUSE_S", 0.001)


def source(answer: Answer, api: str = API) -> TwilioRecordings:
    """The real client on answers made here."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return TwilioRecordings(client, httpx.URL(api), ACCOUNT, httpx.BasicAuth(ACCOUNT, AUTH))


def reply(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
    """An answer that is read as one from the network is."""
    length = {"content-length": str(len(body))}
    return httpx.Response(status, stream=httpx.ByteStream(body), headers={**length, **(headers or {})})


async def read(media: RecordingMedia) -> bytes:
    return b"".join([chunk async for chunk in media.chunks()])


async def download(carrier: TwilioRecordings, start: int = 0) -> tuple[int, int | None, bytes]:
    async with carrier.open_media(RECORDING, start) as media:
        return media.start, media.total, await read(media)


# Whose hosts


@pytest.mark.parametrize(
    ("url", "theirs"),
    [
        ("https://api.twilio.com/x", True),
        ("https://api.dublin.ie1.twilio.com/x", True),
        ("https://media.twiliocdn.com/x", True),
        ("https://API.TWILIO.COM./x", True),
        ("https://api.twilio.com:443/x", True),
        ("http://api.twilio.com/x", False),
        ("https://api.twilio.com:8443/x", False),
        ("https://someone@api.twilio.com/x", False),
        ("https://api.twilio.com.evil.example/x", False),
        ("https://eviltwilio.com/x", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://bucket.s3.amazonaws.com/x", False),
        ("file:///etc/passwd", False),
        ("http://127.0.0.1:9000/x", False),
    ],
)
def test_only_twilios_hosts_are_twilios(url: str, theirs: bool) -> None:  # noqa: FBT001 - parametrized
    assert is_twilios(httpx.URL(url), httpx.URL("https://api.twilio.com")) is theirs


def test_the_configured_api_is_trusted_on_its_own_port_only() -> None:
    api = httpx.URL("http://127.0.0.1:9000")
    assert is_twilios(httpx.URL("http://127.0.0.1:9000/x"), api)
    assert not is_twilios(httpx.URL("http://127.0.0.1:9001/x"), api)
    assert not is_twilios(httpx.URL("https://127.0.0.1:9000/x"), api)


async def test_a_redirection_within_twilio_is_followed_without_the_credentials() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.host == "api.twilio.com":
            return httpx.Response(307, headers={"location": "https://media.twiliocdn.com/signed?key=1"})
        return reply(200, b"sound", {"etag": '"1"'})

    assert await download(source(answer)) == (0, 5, b"sound")
    assert [request.headers.get("authorization") for request in seen] == [BASIC, None]
    assert str(seen[0].url) == f"{API}{PATH}.wav?RequestedChannels=2"


@pytest.mark.parametrize(
    "location",
    ["https://evil.example/x", "http://169.254.169.254/", "http://api.twilio.com/x", "//evil.example/x"],
)
async def test_a_redirection_elsewhere_is_not_followed(location: str) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(302, headers={"location": location})

    with pytest.raises(StepDeadError, match="not Twilio's"):
        await download(source(answer))
    assert seen == ["api.twilio.com"]


async def test_redirections_without_end_are_given_up() -> None:
    with pytest.raises(CarrierError, match="more than 3 times"):
        await download(source(lambda _: httpx.Response(302, headers={"location": "/again"})))


# Answers


async def test_a_part_is_asked_for_and_recognised() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["range"] == "bytes=3-"
        assert request.headers["accept-encoding"] == "identity"
        return reply(206, b"nd", {"content-range": "bytes 3-4/5"})

    assert await download(source(answer), 3) == (3, 5, b"nd")


async def test_a_range_that_is_refused_says_how_long_the_file_is() -> None:
    refused = reply(416, headers={"content-range": "bytes */5"})
    assert await download(source(lambda _: refused), 5) == (5, 5, b"")
    assert await download(source(lambda _: reply(200, b"sound")), 3) == (0, 5, b"sound")
    with pytest.raises(CarrierError, match="without saying which"):
        await download(source(lambda _: reply(206, b"nd")), 3)


async def test_a_recording_without_two_channels_comes_with_one() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params["RequestedChannels"] == "2":
            return reply(400)
        return reply(200, b"mono")

    assert await download(source(answer)) == (0, 4, b"mono")


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (404, StepDeadError, "gone"),
        (410, StepDeadError, "gone"),
        (401, CarrierError, "TWILIO_AUTH_TOKEN"),
        (403, CarrierError, "TWILIO_AUTH_TOKEN"),
        (429, CarrierError, "HTTP 429"),
        (500, CarrierError, "HTTP 500"),
        (304, CarrierError, "HTTP 304"),
    ],
)
async def test_what_a_refusal_means(status: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        await download(source(lambda _: httpx.Response(status)))
    assert AUTH not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status": 3}', b'{"recordings": [1]}'])
async def test_a_description_that_makes_no_sense(body: bytes) -> None:
    carrier = source(lambda _: reply(200, body))
    with pytest.raises(CarrierError, match="makes no sense"):
        await carrier.recording_state(RECORDING)
    with pytest.raises(CarrierError, match="makes no sense"):
        await carrier.recording_of(CALL)


async def test_a_description_without_end_is_cut_off() -> None:
    carrier = source(lambda _: reply(200, b" " * 300_000))
    with pytest.raises(CarrierError, match="does not end"):
        await carrier.recording_state(RECORDING)


async def test_sids_from_outside_stay_in_their_place_of_the_url() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(404)

    assert await source(answer, "https://proxy.example/twilio/").recording_state(RecordingSid("../x?y#z")) is None
    assert seen == [f"/twilio/2010-04-01/Accounts/{ACCOUNT}/Recordings/..%2Fx%3Fy%23z.json"]


async def test_secrets_are_not_shown() -> None:
    assert AUTH not in repr(source(lambda _: httpx.Response(404)))


# Against the simulated account


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


@asynccontextmanager
async def open_account(auth_token: str = AUTH) -> AsyncIterator[tuple[SimulatedTwilio, TwilioRecordings]]:
    with trio.fail_after(20):
        async with open_simulated_twilio(
            agent_url="http://127.0.0.1:9", auth_token=AUTH, account_sid=ACCOUNT
        ) as twilio:
            settings = load_settings(
                twilio_account_sid=ACCOUNT, twilio_auth_token=auth_token, twilio_api_url=twilio.api_url
            )
            async with open_twilio_recordings(settings) as carrier:
                assert carrier is not None
                yield twilio, carrier


def whole(recording: SimulatedRecording) -> bytes:
    return b"".join(recording.read(0, recording.size))


@pytest.mark.sockets
async def test_a_recording_is_found_downloaded_resumed_and_deleted(tmp_path: Path) -> None:
    """The whole way over real sockets, the connection broken twice."""
    async with open_account() as (twilio, carrier):
        recording = twilio.recordings.made_up(CALL, GeneratedSound(30.0))
        recording.faults.break_after += [100_000, 500_000]
        got = await fetch_recording(CALL, None, carrier, tmp_path)
        assert got is not None
        assert got.path.read_bytes() == whole(recording)
        assert [request.answer for request in twilio.api.requests] == [200, 200, 206, 206]
        sid = RecordingSid(recording.sid)
        assert await carrier.recording_state(sid) == RecordingState(sid, "completed")
        await carrier.delete_recording(sid)
        await carrier.delete_recording(sid)
        assert await carrier.recording_state(sid) is None
        assert await carrier.recording_of(CALL) is None
        assert twilio.recordings.deleted == [sid]


@pytest.mark.sockets
async def test_a_mono_recording_over_sockets(tmp_path: Path) -> None:
    async with open_account() as (twilio, carrier):
        twilio.recordings.made_up(CALL, GeneratedSound(1.0, channels=1))
        got = await fetch_recording(CALL, None, carrier, tmp_path)
        assert got is not None
        assert got.channels == 1
        assert [request.answer for request in twilio.api.requests] == [200, 400, 200]


@pytest.mark.sockets
async def test_faults_over_sockets(tmp_path: Path) -> None:
    async with open_account() as (twilio, carrier):
        recording = twilio.recordings.made_up(CALL, GeneratedSound(30.0))
        for fault in (TOO_MANY_REQUESTS, SERVER_FAILS, RestFault(401, 20003)):
            twilio.api.faults.append(fault)
            with pytest.raises(CarrierError, match=str(fault.status)):
                await fetch_recording(CALL, None, carrier, tmp_path)
        recording.status = "processing"
        with pytest.raises(NotReadyError):
            await fetch_recording(CALL, None, carrier, tmp_path)
        recording.status = "completed"
        recording.faults.redirect_to = "http://127.0.0.1:9/elsewhere"
        with pytest.raises(StepDeadError, match="not Twilio's"):
            await fetch_recording(CALL, None, carrier, tmp_path)


@pytest.mark.sockets
async def test_a_carrier_that_is_away_is_a_transport_error(tmp_path: Path) -> None:
    settings = load_settings(
        twilio_account_sid=ACCOUNT, twilio_auth_token=AUTH, twilio_api_url="http://127.0.0.1:9"
    )
    async with open_twilio_recordings(settings) as carrier:
        assert carrier is not None
        with pytest.raises(httpx.TransportError):
            await fetch_recording(CALL, None, carrier, tmp_path)


@pytest.mark.sockets
async def test_a_cancelled_download_leaves_its_part_and_no_connection(tmp_path: Path) -> None:
    """Where a write is cancelled, as well as where a read is: httpx's generators are all ended."""
    async with open_account() as (twilio, carrier):
        recording = twilio.recordings.made_up(CALL, GeneratedSound(7200.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_recording, CALL, None, carrier, tmp_path)
            with trio.fail_after(30):
                while not any(part.stat().st_size for part in parts(tmp_path)):  # noqa: ASYNC110 - a file tells nobody
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel(reason="the test")
        [part] = parts(tmp_path)
        size = part.stat().st_size
        assert 0 < size < recording.size
        recording.faults.break_after += [0] * (RESUMES + 1)
        with pytest.raises(httpx.TransportError):
            await fetch_recording(CALL, None, carrier, tmp_path)
        assert part.stat().st_size == size


@pytest.mark.sockets
async def test_a_body_that_is_left_in_the_middle_is_closed_whole() -> None:
    """None of httpx's nested generators is left to the garbage collector (warnings are errors here)."""
    async with open_account() as (twilio, carrier):
        recording = twilio.recordings.made_up(CALL, GeneratedSound(600.0))
        sid = RecordingSid(recording.sid)
        for _ in range(3):
            async with carrier.open_media(sid, 0) as media, aclosing(media.chunks()) as chunks:
                assert await anext(chunks)
        gc.collect()
        assert await carrier.recording_state(sid) is not None


async def test_without_credentials_there_are_no_recordings() -> None:
    async with open_twilio_recordings(load_settings(twilio_account_sid=ACCOUNT)) as carrier:
        assert carrier is None
