"""Twilio's recordings over HTTP: their state, their files as streams, deleting them. From Twilio's hosts only.

The account's credentials go to the API's own host and nowhere else, wherever it redirects to.
Sources: https://www.twilio.com/docs/voice/api/recording-resource (states, formats, and RequestedChannels, refused
with 400 when there are not as many); https://support.twilio.com/hc/en-us/articles/223183748 (twiliocdn.com).
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import attrs
import httpx
import msgspec
import trio
from typing_extensions import override

from agent.core.errors import CarrierError, StepDeadError
from agent.core.settings import Settings
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording.download import RecordingMedia, RecordingSource, RecordingState

TWILIO_DOMAINS: Final = ("twilio.com", "twiliocdn.com")
CONNECT_S: Final = 10.0
SILENCE_S: Final = 30.0
"""Longest time between two reads: after it the connection counts as broken."""
REDIRECTS: Final = 3
READ_BYTES: Final = 64 * 1024
MOST_JSON_BYTES: Final = 256 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_OK, _PARTIAL, _BAD_REQUEST, _RANGE_REFUSED = 200, 206, 400, 416
_REDIRECTION: Final = range(300, 400)
_CREDENTIALS: Final = (401, 403)
_GONE: Final = (404, 410)


def is_twilios(url: httpx.URL, api: httpx.URL) -> bool:
    """Whether ``url`` is on the API's own origin, or on a host of Twilio's over HTTPS."""
    if url.userinfo:
        return False
    if _origin(url) == _origin(api):
        return True
    host = url.host.rstrip(".").lower()
    of_twilio = any(host == domain or host.endswith(f".{domain}") for domain in TWILIO_DOMAINS)
    return of_twilio and url.scheme == "https" and url.port is None


class _Recording(msgspec.Struct):
    sid: str
    status: str


class _RecordingList(msgspec.Struct):
    recordings: list[_Recording]


@attrs.define(eq=False)
class TwilioRecordings(RecordingSource):
    """``RecordingSource`` on Twilio. Made by ``open_twilio_recordings``."""

    _client: httpx.AsyncClient = attrs.field(repr=False)
    _api: httpx.URL
    _account: str
    _auth: httpx.BasicAuth = attrs.field(repr=False)

    @override
    async def recording_of(self, call_sid: CallSid) -> RecordingState | None:
        body = await self._get_json(f"Calls/{quote(call_sid, safe='')}/Recordings.json")
        if body is None:
            return None
        found = _decode(body, _RecordingList).recordings
        return RecordingState(RecordingSid(found[0].sid), found[0].status) if found else None

    @override
    async def recording_state(self, recording_sid: RecordingSid) -> RecordingState | None:
        body = await self._get_json(f"{self._resource(recording_sid)}.json")
        return RecordingState(recording_sid, _decode(body, _Recording).status) if body is not None else None

    @override
    async def delete_recording(self, recording_sid: RecordingSid) -> None:
        """A cancel may come before or after the deletion: repeat it."""
        path = f"{self._resource(recording_sid)}.json"
        async with self._answer("DELETE", self._url(path), {}) as response:
            if response.status_code not in _GONE:
                _check(response, f"deleting {recording_sid}")

    @asynccontextmanager
    @override
    async def open_media(self, recording_sid: RecordingSid, start: int) -> AsyncIterator[RecordingMedia]:
        """Both channels are asked for; a recording that has one comes with one."""
        path = f"{self._resource(recording_sid)}.wav"
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        for channels in (2, 1):
            url = self._url(path).copy_set_param("RequestedChannels", channels)
            async with self._answer("GET", url, headers) as response:
                if channels > 1 and response.status_code == _BAD_REQUEST:
                    continue
                if response.status_code in _GONE:
                    raise StepDeadError(f"recording {recording_sid} is gone at the carrier")
                if response.status_code != _RANGE_REFUSED:
                    _check(response, f"downloading {recording_sid}")
                yield _media_of(response, start)
                return

    def _resource(self, recording_sid: RecordingSid) -> str:
        return f"Recordings/{quote(recording_sid, safe='')}"

    def _url(self, path: str) -> httpx.URL:
        return self._api.copy_with(
            raw_path=f"{self._api.path.rstrip('/')}/2010-04-01/Accounts/{self._account}/{path}".encode()
        )

    async def _get_json(self, path: str) -> bytes | None:
        """A resource; None: there is none."""
        async with self._answer("GET", self._url(path), {"Accept-Encoding": "identity"}) as response:
            if response.status_code in _GONE:
                return None
            _check(response, f"asking for {path}")
            body = bytearray()
            async with aclosing(_read(response)) as parts:
                async for part in parts:
                    body += part
                    if len(body) > MOST_JSON_BYTES:
                        raise CarrierError(f"asking for {path}: the answer does not end")
            return bytes(body)

    @asynccontextmanager
    async def _answer(
        self, method: str, url: httpx.URL, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request, redirections followed as far as they stay with Twilio."""
        for _ in range(REDIRECTS + 1):
            if not is_twilios(url, self._api):
                raise StepDeadError(f"the carrier's API redirects to {_origin(url)}, which is not Twilio's")
            auth = self._auth if _origin(url) == _origin(self._api) else None
            async with self._client.stream(method, url, headers=headers, auth=auth) as response:
                location = response.headers.get("location", "")
                if response.status_code not in _REDIRECTION or not location:
                    yield response
                    return
            try:
                url = url.join(location)
            except httpx.InvalidURL as error:
                raise CarrierError(f"the carrier's API redirects to an address that is none: {error}") from None
        raise CarrierError(f"the carrier's API redirects more than {REDIRECTS} times")


@asynccontextmanager
async def open_twilio_recordings(settings: Settings) -> AsyncIterator[TwilioRecordings | None]:
    """The account's recordings; None without credentials. Connections are closed when left."""
    token = settings.twilio_auth_token
    if token is None or not settings.twilio_account_sid:
        yield None
        return
    # Reading the certificates takes 20 ms, too long for the event loop of a server with calls.
    tls = await trio.to_thread.run_sync(httpx.create_ssl_context)
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    async with httpx.AsyncClient(verify=tls, timeout=timeout) as client:
        auth = httpx.BasicAuth(settings.twilio_account_sid, token.get_secret_value())
        yield TwilioRecordings(client, httpx.URL(settings.twilio_api_url), settings.twilio_account_sid, auth)


def _media_of(response: httpx.Response, start: int) -> RecordingMedia:
    """What part of the file comes; an answer that refuses the range says at least how long the file is."""

    async def nothing() -> AsyncGenerator[bytes, None]:
        return
        yield b""

    etag = response.headers.get("etag", "")
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    given = content_range.group(2) if content_range else "*"
    total = int(given) if given != "*" else None
    if response.status_code == _RANGE_REFUSED:
        # We have it whole already, or it is another file than the one we have a part of.
        return RecordingMedia(start, total, etag, nothing)
    if response.status_code == _PARTIAL:
        if content_range is None or content_range.group(1) is None:
            raise CarrierError("a part of the recording came without saying which")
        return RecordingMedia(int(content_range.group(1)), total, etag, partial(_read, response))
    length = response.headers.get("content-length", "")
    return RecordingMedia(0, int(length) if length.isdigit() else None, etag, partial(_read, response))


async def _read(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes, to be closed by ``aclosing``. Raises httpx.TransportError."""
    parts = response.aiter_raw(READ_BYTES)
    try:
        async for part in parts:
            yield part
    finally:
        # httpx nests generators; closing the outer one would leave the inner ones to the garbage collector, about
        # which Trio complains rightly. Cancelled in its innermost wait, every one of them ends as it should.
        with trio.CancelScope(shield=True) as scope:
            scope.cancel(reason="the body is left")
            async for _ in parts:
                pass


def _check(response: httpx.Response, what: str) -> None:
    """Raise CarrierError unless the request was granted."""
    status = response.status_code
    if status in _CREDENTIALS:
        raise CarrierError(f"{what}: HTTP {status}: check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
    if not response.is_success:
        raise CarrierError(f"{what}: HTTP {status}")


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise CarrierError(f"the carrier's answer makes no sense: {error}") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port or default
