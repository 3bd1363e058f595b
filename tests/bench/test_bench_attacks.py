"""Attacks beside a live call, in small: they are made and counted, and a miss is one. DO-1, DO-2."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from bench.attacks.beside import Beside, measure, open_rig
from bench.attacks.rows import attack_rows
from bench.attacks.stranger import Attack

ALL_WELL = Beside(
    Attack.SILENT,
    connections=2000,
    gap_ms=25.0,
    underruns=0,
    rss_before=100_000_000,
    rss_after=101_000_000,
    answered_ms=[float(number) for number in range(200)],
    connected=200,
    unanswered=0,
    strangers={},
)


def oks(**seen: Any) -> list[bool | None]:
    """Whether gap, memory and webhooks are as they must be."""
    return [row.ok for row in attack_rows(attrs.evolve(ALL_WELL, **seen))]


def test_each_figure_is_judged() -> None:
    assert oks() == [True, True, True]
    assert oks(gap_ms=60.0) == oks(underruns=1) == [False, True, True]
    assert oks(rss_after=130_000_000) == [True, False, True]
    assert oks(unanswered=1) == oks(answered_ms=[]) == oks(answered_ms=[600.0] * 200) == [True, True, False]


@pytest.mark.sockets
async def test_do_2_strangers_at_a_real_server_and_one_that_answers_nobody(tmp_path: Path) -> None:
    """A second of handshakes that nobody signed; then the same where every connection is closed unread."""

    async def close(stream: trio.SocketStream) -> None:
        await stream.aclose()

    with trio.fail_after(60):
        async with open_rig(tmp_path, None, None) as rig, trio.open_nursery() as nursery:
            found = await measure(rig, Attack.HANDSHAKES, attack_s=1.0, calm_s=0.0)
            assert found.strangers["403"] > 0
            assert found.connected == len(found.answered_ms) > 5
            assert found.unanswered == 0
            assert 0 < found.gap_ms < 10_000
            [listener] = await nursery.start(partial(trio.serve_tcp, close, 0, host="127.0.0.1"))
            deaf = attrs.evolve(rig, port=listener.socket.getsockname()[1])
            found = await measure(deaf, Attack.CALM, attack_s=0.5, calm_s=0.0)
            assert found.unanswered > 0
            assert [row.ok for row in attack_rows(found)][-1] is False
            nursery.cancel_scope.cancel()
