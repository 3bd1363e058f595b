"""Twilio's REST API as far as the ``twilio`` package is used for calls, as an ASGI application.

Source: https://www.twilio.com/docs/voice/api/call-resource and its neighbours. Requests are answered by what
``CallDesk`` knows; every one is recorded, and can be made to fail or to be slow.
"""

from base64 import b64encode
from collections import deque
from functools import partial
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl

import attrs
import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from agent.sim.carrier.rest.recording_media import answer_media
from agent.sim.carrier.rest.recordings import Recordings, SimulatedRecording

_API: Final = "/2010-04-01/Accounts/{account_sid}"
CREDENTIALS_WRONG: Final = 20003
NOT_FOUND: Final = 20404
NO_CALLER_NUMBER: Final = 21213
CHANNELS_UNAVAILABLE: Final = 20001
What = Literal["account", "numbers", "create", "update", "record", "recordings", "recording", "delete", "media"]
"""What a request is about."""
_ROUTES: Final[tuple[tuple[str, str, What], ...]] = (
    ("GET", ".json", "account"),
    ("GET", "/IncomingPhoneNumbers.json", "numbers"),
    ("POST", "/Calls.json", "create"),
    ("POST", "/Calls/{sid}.json", "update"),
    ("POST", "/Calls/{sid}/Recordings.json", "record"),
    ("GET", "/Calls/{sid}/Recordings.json", "recordings"),
    ("GET", "/Recordings/{sid}.json", "recording"),
    ("DELETE", "/Recordings/{sid}.json", "delete"),
    ("GET", "/Recordings/{sid}.wav", "media"),
)
ENDED: Final = ("completed", "busy", "no-answer", "failed")
"""The statuses that nothing can change any more."""


@attrs.frozen
class RestRequest:
    """One request; ``answer`` is the HTTP status it got."""

    t_s: float
    method: str
    path: str
    form: dict[str, str]
    """Posted fields; the values of one given more than once are joined by commas."""
    answer: int


@attrs.frozen
class RestFault:
    """How the next request ends: after ``delay_s``, with ``status`` and Twilio's ``code`` (200: as usual)."""

    status: int = 200
    code: int = 0
    delay_s: float = 0.0


TOO_MANY_REQUESTS: Final = RestFault(429, 20429)
SERVER_FAILS: Final = RestFault(500, 20500)
UNKNOWN: Final = RestFault(404, NOT_FOUND)


class CallDesk(Protocol):
    """What the API asks of the simulated carrier."""

    account_sid: str
    auth_token: str
    numbers: dict[str, str]
    """The account's numbers, with the URL that Twilio asks when one is called."""
    recordings: Recordings

    def status_of(self, call_sid: str) -> str | None:
        """A call's status; None for an unknown one."""

    async def complete(self, call_sid: str) -> None:
        """End a call that is in progress; returns before its stream has ended."""

    def dial(self, form: dict[str, str]) -> str:
        """Start an outbound call; its sid."""

    def describe(self, call_sid: str) -> dict[str, Any]:
        """The call as a resource of the API."""

    def record(self, call_sid: str, form: dict[str, str]) -> SimulatedRecording:
        """Begin to record a call that is in progress."""


@attrs.define(eq=False)
class RestApi:
    """The application's state: what was asked, and what is to go wrong."""

    desk: CallDesk
    requests: list[RestRequest] = attrs.field(factory=list)
    faults: deque[RestFault] = attrs.field(factory=deque)
    """One for each of the next requests."""
    ended_call_error: tuple[int, int] = (404, NOT_FOUND)
    """What a change of a call that has ended is answered with; (400, 21220) is seen, too."""

    @property
    def recordings(self) -> dict[str, str]:
        """The recordings there are: call sid by recording sid."""
        return {sid: recording.call_sid for sid, recording in self.desk.recordings.by_sid.items()}

    def make_app(self) -> FastAPI:
        """The ASGI application."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        for method, path, what in _ROUTES:
            app.add_route(_API + path, partial(self._answer, what), [method])
        return app

    async def _answer(self, what: What, request: Request) -> Response:
        account_sid, sid = request.path_params["account_sid"], request.path_params.get("sid", "")
        came_s = trio.current_time()
        form = _form(await request.body())
        fault = self.faults.popleft() if self.faults else RestFault()
        await trio.sleep(fault.delay_s)
        answer: Response
        if fault.status >= 400:  # noqa: PLR2004  (HTTP's errors begin here)
            answer = _error(fault.status, fault.code, "as asked for")
        elif not self._knows(request, account_sid):
            answer = _error(401, CREDENTIALS_WRONG, "Authenticate")
        elif what == "account":
            body = {"sid": account_sid, "friendly_name": "Simulated account", "status": "active", "type": "Full"}
            answer = JSONResponse(body)
        elif what == "numbers":
            answer = self._numbers(request.query_params.get("PhoneNumber"))
        elif what == "create" and not form.get("From"):
            answer = _error(400, NO_CALLER_NUMBER, "Caller phone number is required")
        elif what == "create":
            answer = JSONResponse(self.desk.describe(self.desk.dial(form)), 201)
        elif what == "recordings":
            found = [recording.describe() for recording in self.desk.recordings.of_call(sid)]
            answer = JSONResponse({"recordings": found, "page": 0, "page_size": 50, "next_page_uri": None})
        elif what in ("recording", "delete", "media"):
            answer = self._recording(what, request, sid)
        else:
            answer = await self._change(what, sid, form)
        path = request.url.path
        self.requests.append(RestRequest(came_s, request.method, path, form, answer.status_code))
        return answer

    def _knows(self, request: Request, account_sid: str) -> bool:
        credentials = f"{self.desk.account_sid}:{self.desk.auth_token}".encode()
        expected = f"Basic {b64encode(credentials).decode()}"
        return account_sid == self.desk.account_sid and request.headers.get("authorization") == expected

    def _numbers(self, wanted: str | None) -> JSONResponse:
        found = [
            {"phone_number": number, "voice_url": url, "voice_method": "POST", "sid": f"PN{index:032x}"}
            for index, (number, url) in enumerate(self.desk.numbers.items())
            if wanted in (None, number)
        ]
        return JSONResponse({"incoming_phone_numbers": found, "page": 0, "page_size": 50, "next_page_uri": None})

    def _recording(self, what: What, request: Request, sid: str) -> Response:
        recording = self.desk.recordings.by_sid.get(sid)
        if recording is None or (what == "media" and recording.status != "completed"):
            return _error(404, NOT_FOUND, f"The requested resource /Recordings/{sid} was not found")
        if what == "delete":
            self.desk.recordings.delete(sid)
            return Response(status_code=204)
        if what == "recording":
            return JSONResponse(recording.describe())
        if request.query_params.get("RequestedChannels") == "2" and recording.channels == 1:
            return _error(400, CHANNELS_UNAVAILABLE, "The requested number of channels is not available")
        return answer_media(recording, request.headers.get("range", ""))

    async def _change(self, what: What, call_sid: str, form: dict[str, str]) -> JSONResponse:
        status = self.desk.status_of(call_sid)
        if status is None:
            return _error(404, NOT_FOUND, f"The requested resource /Calls/{call_sid}.json was not found")
        if status in ENDED:
            http_status, code = self.ended_call_error
            return _error(http_status, code, "Call is not in-progress")
        if what == "record":
            return JSONResponse(self.desk.record(call_sid, form).describe(), 201)
        if form.get("Status") == "completed" or "Twiml" in form or "Url" in form:
            await self.desk.complete(call_sid)
        return JSONResponse(self.desk.describe(call_sid))


def _error(status: int, code: int, message: str) -> JSONResponse:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse({"code": code, "message": message, "more_info": more, "status": status}, status)


def _form(body: bytes) -> dict[str, str]:
    form: dict[str, str] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        form[name] = f"{form[name]},{value}" if name in form else value
    return form
