"""What is asked of the carrier by REST: hang up, record, dial; by the ``twilio`` package, off the event loop.

The package blocks, so its calls run in threads with a limiter of their own (ST-3). Every request is bounded by
HTTP_TIMEOUT_S to connect and again between two reads. Writes are not abandoned by a cancel: what they did
would be unknown.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import attrs
import trio
from requests import PreparedRequest, RequestException
from requests import Response as Answer
from requests.adapters import HTTPAdapter
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from typing_extensions import override

from agent.carrier import twiml
from agent.core.errors import CarrierError
from agent.core.settings import Settings
from agent.core.units import CallSid, RecordingSid

HTTP_TIMEOUT_S: Final = 5.0
"""Twilio answers within 200 ms; a call's clean-up waits for this at most."""
MOST_ANSWER_BYTES: Final = 1024 * 1024
"""A page of fifty resources has 100 kB."""
READ_BYTES: Final = 64 * 1024
REST_THREADS: Final = 8
RECORDING_CALLBACK_PATH: Final = "/voice/recording"
RECORDING_EVENTS: Final = ("in-progress", "completed", "absent")
_TWILIO_API: Final = "https://api.twilio.com"
_NOT_FOUND: Final = 404
_NOT_IN_PROGRESS: Final = 21220
"""Twilio's error for changing a call that has ended: https://www.twilio.com/docs/api/errors/21220."""

_T = TypeVar("_T")


class CarrierRest(Protocol):
    """What a call asks of its carrier. All are writes: a cancel waits for their answer (bounded)."""

    async def hang_up(self, call_sid: CallSid) -> None:
        """End the call; a call that is unknown or has ended already is fine. Raises CarrierError."""

    async def transfer(self, call_sid: CallSid, number: str) -> None:
        """Connect the other party to ``number``; its media stream with us ends. Raises CarrierError."""

    async def instruct(self, call_sid: CallSid, instructions: str) -> None:
        """Have the carrier do what TwiML says; its media stream with us ends. Raises CarrierError."""

    async def start_recording(self, call_sid: CallSid) -> RecordingSid:
        """Start a recording with caller and agent on separate channels. Raises CarrierError."""


@attrs.frozen
class NumberWebhook:
    """What Twilio does when one of our numbers is called."""

    url: str
    method: str


@attrs.define(eq=False)
class _RebasedHttpClient:
    """Twilio's own HTTP client, asked for another base URL: the package has no setting for it."""

    inner: TwilioHttpClient
    base_url: str
    is_async: bool = False

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        return self.inner.request(method, self.base_url + url.removeprefix(_TWILIO_API), *args, **kwargs)


class _BoundedAdapter(HTTPAdapter):
    """Takes answers as they are on the wire: compressed ones, not asked for, could be any size in memory."""

    @override
    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Answer:
        request.headers["Accept-Encoding"] = "identity"
        answer = super().send(request, *args, **{**kwargs, "stream": True})
        body = bytearray()
        if answer.headers.get("Content-Encoding", "identity") == "identity":
            for part in answer.iter_content(READ_BYTES):
                body += part
                if len(body) > MOST_ANSWER_BYTES:
                    break
            else:
                answer._content = bytes(body)  # noqa: SLF001 - where requests puts it
                return answer
        answer.close()
        raise RequestException("the answer is compressed, which was not asked for, or does not end")


@attrs.define(eq=False)
class TwilioRest(CarrierRest):
    """``CarrierRest`` on Twilio, and what the command line asks besides.

    ``number`` is the one our outbound calls come from; ``recording_callback`` the URL that is told how recordings
    go on (empty: nobody is).
    """

    _client: Client = attrs.field(repr=False)
    number: str
    recording_callback: str = ""
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(REST_THREADS))

    @override
    async def hang_up(self, call_sid: CallSid) -> None:
        def complete() -> None:
            try:
                self._client.calls(call_sid).update(status="completed")
            except TwilioRestException as error:
                if error.status != _NOT_FOUND and error.code != _NOT_IN_PROGRESS:
                    raise

        await self._write(f"hanging up {call_sid}", complete)

    @override
    async def transfer(self, call_sid: CallSid, number: str) -> None:
        """By new TwiML for the call: ``<Dial>``."""
        await self._update(f"transferring {call_sid} to {number}", call_sid, twiml.dial(number))

    @override
    async def instruct(self, call_sid: CallSid, instructions: str) -> None:
        await self._update(f"instructing {call_sid}", call_sid, instructions)

    async def _update(self, what: str, call_sid: CallSid, instructions: str) -> None:
        await self._write(what, lambda: self._client.calls(call_sid).update(twiml=instructions))

    @override
    async def start_recording(self, call_sid: CallSid) -> RecordingSid:
        def record() -> str:
            told = {
                "recording_status_callback": self.recording_callback,
                "recording_status_callback_event": list(RECORDING_EVENTS),
                "recording_status_callback_method": "POST",
            }
            recording = self._client.calls(call_sid).recordings.create(
                recording_channels="dual", **(told if self.recording_callback else {})
            )
            return str(recording.sid)

        return RecordingSid(await self._write(f"recording {call_sid}", record))

    async def create_call(
        self, to: str, *, url: str, status_callback: str, machine_detection: bool = False
    ) -> CallSid:
        """Call ``to`` (E.164) from our number; Twilio asks ``url`` what to do when it is answered.

        With ``machine_detection`` it asks only after it knows who answered, and says so (AnsweredBy). A cancel
        waits for the answer, so no call is started unknown. Raises CarrierError.
        """

        def create() -> str:
            call = self._client.calls.create(
                to=to,
                from_=self.number,
                url=url,
                method="POST",
                status_callback=status_callback,
                status_callback_event=["initiated", "ringing", "answered", "completed"],
                status_callback_method="POST",
                **({"machine_detection": "Enable"} if machine_detection else {}),
            )
            return str(call.sid)

        return CallSid(await self._write(f"calling {to}", create))

    async def account_name(self) -> str:
        """The account's friendly name: the lightest request that proves the credentials. Raises CarrierError."""

        def fetch() -> str:
            return str(self._client.api.v2010.account.fetch().friendly_name)

        return await self._read("reading the account", fetch)

    async def incoming_number_webhook(self, number: str) -> NumberWebhook | None:
        """What Twilio does when ``number`` is called; None: not a number of the account. Raises CarrierError."""

        def look_up() -> NumberWebhook | None:
            found = self._client.incoming_phone_numbers.list(phone_number=number, limit=1)
            return NumberWebhook(found[0].voice_url or "", found[0].voice_method or "POST") if found else None

        return await self._read(f"looking up {number}", look_up)

    async def _write(self, what: str, call: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(_explained, what, call, limiter=self._threads)

    async def _read(self, what: str, call: Callable[[], _T]) -> _T:
        """As _write, but a cancel leaves the thread to itself: nobody misses its answer."""
        return await trio.to_thread.run_sync(
            _explained, what, call, limiter=self._threads, abandon_on_cancel=True
        )


@contextmanager
def open_twilio_rest(settings: Settings) -> Iterator[TwilioRest | None]:
    """REST with the account's credentials, its connections closed when left; None without credentials."""
    token = settings.twilio_auth_token
    if token is None or not settings.twilio_account_sid:
        yield None
        return
    inner = TwilioHttpClient(timeout=HTTP_TIMEOUT_S)
    for scheme in ("https://", "http://"):
        inner.session.mount(scheme, _BoundedAdapter(pool_maxsize=REST_THREADS))
    http_client = _RebasedHttpClient(inner, settings.twilio_api_url.rstrip("/"))
    client = Client(settings.twilio_account_sid, token.get_secret_value(), http_client=http_client)
    # The package imports some ninety modules when it is first used; in a call that takes 45 ms from the pacer.
    client.api.v2010  # noqa: B018
    callback = f"{settings.public_url}{RECORDING_CALLBACK_PATH}" if settings.public_url else ""
    try:
        yield TwilioRest(client, settings.twilio_number, callback)
    finally:
        if inner.session is not None:
            inner.session.close()


def _explained(what: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except TwilioRestException as error:
        code = f" (Twilio error {error.code})" if error.code else ""
        raise CarrierError(f"{what}: HTTP {error.status}: {error.msg}{code}") from None
    except (TwilioException, RequestException) as error:
        raise CarrierError(f"{what}: {type(error).__name__}: {error}") from None
