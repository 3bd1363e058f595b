"""The yardstick: a plain bridge between carrier and model, in the style of the carrier's own sample.

Source: https://github.com/twilio-samples/speech-assistant-openai-realtime-api-python. Two coroutines a call,
uvloop and websockets, both at their fastest; each delta goes on as one message. It does not pace, keeps no
records, measures nothing, loses a call with its first error, and answers nobody but the carrier: the least that
can be done for a call, to measure the agent against on any machine.

Run as ``python -m bench.yardstick``; serves on a free port, and prints its URL.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Bridge:
    """One call between its two sockets."""

    def __init__(self, carrier: ServerConnection, model: ClientConnection) -> None:
        self.carrier = carrier
        self.model = model
        self.stream_sid = ""
        self.latest_media_ms = 0
        self.response_began_ms: int | None = None
        self.last_item = ""
        self.marks: list[str] = []

    async def receive_from_carrier(self) -> None:
        """Forward the caller's audio, until the carrier stops."""
        async for message in self.carrier:
            data = json.loads(message)
            match data["event"]:
                case "media":
                    self.latest_media_ms = int(data["media"]["timestamp"])
                    append = {"type": "input_audio_buffer.append", "audio": data["media"]["payload"]}
                    await self.model.send(json.dumps(append))
                case "start":
                    self.stream_sid = data["start"]["streamSid"]
                case "mark":
                    if self.marks:
                        self.marks.pop(0)
                case "stop":
                    break
        await self.model.close()

    async def send_to_carrier(self) -> None:
        """Forward the model's audio, and clear it when the caller speaks."""
        async for message in self.model:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                await self._media(event)
            elif event["type"] == "input_audio_buffer.speech_started" and self.last_item:
                await self._interrupt()

    async def _media(self, event: dict[str, Any]) -> None:
        media = {"event": "media", "streamSid": self.stream_sid, "media": {"payload": event["delta"]}}
        await self.carrier.send(json.dumps(media))
        if event["item_id"] != self.last_item:
            self.response_began_ms, self.last_item = self.latest_media_ms, event["item_id"]
        mark = {"event": "mark", "streamSid": self.stream_sid, "mark": {"name": "responsePart"}}
        await self.carrier.send(json.dumps(mark))
        self.marks.append("responsePart")

    async def _interrupt(self) -> None:
        if self.marks and self.response_began_ms is not None:
            truncate = {
                "type": "conversation.item.truncate",
                "item_id": self.last_item,
                "content_index": 0,
                "audio_end_ms": self.latest_media_ms - self.response_began_ms,
            }
            await self.model.send(json.dumps(truncate))
            await self.carrier.send(json.dumps({"event": "clear", "streamSid": self.stream_sid}))
            self.marks.clear()
            self.last_item, self.response_began_ms = "", None


async def answer(carrier: ServerConnection) -> None:
    """One call, to its end."""
    url = os.environ["OPENAI_REALTIME_URL"]
    session = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {
            "input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}},
            "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy"},
        },
        "instructions": "You are a helpful and bubbly AI assistant.",
    }
    try:
        async with connect(url, compression=None, proxy=None) as model:
            await model.send(json.dumps({"type": "session.update", "session": session}))
            await model.send(json.dumps({"type": "response.create"}))
            bridge = Bridge(carrier, model)
            await asyncio.gather(bridge.receive_from_carrier(), bridge.send_to_carrier())
    except ConnectionClosed:
        return


async def run() -> None:
    """Serve until killed."""
    async with serve(answer, "127.0.0.1", 0, compression=None, backlog=512) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"http://127.0.0.1:{port}", flush=True)  # noqa: T201 - how the parent is told
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run())
