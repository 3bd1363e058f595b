"""A model that says one thing for ever, in PCM16 at 24 kHz: ``python -m bench.parts.recordings.model``.

Prints its URL as a line of JSON, and ends at SIGTERM. What callers say is counted and not listened to.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from base64 import b64encode
from time import monotonic
from typing import Any, Final

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.generator.clockwork import Clockwork

DELTA_S: Final = 0.2
SOUND: Final = b64encode(b"\x00\x08" * round(DELTA_S * 24_000)).decode()
AHEAD: Final = 5
"""Deltas that come at once: a model is faster than speech."""
_TEXT: Final = WSMsgType.TEXT


class Session(WSListener):
    """One session: it confirms what it is asked for, and answers the first question without end."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._settings: dict[str, Any] = {"type": "realtime", "object": "realtime.session", "id": f"s{id(self)}"}
        self._transport: WSTransport
        self._gone = self._talks = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A session begins."""
        self._transport = transport
        self._tell("session.created", session=self._settings)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """It is over."""
        del transport
        self._gone = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """An event of the agent's."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type is _TEXT:
            raw = frame.get_payload_as_bytes()
            if raw.find(b"input_audio_buffer.append", 0, 48) < 0:
                self._request(msgspec.json.decode(raw))

    def _tell(self, kind: str, **fields: Any) -> None:
        self._transport.send(_TEXT, msgspec.json.encode({"type": kind, "event_id": "e", **fields}))

    def _request(self, event: dict[str, Any]) -> None:
        if event["type"] == "session.update":
            self._settings |= event["session"]
            self._tell("session.updated", session=self._settings)
        elif event["type"] == "response.create" and not self._talks:
            self._talks = True
            self._answer((event.get("response") or {}).get("metadata"))

    def _answer(self, metadata: Any) -> None:
        names = {"response_id": f"r{id(self)}", "item_id": f"i{id(self)}", "output_index": 0, "content_index": 0}
        item = {
            "id": names["item_id"],
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        response = {
            "object": "realtime.response",
            "id": names["response_id"],
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "metadata": metadata,
        }
        self._tell("response.created", response=response)
        self._tell("response.output_item.added", response_id=names["response_id"], output_index=0, item=item)
        self._tell("conversation.item.added", item=item, previous_item_id=None)
        self._tell("response.content_part.added", **names, part={"type": "audio", "transcript": ""})
        delta = msgspec.json.encode(
            {"type": "response.output_audio.delta", "event_id": "e", **names, "delta": SOUND}
        )

        def tick(due_s: float) -> float | None:
            if self._gone:
                return None
            self._transport.send(_TEXT, delta)
            return due_s + DELTA_S

        for _ in range(AHEAD):
            tick(0.0)
        self._clockwork.at(monotonic(), tick)


async def serve() -> None:
    """Serve on a free port until SIGTERM."""
    clockwork = Clockwork()

    def begin(_request: WSUpgradeRequest) -> Session:
        return Session(clockwork)

    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    server = await ws_create_server(begin, "127.0.0.1", 0, backlog=512)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
    print(msgspec.json.encode(url).decode(), flush=True)  # noqa: T201 - how the parent is told
    await asked.wait()
    server.close()


if __name__ == "__main__":
    gc.disable()  # a process of minutes whose pauses are not what is measured
    uvloop.run(serve())
