"""One Realtime session of the embedded model: client events in, server events out.

Handling an event never waits for the networks: it changes the session's state and starts a task. A turn of the
caller is transcribed while the silence after it is still being waited for; if speech resumes, that is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final

import attrs
import trio

from agent.core.audio_format import ULAW_8K
from agent.core.errors import SocketClosedError
from agent.core.units import BYTES_PER_MS
from agent.local.answering import Answering, CallerWords, PendingText
from agent.local.client_events import audio_field, count_field, decode, mapping_field, text_field
from agent.local.config import SessionConfig
from agent.local.conversation import Item, LocalConversation, read_item
from agent.local.receptionist.business import read_context
from agent.local.receptionist.receptionist import Receptionist
from agent.local.receptionist.tools import read_tools
from agent.local.speech.endpointing import (
    EndpointEvent,
    TurnEnded,
    TurnPaused,
    TurnResumed,
    TurnStarted,
)
from agent.local.speech.engines import Engines
from agent.local.speech.listening import Listener
from agent.local.speech.resampling import Narrowing
from agent.model.server_shapes import EventRefusedError, Outbox
from agent.wire.websocket import MessageSocket

OUTBOX_MESSAGES: Final = 4096
"""Events waiting to be written: a minute-long answer is 300. A client that lets this many gather is gone."""
SEND_S: Final = 20.0
"""How long one write may take before the client is given up."""
_WINDOWS_A_TURN: Final = 16
"""Windows of audio (about 0.1 ms of work each) between two chances for other sessions to run."""


def make_outbox(letters: trio.MemorySendChannel[str]) -> Outbox:
    """A session's outbox. Sending raises trio.WouldBlock when the client has stopped reading."""
    return Outbox(letters.send_nowait, digits=6)


async def run_session(socket: MessageSocket, engines: Engines) -> None:
    """Serve one client until it leaves; the socket is closed by whoever opened it.

    A client that leaves or stops reading ends the session without an error. A cancel ends it at once.
    """
    outbox, letters = trio.open_memory_channel[str](OUTBOX_MESSAGES)
    with outbox, letters:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_writer, socket, letters, nursery.cancel_scope)
            session = LocalSession.open(engines, make_outbox(outbox), nursery)
            try:
                while True:
                    await session.handle(await socket.receive())
            except (SocketClosedError, trio.WouldBlock):
                nursery.cancel_scope.cancel(reason="the client left or stopped reading")


async def _run_writer(
    socket: MessageSocket, letters: trio.MemoryReceiveChannel[str], session: trio.CancelScope
) -> None:
    await trio.lowlevel.checkpoint()
    try:
        async for letter in letters:
            with trio.fail_after(SEND_S):
                await socket.send(letter)
    except (SocketClosedError, trio.TooSlowError):
        session.cancel(reason="the client left or stopped reading")


@attrs.define(eq=False)
class LocalSession:
    """The state of one session. ``handle`` raises trio.WouldBlock when the client has stopped reading."""

    _engines: Engines
    _outbox: Outbox
    _nursery: trio.Nursery
    _conversation: LocalConversation
    _answering: Answering
    _listener: Listener
    _config: SessionConfig = attrs.field(factory=SessionConfig)
    _narrowing: Narrowing = attrs.field(factory=Narrowing)
    _guess: PendingText | None = None
    _turn_id: str = ""
    """The item that the caller's open turn will be."""

    @classmethod
    def open(cls, engines: Engines, outbox: Outbox, nursery: trio.Nursery) -> LocalSession:
        """A session that was told to the client; its tasks run in ``nursery``."""
        conversation = LocalConversation()
        answering = Answering(engines, outbox, conversation, nursery)
        session = cls(engines, outbox, nursery, conversation, answering, Listener(engines.make_vad()))
        shown = {**session._config.echo, "id": outbox.new_id("sess")}
        outbox.send("session.created", session=shown)
        return session

    async def handle(self, raw: str | bytes) -> None:
        """Obey one client event; one that cannot be obeyed becomes an ``error`` event and changes nothing."""
        await trio.lowlevel.checkpoint()
        event_id = None
        try:
            event = decode(raw)
            event_id = text_field(event, "event_id") or None
            if event["type"] == "input_audio_buffer.append":
                await self._append(audio_field(event))
            else:
                self._obey(event)
        except EventRefusedError as refused:
            self._outbox.error(refused.error, event_id)

    def _obey(self, event: Mapping[str, Any]) -> None:
        obey = self._OBEY.get(event["type"])
        if obey is None:
            raise EventRefusedError("invalid_value", f"Unknown event type {event['type']!r}.", "type")
        obey(self, event)

    def _update(self, event: Mapping[str, Any]) -> None:
        config = self._config.updated(mapping_field(event, "session"))
        if config.instructions != self._config.instructions or config.tools != self._config.tools:
            self._answering.receptionist = Receptionist(
                read_context(config.instructions), read_tools(config.tools)
            )
        self._config = config
        self._answering.voice, self._answering.audio = config.voice, config.spoken
        detection, endpointer = config.turn_detection, self._listener.endpointer
        self._listener.trimming = detection is not None
        if detection is not None:
            endpointer.threshold = detection.threshold
            endpointer.prefix_padding_ms = detection.prefix_padding_ms
            endpointer.silence_duration_ms = detection.silence_duration_ms
        self._outbox.send("session.updated", session=config.echo)

    # The caller's audio

    async def _append(self, audio: bytes) -> None:
        ulaw = audio if self._config.heard == ULAW_8K else self._narrowing.feed(audio)
        await trio.lowlevel.checkpoint()
        for count, event in enumerate(self._listener.append(ulaw)):
            if event is not None and self._config.turn_detection is not None:
                self._on_endpoint(event)
            if count % _WINDOWS_A_TURN == 0:
                await trio.lowlevel.checkpoint()

    def _on_endpoint(self, event: EndpointEvent) -> None:
        match event:
            case TurnStarted(audio_start_ms):
                self._turn_id = self._outbox.new_id("item")
                where = {"item_id": self._turn_id, "audio_start_ms": audio_start_ms}
                self._outbox.send("input_audio_buffer.speech_started", **where)
                detection = self._config.turn_detection
                if detection is not None and detection.interrupt_response and self._answering.active:
                    self._answering.cancel("", "turn_detected")
            case TurnPaused(start_ms, end_ms):
                self._guess = self._transcribe(self._listener.cut(start_ms, end_ms))
            case TurnResumed():
                self._drop_guess()
            case TurnEnded(start_ms, end_ms):
                where = {"item_id": self._turn_id, "audio_end_ms": end_ms}
                self._outbox.send("input_audio_buffer.speech_stopped", **where)
                heard = self._guess or self._transcribe(self._listener.cut(start_ms, end_ms))
                self._guess = None
                self._commit(heard, end_ms - start_ms)
                detection = self._config.turn_detection
                if detection is not None and detection.create_response and not self._answering.active:
                    self._answering.start()

    def _commit_buffer(self, _event: Mapping[str, Any]) -> None:
        if self._listener.empty:
            raise EventRefusedError("input_audio_buffer_commit_empty", "The input audio buffer is empty.")
        voiced, audio = self._listener.voiced, self._listener.take()
        self._drop_guess()
        self._turn_id = self._turn_id or self._outbox.new_id("item")
        self._commit(self._transcribe(audio if voiced else b""), len(audio) // BYTES_PER_MS)

    def _clear_buffer(self, _event: Mapping[str, Any]) -> None:
        self._listener.clear()
        self._drop_guess()
        self._outbox.send("input_audio_buffer.cleared")

    def _commit(self, heard: PendingText, audio_ms: int) -> None:
        item = Item(self._turn_id, "message", role="user", audio_ms=audio_ms)
        self._turn_id = ""
        previous = self._conversation.last_id
        where = {"item_id": item.id, "previous_item_id": previous}
        self._outbox.send("input_audio_buffer.committed", **where)
        self._add(item)
        turn = CallerWords(item, heard)
        self._answering.turns.append(turn)
        self._nursery.start_soon(partial(self._publish, turn, wanted=self._config.transcribing))

    def _transcribe(self, ulaw: bytes) -> PendingText:
        """Begin to transcribe; without audio it is done at once."""
        heard = PendingText()
        if ulaw:
            self._nursery.start_soon(self._run_transcription, heard, ulaw)
        else:
            heard.done.set()
        return heard

    async def _run_transcription(self, heard: PendingText, ulaw: bytes) -> None:
        with heard.scope:
            heard.text = await self._engines.transcribe(ulaw)
            heard.done.set()

    def _drop_guess(self) -> None:
        if self._guess is not None:
            self._guess.scope.cancel(reason="the turn is not what was guessed")
            self._guess = None

    async def _publish(self, turn: CallerWords, *, wanted: bool) -> None:
        """Put the words of a spoken turn into the conversation and, if wanted, tell the client."""
        await turn.heard.done.wait()
        turn.item.text = turn.heard.text
        if wanted:
            usage = {"type": "duration", "seconds": (turn.item.audio_ms or 0) / 1000}
            where = {"item_id": turn.item.id, "content_index": 0, "transcript": turn.heard.text, "usage": usage}
            self._outbox.send("conversation.item.input_audio_transcription.completed", **where)

    # The conversation and its answers

    def _add(self, item: Item) -> None:
        previous = self._conversation.add(item)
        for verb in ("added", "done"):
            self._outbox.send(f"conversation.item.{verb}", previous_item_id=previous, item=item.as_event())

    def _create_item(self, event: Mapping[str, Any]) -> None:
        item = read_item(mapping_field(event, "item"), self._outbox.new_id("item"))
        self._add(item)
        if item.kind == "function_call_output":
            self._answering.outputs.append(item.text)
        elif item.role == "assistant":
            self._answering.remember(item.text)
        elif item.role == "user":
            heard = PendingText(text=item.text)
            heard.done.set()
            self._answering.turns.append(CallerWords(item, heard))

    def _truncate_item(self, event: Mapping[str, Any]) -> None:
        item_id, index = text_field(event, "item_id"), count_field(event, "content_index")
        audio_end_ms = count_field(event, "audio_end_ms")
        self._conversation.truncate(item_id, index, audio_end_ms)
        self._answering.cut = True
        where = {"item_id": item_id, "content_index": index, "audio_end_ms": audio_end_ms}
        self._outbox.send("conversation.item.truncated", **where)

    def _delete_item(self, event: Mapping[str, Any]) -> None:
        item_id = text_field(event, "item_id")
        self._conversation.delete(item_id)
        self._answering.cut = True
        self._outbox.send("conversation.item.deleted", item_id=item_id)

    def _create_response(self, event: Mapping[str, Any]) -> None:
        response = mapping_field(event, "response")
        # Instructions of an answer replace the session's, so ours repeat those; what is left is for this answer.
        own = text_field(response, "instructions").removeprefix(self._config.instructions)
        self._answering.start(own, mapping_field(response, "metadata") or None)

    def _cancel_response(self, event: Mapping[str, Any]) -> None:
        self._answering.cancel(text_field(event, "response_id"), "client_cancelled")

    _OBEY: ClassVar[Mapping[str, Callable[[LocalSession, Mapping[str, Any]], None]]] = {
        "session.update": _update,
        "input_audio_buffer.commit": _commit_buffer,
        "input_audio_buffer.clear": _clear_buffer,
        "conversation.item.create": _create_item,
        "conversation.item.truncate": _truncate_item,
        "conversation.item.delete": _delete_item,
        "response.create": _create_response,
        "response.cancel": _cancel_response,
    }
