"""The carrier's recordings in a benchmark: every call can be recorded, and is told of when it has ended.

A process of its own: serving files must not disturb the ear of the callers' process. Started as ``python -m
bench.after_calls.recording_desk``; prints its URL as a line of JSON, ends at SIGTERM. ``POST /ended`` says which
calls have ended: their recordings are ready a moment later.
"""

import signal
import sys
from typing import Any, Final
from urllib.parse import parse_qs

import attrs
import httpx
import msgspec
import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from agent.sim.carrier.dialling import Caller
from agent.sim.carrier.rest.recording_media import answer_media
from agent.sim.carrier.rest.recordings import GeneratedSound, SimulatedRecording
from agent.sim.serving import serve_app

ACCOUNT_SID: Final = "AC" + "0" * 32
TOKEN: Final = "token"  # noqa: S105 - of an account that is not one
READY_S: Final = 0.2
"""How long the carrier works on a recording."""
_API: Final = f"/2010-04-01/Accounts/{ACCOUNT_SID}"
_CALL, _RECORDING = "CA", "RE"


def recording_sid(call_sid: str) -> str:
    """The recording of a call."""
    return _RECORDING + call_sid.removeprefix(_CALL)


@attrs.frozen
class DeskOrder:
    """What the process is told, as JSON on its command line."""

    seconds: float
    """Length of each recording: 200 ms of sound a second on each channel in turn."""


@attrs.define(eq=False)
class RecordingDesk:
    """The account's recordings."""

    seconds: float
    callbacks: dict[str, str] = attrs.field(factory=dict)
    """Where to tell of which call."""

    def make_app(self, task_nursery: trio.Nursery) -> FastAPI:
        """The ASGI application; callbacks are posted in ``task_nursery``."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.post(_API + "/Calls/{call_sid}/Recordings.json")
        async def record(request: Request, call_sid: str) -> Response:
            form = parse_qs((await request.body()).decode())
            self.callbacks[call_sid] = form.get("RecordingStatusCallback", [""])[0]
            return JSONResponse({**self._of(call_sid).describe(), "status": "in-progress"}, 201)

        @app.get(_API + "/Recordings/{sid}.json")
        async def recording(sid: str) -> dict[str, Any]:
            return self._of(_CALL + sid.removeprefix(_RECORDING)).describe()

        @app.get(_API + "/Recordings/{sid}.wav")
        async def media(request: Request, sid: str) -> Response:
            found = self._of(_CALL + sid.removeprefix(_RECORDING))
            return answer_media(found, request.headers.get("range", ""))

        @app.post("/ended")
        async def ended(request: Request) -> None:
            task_nursery.start_soon(self._tell, msgspec.json.decode(await request.body(), type=list[str]))

        return app

    def _of(self, call_sid: str) -> SimulatedRecording:
        return SimulatedRecording(
            sid=recording_sid(call_sid),
            call_sid=call_sid,
            status="completed",
            channels=2,
            sound=GeneratedSound(self.seconds),
        )

    async def _tell(self, call_sids: list[str]) -> None:
        """Post the status callbacks of calls that have ended, one after the other, as the carrier signs them."""
        await trio.sleep(READY_S)
        for call_sid in call_sids:
            url, found = self.callbacks.get(call_sid, ""), self._of(call_sid)
            fields = {
                "AccountSid": ACCOUNT_SID,
                "CallSid": call_sid,
                "RecordingSid": found.sid,
                "RecordingStatus": found.status,
                "RecordingDuration": str(found.duration_s),
                "RecordingChannels": str(found.channels),
            }
            try:
                await Caller(url, TOKEN).post(url, fields)
            except httpx.HTTPError as error:
                # The worker asks by itself after a while; that shows in the figures.
                print(f"{call_sid} was not told of: {error!r}", file=sys.stderr)  # noqa: T201 - its log


async def serve_desk(order: DeskOrder) -> None:
    """Serve on a free port until SIGTERM; prints the URL as one line of JSON first."""
    desk = RecordingDesk(order.seconds)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_app, desk.make_app(nursery))
            print(msgspec.json.encode(url).decode(), flush=True)  # noqa: T201  (how the parent is told)
            async for _ in signals:
                nursery.cancel_scope.cancel(reason="asked to stop")
                break


if __name__ == "__main__":
    trio.run(serve_desk, msgspec.json.decode(sys.argv[1], type=DeskOrder))
