"""One hour of call in virtual time: real nursery, real WebSockets over memory streams, wall seconds counted.

The clock jumps over every wait, so what is left is the work itself: how much faster than life tests can be.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio
from trio.testing import MockClock

from agent.app.call_answer import answer
from agent.app.garbage import GarbageCollector
from agent.audio.metronome import Metronome
from agent.call.services import CallServices
from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.settings import load_settings
from agent.core.telemetry import Telemetry
from agent.postcall import PostCallChannel
from agent.sim.carrier.network import Network
from agent.sim.carrier.stream import open_simulated_stream
from agent.sim.memory import memory_realtime, open_memory_sockets
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import Utterance, tone

CALL_S: Final = 3600.0
WORDS: Final = "I would like to know when you are open on Sunday, please."
_CALL_SID: Final = "CA" + "0" * 32


@attrs.frozen(kw_only=True)
class HourPlan:
    """What is said in the hour: the caller speaks ``speech_ms`` every ``every_s``, answered by ``answer_ms``."""

    every_s: float
    answer_ms: int
    silence: bool
    speech_ms: int = 800
    call_s: float = CALL_S
    transcription_model: str = ""
    exchanges: int | None = None
    """After so many of them the model's session is lost, and again after as many."""


TALKING: Final = HourPlan(every_s=60.0, answer_ms=120_000, silence=True)
"""50 frames a second both ways: the carrier sends silence, too, and the agent talks until it is interrupted."""
SPARSE: Final = HourPlan(every_s=30.0, answer_ms=3_000, silence=False)
"""An exchange every 30 s, and a carrier that sends nothing while the caller is silent."""


@attrs.frozen
class HourFigures:
    """What the hour took and what went both ways."""

    wall_s: float
    frames_rx: int
    """Messages with audio from the caller; ``frames_tx`` to the caller."""
    frames_tx: int
    underruns: int


@attrs.define(eq=False)
class _NoRecords:
    """Keeps nothing: no disk under a jumping clock."""

    async def save(self, record: CallRecord) -> Path | None:
        """See RecordStore."""
        del record
        await trio.lowlevel.checkpoint()
        return None


LIVELY: Final = HourPlan(every_s=6.0, answer_ms=2_000, silence=True, transcription_model="any", exchanges=250)
"""Six hundred turns of each side, told to a new session twice."""


def measure_hour(plan: HourPlan, *instruments: trio.abc.Instrument) -> HourFigures:
    """Run the hour on a clock of its own; takes as long as it takes, and blocks."""
    return trio.run(_run_hour, plan, clock=MockClock(autojump_threshold=0.0), instruments=instruments)


async def _run_hour(plan: HourPlan) -> HourFigures:
    reply = Answer("This is a simulated answer.", plan.answer_ms)
    model = ScriptedRealtime(default=reply, record=False, transcripts=[WORDS] * int(plan.call_s / plan.every_s))
    speech = Utterance(tone(plan.speech_ms))
    async with (
        _open_house(model, plan) as services,
        open_memory_sockets() as (carrier_end, agent_end),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer, agent_end, services, _admit)
        async with open_simulated_stream(
            carrier_end,
            call_sid=_CALL_SID,
            stream_sid="MZ" + _CALL_SID[2:],
            network=Network(silence=plan.silence),
            record=False,
        ) as stream:
            began_s = time.perf_counter()
            with trio.move_on_after(plan.call_s):
                for exchange in itertools.count(1):
                    await trio.sleep(plan.every_s)
                    if stream.is_closed:
                        break
                    stream.say(speech)
                    if plan.exchanges is not None and exchange % plan.exchanges == 0:
                        model.disconnect(drop=True)
            wall_s = time.perf_counter() - began_s
    counts = stream.counts
    return HourFigures(wall_s, counts["rx media"], counts["tx media"], len(stream.playback.underruns))


@asynccontextmanager
async def _open_house(model: ScriptedRealtime, plan: HourPlan) -> AsyncIterator[CallServices]:
    channel = PostCallChannel.open()
    metronome = Metronome()
    with channel.calls_end, channel.service_end:
        async with trio.open_nursery() as guests, trio.open_nursery() as nursery:
            services = CallServices(
                settings=load_settings(
                    openai_api_key="none",
                    idle_prompt_s=0.0,
                    max_call_s=plan.call_s * 2,
                    transcription_model=plan.transcription_model,
                ),
                events=EventLog(Telemetry()),
                metronome=metronome,
                rest=None,
                connect_model=memory_realtime(lambda: model),
                records=_NoRecords(),
                hand_over=channel.calls_end,
                guests=guests,
            )
            nursery.start_soon(metronome.run)
            await nursery.start(GarbageCollector(lambda: True).run)
            yield services
            nursery.cancel_scope.cancel(reason="the hour is over")


async def _admit(start: Start) -> CallTicket:
    await trio.lowlevel.checkpoint()
    return CallTicket(start.call_sid, "inbound", "+15551230001", "+15551230002")
