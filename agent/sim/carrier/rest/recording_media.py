"""The file of a simulated recording as an HTTP answer: whole or from some byte on, redirected, or broken off."""

import re
from collections.abc import AsyncGenerator
from typing import Final

import trio
from fastapi import Response

from agent.sim.carrier.rest.recordings import SimulatedRecording
from agent.web.streaming import StreamedResponse

_RANGE: Final = re.compile(r"bytes=(\d+)-")


class BrokenOffError(Exception):
    """Makes the server drop the connection in the middle of an answer."""


def answer_media(recording: SimulatedRecording, wanted: str) -> Response:
    """The answer to a request for a recording's file; ``wanted`` is its Range header."""
    faults, size = recording.faults, recording.size
    if faults.redirect_to:
        return Response(status_code=307, headers={"location": faults.redirect_to})
    asked = _RANGE.fullmatch(wanted)
    start = int(asked.group(1)) if asked and faults.ranges else 0
    headers = {"etag": recording.etag, "accept-ranges": "bytes"}
    if start and start >= size:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    if start:
        headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
    return StreamedResponse(
        _pieces(recording, start, faults.break_after.popleft() if faults.break_after else None),
        206 if start else 200,
        {**headers, "content-length": str(size - start)},
        "audio/x-wav",
    )


async def _pieces(
    recording: SimulatedRecording, start: int, break_after: int | None
) -> AsyncGenerator[bytes, None]:
    end = recording.size if break_after is None else min(recording.size, start + break_after)
    for piece in recording.read(start, end):
        await trio.lowlevel.checkpoint()
        yield piece
    if break_after is not None:
        raise BrokenOffError
