"""A call with tools, cancelled at every single checkpoint: what was begun for the caller is done, or never was.

The call makes an appointment (a write), looks something up, and is transferred, while it is kept. It is swept as
``test_cancellation_sweep`` sweeps a barge-in and a goodbye.
"""

from __future__ import annotations

import attrs
import pytest
import trio
from calls import CALL_SID, House, open_call, open_house
from test_call_keeping import MemoryJournal, make_keeper
from test_cancellation_sweep import GRACE_S, STRIDE, CancelAt, Result, run_virtually
from test_tool_desk import MemoryDesk

from agent.call_tools import WRITE_GRACE_S
from agent.records import Outcome
from agent.sim.memory import memory_realtime
from agent.sim.realtime import ScriptedRealtime
from agent.sim.script import Answer, ToolCall
from agent.sim.sounds import tone
from agent.store.values import NewAppointment
from agent.tenants import Tenant
from agent.tool_desk import DeskTools
from agent.units import CallSid

SHARDS = 3
PERSON = "+15557770001"
TENANT = Tenant("shop", "The Shop", transfer_numbers=(PERSON,))


@attrs.define(eq=False)
class NotingDesk(MemoryDesk):
    """Notes what it was asked to do, before it does it."""

    begun: list[str] = attrs.field(factory=list)

    async def add_appointment(self, new: NewAppointment) -> tuple[int, bool]:
        """See ToolDesk."""
        self.begun.append(new.tool_call_id)
        return await super().add_appointment(new)


DESKS: list[NotingDesk] = []
"""That of the last call is the last."""


async def run_script(instrument: CancelAt) -> Result:
    """The scripted call; its desk is the last of DESKS."""
    appointment = ToolCall("create_appointment", {"starts_at": "2027-06-01T10:00", "name": "Dana"})
    model = ScriptedRealtime(
        [
            Answer("Hello.", 200, first_delta_ms=40),
            Answer("Let me see.", 0, first_delta_ms=40, tool_call=appointment),
            Answer("Just a second.", 60, first_delta_ms=40, tool_call=ToolCall("lookup_caller", {})),
            Answer("Transferring.", 100, first_delta_ms=40, tool_call=ToolCall("transfer_call", {})),
        ],
        transcription_delay_ms=20,
    )
    desk = NotingDesk(delay_s=0.03)
    DESKS[:] = [desk]
    journal = MemoryJournal()
    keeper = make_keeper(journal)
    settings = {"greeting_protect_ms": 0, "vad_silence_ms": 100}
    async with open_house(
        memory_realtime(lambda: model), tools=DeskTools(desk).tools(), tenant=TENANT, keeper=keeper, **settings
    ) as house:
        instrument.house = house
        async with trio.open_nursery() as outside:
            outside.start_soon(keeper.run)
            async with open_call(house) as stream, trio.open_nursery() as nursery:
                house.rest.streams[CALL_SID] = stream

                @nursery.start_soon
                async def _caller() -> None:
                    await stream.until_heard_ms(200)
                    await trio.sleep(0.3)
                    stream.say(tone(120))

                with trio.fail_after(60):
                    await stream.until_closed()
                nursery.cancel_scope.cancel()
            with trio.fail_after(GRACE_S + WRITE_GRACE_S):
                while house.calls.active:  # noqa: ASYNC110 - the end of a call is not an event of the house
                    await trio.sleep(0.01)
            over_s = trio.current_time()
            outside.cancel_scope.cancel()
        written = [kind for _, kind in journal.writes]
        assert "answered" not in written[1:], "the row comes first"
        return house, stream, over_s


def is_whole(house: House, where: str) -> None:
    """What holds wherever the call was cancelled."""
    record = house.record
    desk = DESKS[-1]
    assert [new.tool_call_id for new, _ in desk.made] == desk.begun, where
    assert [entry.call_sid for entry in house.handed_over()] == [CALL_SID], where
    transferred = record.outcome is Outcome.TRANSFERRED
    assert transferred or record.outcome is Outcome.SERVER_STOPPED, where
    assert house.rest.hung_up == ([] if transferred else [CALL_SID]), where
    assert house.rest.transferred == ({CallSid(CALL_SID): PERSON} if transferred else {}), where
    for fault in ("POST_CANCEL_AUDIO_VIOLATION", "CALL_ERROR", "GUEST_FAILED", "TOOL_FAILED", "KEEPING_FAILED"):
        assert fault not in record.metrics.events, where


def test_st_1_the_scripted_call_runs_through() -> None:
    """Uncancelled, the script is what the sweep needs."""
    instrument = CancelAt(None)
    house, stream, _ = run_virtually(instrument, run_script)
    record = house.record
    assert record.outcome is Outcome.TRANSFERRED
    assert record.tenant_id == "shop"
    assert record.metrics.events["TOOL_USED"] == 2
    assert len(DESKS[-1].begun) == 1
    assert stream.close_code == 1000
    guests = {"tool create_appointment", "tool lookup_caller", "tool transfer_call", "keeping"}
    assert guests <= instrument.tasks
    is_whole(house, "uncancelled")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_st_1_a_call_with_tools_cancelled_at_any_checkpoint_ends_whole(shard: int) -> None:
    """An appointment that was begun is made; a call that the carrier took is not hung up, any other one is."""
    total = CancelAt(None)
    run_virtually(total, run_script)
    for at in range(shard, total.steps, SHARDS * STRIDE):
        instrument = CancelAt(at)
        house, stream, over_s = run_virtually(instrument, run_script)
        where = f"cancelled before step {at} of {total.steps}"
        assert instrument.cancelled_at_s is not None, where
        assert over_s - instrument.cancelled_at_s <= GRACE_S + WRITE_GRACE_S, where
        assert stream.close_code == 1000, where
        assert not [entry for entry in stream.wire if entry.kind == "malformed"], where
        is_whole(house, where)
