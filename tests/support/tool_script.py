"""A scripted call with tools: an appointment is made, a caller looked up, and the call transferred."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import trio
from fake_tools import NotingDesk
from memory_journal import MemoryJournal, make_keeper
from sweeps import GRACE_S, CancelAt, Result
from virtual_call import CALL_SID, open_call, open_services

from agent.call.tool_calls import WRITE_GRACE_S
from agent.call.tools.builtin import DeskTools
from agent.core.tenant import Tenant
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

PERSON = "+15557770001"
TENANT = Tenant("shop", "The Shop", transfer_numbers=(PERSON,))
DESKS: list[NotingDesk] = []
"""That of the last call is the last."""


async def run_script(instrument: CancelAt) -> Result:
    """The scripted call; its desk is the last of DESKS."""
    next_month = datetime.now(UTC) + timedelta(days=30)
    appointment = ScriptedToolCall(
        "create_appointment", {"starts_at": f"{next_month:%Y-%m-%dT10:00}", "name": "Dana"}
    )
    model = ScriptedRealtime(
        [
            Answer("Hello.", 200, first_delta_ms=40),
            Answer("Let me see.", 0, first_delta_ms=40, tool_call=appointment),
            Answer("Just a second.", 60, first_delta_ms=40, tool_call=ScriptedToolCall("lookup_caller", {})),
            Answer("Transferring.", 100, first_delta_ms=40, tool_call=ScriptedToolCall("transfer_call", {})),
        ],
        transcription_delay_ms=20,
    )
    desk = NotingDesk(delay_s=0.03)
    DESKS[:] = [desk]
    journal = MemoryJournal()
    keeper = make_keeper(journal)
    settings = {"greeting_protect_ms": 0, "vad_silence_ms": 100}
    async with open_services(
        memory_realtime(lambda: model),
        tools=DeskTools(desk).tools(),
        tenant=TENANT,
        keeper=keeper,
        **settings,
    ) as services:
        instrument.services = services
        async with trio.open_nursery() as outside:
            outside.start_soon(keeper.run)
            async with open_call(services) as stream, trio.open_nursery() as nursery:
                services.rest.streams[CALL_SID] = stream

                @nursery.start_soon
                async def _caller() -> None:
                    await stream.until_heard_ms(200)
                    await trio.sleep(0.3)
                    stream.say(tone(120))

                with trio.fail_after(60):
                    await stream.until_closed()
                nursery.cancel_scope.cancel()
            with trio.fail_after(GRACE_S + WRITE_GRACE_S):
                while services.calls.active:  # noqa: ASYNC110 - the end of a call is not an event of the house
                    await trio.sleep(0.01)
            over_s = trio.current_time()
            outside.cancel_scope.cancel()
        written = [kind for _, kind in journal.writes]
        assert "answered" not in written[1:], "the row comes first"
        return services, stream, over_s
