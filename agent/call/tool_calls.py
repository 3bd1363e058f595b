"""The tools of one call: which there are, and how each use of one runs as a guest of the call.

A use is answered exactly once, to the model: with the result, or with an error it can talk its way out of. It
has a time limit, and a few words are said to the caller when it is slow. What writes is finished, within a bound,
when the call ends meanwhile: the caller may have been promised it.

The model may call several tools in one answer. It is asked to go on once: when that answer is over and the last
of them was answered. If one of them was ``end_call``, it has said goodbye and is not asked to go on at all.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs
import msgspec
import trio

from agent.audio.generation import Purpose
from agent.call.answers.responses import Session
from agent.call.conversation import Conversation
from agent.call.ending import CallEnding
from agent.call.state import CallState
from agent.call.tools.declare import END_CALL, TRANSFER_CALL, Tool, ToolCall, transfer_tool
from agent.call.tools.use_counts import UseCounts
from agent.call.turns.leaving import Why
from agent.core.errors import BoundError, CarrierError, ToolArgumentsError, ToolError
from agent.core.records import Outcome
from agent.core.tenant import Tenant
from agent.model.events import FunctionCallDone

LIMIT_S: Final = 8.0
"""How long a tool may take; callers hang up on longer silences."""
SLOW_S: Final = 1.2
"""After this a few words are said, if nobody speaks."""
WORDS_S: Final = 1.5
"""How long a tool that writes waits until the caller's last words are written down."""
WRITE_GRACE_S: Final = 2.0
"""How much longer a tool that writes may take when the call has ended."""
AT_ONCE: Final = 8
"""Uses that run at the same time in one call; a model that wants more has lost its way."""
MAX_OUTPUT: Final = 20_000
"""Characters; a model reads them all before it says a word."""
FILLER: Final = "In at most five words, ask the caller to wait a moment. Say nothing else."
_FAILED: Final = {"error": "this does not work at the moment"}
_TAKEN_BACK: Final = {"done": False, "reason": "the caller spoke again"}


def tools_of(
    tenant: Tenant, there_are: tuple[Tool, ...], *, can_transfer: bool, most_transfers: int | None = None
) -> dict[str, Tool]:
    """The tools a tenant's calls are given, by name: those it allows of ``there_are`` and of the call's own."""
    own = [END_CALL]
    if can_transfer and tenant.transfer_numbers:
        own.append(transfer_tool(tenant, most_transfers))
    allowed = tenant.tools
    return {
        tool.name: tool
        for tool in (*own, *there_are)
        if allowed is None or tool.name in allowed or tool is END_CALL
    }


@attrs.define(eq=False)
class Use:
    """A use of a tool that is not answered yet."""

    call: FunctionCallDone
    tool: Tool | None
    session: Session
    """The one that wanted it: no later one knows of it."""
    leaving: Why | None = None
    """Of a tool that ends the call: decided as it was asked for."""

    @property
    def ends_call(self) -> bool:
        """Whether the tool is one that the call does itself."""
        return self.tool is not None and self.tool.function is None


@attrs.define(eq=False)
class CallTools:
    """The tools of one call."""

    state: CallState
    conversation: Conversation
    tools: Mapping[str, Tool]
    ending: CallEnding
    _counts: UseCounts = attrs.field(init=False)
    _memory: dict[Any, Any] = attrs.field(factory=dict)
    """What the call's tools remember (see ToolCall)."""
    _uses: list[Use] = attrs.field(factory=list)
    _working: int = 0
    _asked_to_wait: bool = False

    def __attrs_post_init__(self) -> None:
        self._counts = UseCounts(self.state.services.settings.max_tool_uses)

    def begin(self, call: FunctionCallDone) -> Use | None:
        """The model wants a tool: ``run`` what this returns. None: it was told before."""
        session = self.conversation.turns.session
        if call.call_id in session.tool_uses:
            self.state.events.count("TOOL_REPEATED")
            return None
        session.tool_uses.add(call.call_id)
        use = Use(call, self.tools.get(call.name), session)
        if call.name == END_CALL.name:
            use.leaving = self.ending.leave(Outcome.AGENT_HUNG_UP, "the agent ended the call")
        self._uses.append(use)
        self.conversation.tools_at_work += not use.ends_call
        return use

    async def run(self, use: Use) -> None:
        """Run one use of a tool to its answer. Raises nothing of the tool's.

        A cancel ends it at once, but for a tool that writes: that has WRITE_GRACE_S to come to its end.
        """
        try:
            await self._run(use)
        finally:
            self._uses.remove(use)
            self.conversation.tools_at_work -= not use.ends_call
            self._asked_to_wait = self._asked_to_wait and bool(self.conversation.tools_at_work)

    async def _run(self, use: Use) -> None:
        tool, events = use.tool, self.state.events
        if use.leaving is None:  # hanging up is always possible
            try:
                self._counts.take(tool)
            except BoundError as error:
                await self._answer(use, self._refused(use.call.name, error))
                return
        if tool is None:
            events.emit("UNKNOWN_TOOL", "warning", tool=use.call.name[:80])
            await self._answer(use, {"error": f"there is no such tool; there are {', '.join(self.tools)}"})
            return
        try:
            arguments = tool.read(use.call.arguments)
        except ToolArgumentsError as error:
            self._counts.refused(tool)
            events.emit("TOOL_ARGUMENTS_WRONG", "warning", tool=tool.name, error=str(error)[:200])
            await self._answer(use, {"error": str(error)[:500]})
            return
        if use.leaving is not None:
            if not await self.ending.hang_up(use.leaving):
                self._tell(use, _TAKEN_BACK)
        elif tool.name == TRANSFER_CALL.name:
            await self._transfer(use, str(arguments["number"]))
        elif self._working >= AT_ONCE:
            self._counts.refused(tool)
            events.emit("TOOLS_TOO_MANY", "warning", tool=tool.name)
            await self._answer(use, {"error": f"at most {AT_ONCE} tools can be used at the same time"})
        else:
            await self._answer(use, await self._work(tool, use.call, arguments))

    async def _transfer(self, use: Use, number: str) -> None:
        allowed = self.state.tenant.transfer_numbers
        number = number or allowed[0]
        if number not in allowed:
            self.state.events.emit("TRANSFER_REFUSED", "warning", number=number[:40])
            await self._answer(use, {"error": f"calls may only be transferred to {', '.join(allowed)}"})
            return
        try:
            why = self.ending.leave(Outcome.TRANSFERRED, f"transferred to {number}")
            gone = await self.ending.transfer(why, number)
        except (CarrierError, trio.TooSlowError):
            await self._answer(use, {"error": "the transfer failed; nobody was reached"})
        else:
            if not gone:
                self._tell(use, _TAKEN_BACK)

    async def _work(self, tool: Tool, call: FunctionCallDone, arguments: dict[str, Any]) -> Any:
        self._working += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fill_silence)
                output = await self._output(tool, call, arguments)
                nursery.cancel_scope.cancel(reason="the tool has answered")
        finally:
            self._working -= 1
        return output

    async def _output(self, tool: Tool, call: FunctionCallDone, arguments: dict[str, Any]) -> Any:
        """What the tool answers, or what went wrong with it, within LIMIT_S; WRITE_GRACE_S more if it writes."""
        events, began_s = self.state.events, trio.current_time()
        grace_s = WRITE_GRACE_S if tool.writes else 0.0
        found: list[Any] = []

        async def work() -> None:
            with trio.move_on_at(began_s + LIMIT_S + grace_s):
                if tool.writes:
                    await self._until_words_are_known()
                if tool.function is not None:
                    found.append(await tool.function(self._call(call.call_id), **arguments))
                took_ms = round((trio.current_time() - began_s) * 1000)
                events.emit("TOOL_USED", tool=tool.name, took_ms=took_ms)

        try:
            with suppress(trio.TooSlowError), trio.move_on_at(began_s + LIMIT_S + grace_s):
                await self.state.guests.run(f"tool {tool.name}", work, grace_s=grace_s, failed="TOOL_FAILED")
        except ToolError as error:
            self._counts.refused(tool)
            return self._refused(tool.name, error)
        # A tool is someone's code: whatever it raises, the call goes on and the model is told that it failed.
        # What failed is for the log, not for the caller's ears.
        except Exception as error:  # noqa: BLE001
            events.exception("TOOL_FAILED", error, tool=tool.name)
            return _FAILED
        if not found:
            events.emit("TOOL_TOO_SLOW", "warning", tool=tool.name, limit_s=LIMIT_S)
            return {"error": "this takes too long at the moment"}
        return found[0]

    async def _until_words_are_known(self) -> None:
        """The model hears the caller itself: it may want a tool before their words are written down."""
        with trio.move_on_after(WORDS_S):
            while self.conversation.transcript.awaits_words:
                await self.state.changed.park()

    def _refused(self, tool: str, error: ToolError) -> dict[str, str]:
        """Note that a tool refused what it was asked to do, or a bound does; the answer that says so."""
        if isinstance(error, BoundError):
            self.state.events.emit("BOUND_REACHED", "warning", bound=error.bound, tool=tool[:80])
        self.state.events.emit("TOOL_REFUSED", tool=tool[:80], error=str(error)[:200])
        return {"error": str(error)[:500]}

    def _call(self, call_id: str) -> ToolCall:
        state, tenant = self.state, self.state.tenant
        said = [turn.text for turn in self.conversation.transcript.turns() if turn.role == "caller"]
        phone = state.ticket.caller if state.ticket.direction == "inbound" else state.ticket.called
        now = datetime.now(UTC).astimezone(ZoneInfo(tenant.time_zone))
        said.append(self.conversation.dtmf.all_keys)
        return ToolCall(call_id, state.ticket.call_sid, tenant, phone, now, tuple(said), self._memory)

    async def _fill_silence(self) -> None:
        """When nobody has spoken for SLOW_S, say a few words; once, however many tools are at work."""
        conversation, slow = self.conversation, False
        while not slow:
            while not conversation.idle:
                await self.state.changed.park()
            with trio.move_on_after(SLOW_S) as silence:
                while conversation.idle:
                    await self.state.changed.park()
            slow = silence.cancelled_caught
        if not self._asked_to_wait:
            self._asked_to_wait = True
            self.state.events.emit("TOOL_SLOW")
            conversation.response_requests.ask(Purpose.FILLER, FILLER)

    async def _answer(self, use: Use, output: Any) -> None:
        """Answer a use when the answer it was made in is over, and have the model go on if nothing else will."""
        same = (other for other in self._uses if other.call.response_id == use.call.response_id)
        last = all(other is use or other.ends_call for other in same)
        self._tell(use, output, answer=last and self.conversation.departure.staying)

    def _tell(self, use: Use, output: Any, *, answer: bool = False) -> None:
        conversation, now = self.conversation, trio.current_time()
        if use.session is conversation.turns.session:
            conversation.answer_tool(use.call, _as_text(output), now, answer=answer)
            return
        self.state.events.count("TOOL_ANSWERED_LATE")
        if not use.ends_call:
            # The use went with its session; what came of it is told to the present one in words.
            words = f"(You used the tool {use.call.name[:80]}; it answered: {_as_text(output)})"
            conversation.tell(words, now)


def _as_text(output: Any) -> str:
    """A tool's result for the model: text as it is, JSON of what JSON can say."""
    try:
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        text = str(output)
    return text if len(text) <= MAX_OUTPUT else '{"error": "the answer is too long to be read"}'
