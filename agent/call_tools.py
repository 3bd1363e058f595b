"""The tools of one call: which there are, and how each use of one runs as a guest of the call.

A use is answered exactly once, to the model: with the result, or with an error it can talk its way out of. It
has a time limit, and a few words are said to the caller when it is slow. What writes is finished, within a bound,
when the call ends meanwhile: the caller may have been promised it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs
import msgspec
import trio

from agent.call_state import CallState
from agent.conversation import Conversation
from agent.errors import AgentError, ToolArgumentsError, ToolError
from agent.finishing import run_until_asked
from agent.generation import Purpose
from agent.realtime_events import FunctionCallDone
from agent.tenants import Tenant
from agent.tools import END_CALL, TRANSFER_CALL, Tool, ToolCall, transfer_tool

LIMIT_S: Final = 8.0
"""How long a tool may take; callers hang up on longer silences."""
SLOW_S: Final = 1.2
"""After this a few words are said, if nobody speaks."""
WRITE_GRACE_S: Final = 2.0
"""How much longer a tool that writes may take when the call has ended."""
MAX_OUTPUT: Final = 20_000
FILLER: Final = "In at most five words, ask the caller to wait a moment. Say nothing else."


def tools_of(tenant: Tenant, there_are: tuple[Tool, ...], *, can_transfer: bool) -> dict[str, Tool]:
    """The tools a tenant's calls are given, by name: those it allows of ``there_are`` and of the call's own."""
    own = [END_CALL]
    if can_transfer and tenant.transfer_numbers:
        own.append(transfer_tool(tenant))
    allowed = tenant.tools
    return {
        tool.name: tool
        for tool in (*own, *there_are)
        if allowed is None or tool.name in allowed or tool is END_CALL
    }


@attrs.define(eq=False)
class CallTools:
    """The tools of one call. ``end`` and ``transfer`` do the two that end the call."""

    state: CallState
    conversation: Conversation
    tools: Mapping[str, Tool]
    end: Callable[[FunctionCallDone], Awaitable[None]]
    transfer: Callable[[FunctionCallDone, str], Awaitable[None]]
    session: Callable[[], int]
    """Which session of the model this is."""
    _seen: set[str] = attrs.field(factory=set)
    """Uses that came: a repeated event is not a second use."""

    async def run(self, call: FunctionCallDone) -> None:
        """Run one use of a tool to its answer. Raises nothing of the tool's."""
        events = self.state.events
        if call.call_id in self._seen:
            events.count("TOOL_REPEATED")
            return
        self._seen.add(call.call_id)
        tool = self.tools.get(call.name)
        if tool is None:
            events.emit("UNKNOWN_TOOL", "warning", tool=call.name[:80])
            self._answer(call, {"error": f"there is no such tool; there are {', '.join(self.tools)}"})
            return
        try:
            arguments = tool.read(call.arguments)
        except ToolArgumentsError as error:
            events.emit("TOOL_ARGUMENTS_WRONG", "warning", tool=tool.name, error=str(error)[:200])
            self._answer(call, {"error": str(error)[:500]})
            return
        if tool.name == END_CALL.name:
            await self.end(call)
        elif tool.name == TRANSFER_CALL.name:
            await self._transfer(call, str(arguments["number"]))
        else:
            await self._use(tool, call, arguments)

    async def _transfer(self, call: FunctionCallDone, number: str) -> None:
        tenant = self.state.tenant
        if number not in tenant.transfer_numbers:
            allowed = ", ".join(tenant.transfer_numbers)
            self.state.events.emit("TRANSFER_REFUSED", "warning", number=number[:40])
            self._answer(call, {"error": f"calls may only be transferred to {allowed}"})
            return
        await self.transfer(call, number)

    async def _use(self, tool: Tool, call: FunctionCallDone, arguments: dict[str, Any]) -> None:
        session = self.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fill_silence)
            output = await self._output(tool, call, arguments)
            nursery.cancel_scope.cancel(reason="the tool has answered")
        if self.session() == session:
            self._answer(call, output)
        else:
            # The call of the tool went with its session; what it found is told to the new one in words.
            self.state.events.count("TOOL_ANSWERED_LATE")
            words = f"(You used the tool {tool.name}; it answered: {_as_text(output)})"
            self.conversation.tell(words, trio.current_time())

    async def _output(self, tool: Tool, call: FunctionCallDone, arguments: dict[str, Any]) -> Any:
        events, began_s = self.state.events, trio.current_time()
        found: list[Any] = []

        async def work() -> None:
            if tool.function is None:
                raise ToolError("this tool does nothing here")
            found.append(await tool.function(self._call(call.call_id), **arguments))

        try:
            with trio.fail_after(LIMIT_S):
                if tool.writes:
                    await run_until_asked(work, lambda: None, grace_s=WRITE_GRACE_S)
                else:
                    await work()
        except trio.TooSlowError:
            events.emit("TOOL_TOO_SLOW", "warning", tool=tool.name, limit_s=LIMIT_S)
            if not found:
                return {"error": "this takes too long at the moment"}
        except AgentError as error:
            events.emit("TOOL_REFUSED", tool=tool.name, error=str(error)[:200])
            return {"error": str(error)[:500]}
        # A tool is someone's code: whatever it raises, the call goes on and the model is told.
        except Exception as error:  # noqa: BLE001
            events.exception("TOOL_FAILED", error, tool=tool.name)
            return {"error": "this does not work at the moment"}
        events.emit("TOOL_USED", tool=tool.name, took_ms=round((trio.current_time() - began_s) * 1000))
        return found[0]

    def _call(self, call_id: str) -> ToolCall:
        state, tenant = self.state, self.state.tenant
        phone = state.ticket.caller if state.ticket.direction == "inbound" else state.ticket.called
        now = datetime.now(UTC).astimezone(ZoneInfo(tenant.time_zone))
        return ToolCall(call_id, state.ticket.call_sid, tenant, phone, now)

    async def _fill_silence(self) -> None:
        """After a while say a few words, once, in the next moment in which nobody speaks."""
        await trio.sleep(SLOW_S)
        while not self.conversation.idle:
            await self.state.turned.park()
        self.state.events.emit("TOOL_SLOW")
        self.conversation.ask(Purpose.FILLER, FILLER)

    def _answer(self, call: FunctionCallDone, output: Any) -> None:
        self.conversation.answer_tool(call.call_id, _as_text(output), answer=True)


def _as_text(output: Any) -> str:
    """A tool's result for the model: text as it is, JSON of what JSON can say."""
    if isinstance(output, str):
        return output[:MAX_OUTPUT]
    try:
        return msgspec.json.encode(output).decode()[:MAX_OUTPUT]
    except (TypeError, ValueError, msgspec.MsgspecError):
        return str(output)[:MAX_OUTPUT]
