"""Answers of one session: at most one is generated at a time, in a task with a cancel scope of its own.

An answer is thought out once the caller's turns are text, then spoken sentence by sentence, faster than real
time, so that the first is heard while the next is made. What the receptionist learnt becomes the session's
state, and the turns count as answered, when the first of it is sent: an answer cancelled before that leaves no
trace, and the next one deals with the same words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.local.conversation import Item, LocalConversation
from agent.local.receptionist.business import read_context
from agent.local.receptionist.receptionist import Receptionist, Reply, State
from agent.local.response import LocalResponse
from agent.local.speech.engines import Engines
from agent.model.server_shapes import EventRefusedError, Outbox

_VERBATIM: Final = ("say exactly, and nothing else:", "say exactly:")


@attrs.define(eq=False)
class PendingText:
    """Speech on its way to text; cancelling ``scope`` discards it."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)
    text: str = ""


@attrs.define(eq=False)
class CallerWords:
    """Words of the caller, spoken or typed, in the conversation as ``item``."""

    item: Item
    heard: PendingText


@attrs.define(eq=False)
class _RunningAnswer:
    """The answer being generated; its scope was made before its task."""

    answer: LocalResponse
    instructions: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.frozen
class _Thought:
    """What to say, the state after it, and what it deals with."""

    state: State
    reply: Reply
    turns: Sequence[CallerWords] = ()
    outputs: Sequence[str] = ()


@attrs.define(eq=False)
class Answering:
    """What was not answered yet, and the answer under way."""

    _engines: Engines
    _outbox: Outbox
    _conversation: LocalConversation
    _nursery: trio.Nursery
    receptionist: Receptionist = attrs.field(factory=lambda: Receptionist(read_context("")))
    voice: str = ""
    audio: AudioFormat = ULAW_8K
    """What answers are spoken in."""
    cut: bool = False
    """Whether an answer was cut short since the last one: then noise is answered too, or nobody would speak."""
    turns: list[CallerWords] = attrs.field(factory=list)
    """Words to be answered."""
    outputs: list[str] = attrs.field(factory=list)
    """Tools' results to be answered."""
    _state: State = attrs.field(factory=State)
    _running: _RunningAnswer | None = None

    @property
    def active(self) -> bool:
        """Is an answer being generated?"""
        return self._running is not None

    def remember(self, said: str) -> None:
        """``said`` was the answer to all words before it: the history of a lost session is being replayed."""
        for turn in self.turns:
            self._state, _ = self.receptionist.respond(self._state, turn.heard.text)
        self.turns.clear()
        self._state, _ = self.receptionist.say(self._state, said)

    def start(self, instructions: str = "", metadata: Mapping[str, Any] | None = None) -> None:
        """Begin an answer. Raises EventRefusedError while one is active."""
        if self._running is not None:
            text = f"Conversation already has an active response: {self._running.answer.id}."
            raise EventRefusedError("conversation_already_has_active_response", text)
        self._running = running = _RunningAnswer(
            LocalResponse(self._outbox.new_id("resp"), self.voice, self.audio, metadata), instructions
        )
        self._outbox.send_all(running.answer.begin())
        self._nursery.start_soon(self._run, running)

    def cancel(self, response_id: str, reason: str) -> None:
        """End the active answer; its last events are sent before this returns. Raises EventRefusedError."""
        running = self._running
        if running is None or response_id not in {"", running.answer.id}:
            text = "Cancellation failed: no active response found."
            raise EventRefusedError("response_cancel_not_active", text)
        self._running, self.cut = None, True
        self._outbox.send_all(running.answer.finish("cancelled", reason))
        running.scope.cancel(reason=reason)

    async def _run(self, running: _RunningAnswer) -> None:
        answer, words = running.answer, _verbatim(running.instructions)
        await trio.lowlevel.checkpoint()
        with running.scope:
            turns = () if words else tuple(self.turns)
            for turn in turns:
                await turn.heard.done.wait()
            thought = self._think(running.instructions, words, turns)
            for sentence in self._engines.sentences(thought.reply.text):
                spoken = await self._engines.speak(sentence, self.voice, answer.audio)
                if self._running is not running:
                    return  # cancelled while this task was already due to run: everything has been said
                if not answer.items:
                    self._settle(thought)
                    self._send_item(
                        answer, answer.open_message(self._outbox.new_id("item"), self._conversation.last_id)
                    )
                self._outbox.send_all(answer.speak(sentence, spoken))
            if self._running is running:
                self._finish(running, thought)

    def _finish(self, running: _RunningAnswer, thought: _Thought) -> None:
        answer = running.answer
        if answer.items:
            self._outbox.send_all(answer.close_message())
        else:
            self._settle(thought)
        for call in thought.reply.calls:
            ids = self._outbox.new_id("item"), self._outbox.new_id("call")
            self._send_item(answer, answer.call(*ids, call, self._conversation.last_id))
        self._running = None
        self._outbox.send_all(answer.finish())

    def _settle(self, thought: _Thought) -> None:
        self._state = thought.state
        self.turns = [turn for turn in self.turns if turn not in thought.turns]
        self.outputs = self.outputs[len(thought.outputs) :]
        if thought.reply.text:
            self.cut = False

    def _think(self, instructions: str, words: str, turns: Sequence[CallerWords]) -> _Thought:
        """What to say: ``words``, or what the request orders, else to the caller's words or a tool's result."""
        state, receptionist, outputs = self._state, self.receptionist, tuple(self.outputs)
        if words:
            return _Thought(*receptionist.say(state, words))
        if (ordered := receptionist.follow(state, instructions)) is not None:
            return _Thought(*ordered)
        text = " ".join(turn.heard.text for turn in turns if turn.heard.text)
        if text or (turns and self.cut):
            return _Thought(*receptionist.respond(state, text), turns, outputs)
        if outputs:
            return _Thought(*receptionist.after_tools(state, outputs), turns, outputs)
        if turns:
            return _Thought(state, Reply(""), turns)
        return _Thought(*receptionist.carry_on(state))

    def _send_item(self, answer: LocalResponse, events: Sequence[dict[str, object]]) -> None:
        self._outbox.send_all(events)
        self._conversation.add(answer.items[-1])


def _verbatim(instructions: str) -> str:
    """The words in ``Say exactly, and nothing else: Hello.``; empty for other instructions."""
    folded = instructions.lstrip()
    for opening in _VERBATIM:
        if folded.lower().startswith(opening):
            return folded[len(opening) :].strip()
    return ""
