"""TX-8: what the watch logs of the pacer, and when; and that the pacer itself logs nothing (TX-4)."""

from __future__ import annotations

import trio
from trio.testing import MockClock
from virtual_call import counts, open_scripted_call

from agent.sim.model.script import Answer

SMOOTH = Answer("A smooth answer.", 10_000)


async def test_tx_8_a_smooth_call_logs_no_metrics(autojump_clock: MockClock) -> None:
    """No backlog, no gap, no DEBUG_TX: not a line."""
    async with open_scripted_call([SMOOTH]) as (services, stream, _):
        await stream.until_heard_ms(10_000)
        await stream.hang_up()
    assert counts(services.record)["TX_METRICS"] == 0
    assert counts(services.record)["TX_HEARTBEAT"] == 0


async def test_tx_8_debug_logs_metrics_each_second_and_a_heartbeat_each_five(autojump_clock: MockClock) -> None:
    async with open_scripted_call([SMOOTH], settings={"debug_tx": True}) as (services, stream, _):
        await trio.sleep(20.5)
        await stream.hang_up()
    record = services.record
    assert counts(record)["TX_METRICS"] == 20
    assert 4 <= counts(record)["TX_HEARTBEAT"] <= 5
    last = [event.detail for event in record.timeline if event.kind == "TX_METRICS"][-1]
    assert set(last) == {"fps", "max_gap_ms", "queued_frames"}


async def test_tx_8_a_large_backlog_is_worth_a_line_each_second_at_most(autojump_clock: MockClock) -> None:
    """Over 70 % of what one answer may have: logged until it is played down."""
    big = Answer("A long answer, all at once.", 9_000, speed=None)
    async with open_scripted_call([big], settings={"max_answer_s": 10.0}) as (services, stream, _):
        await stream.until_heard_ms(9_000)
        await stream.hang_up()
    assert 1 <= counts(services.record)["TX_METRICS"] <= 3
