"""Whole calls into which a fault strikes at a random moment, by seed; what holds of every one of them.

``PYTHONPATH=.:tests/support python tests/support/fault_runs.py 0 5000`` runs a range of seeds. It says which ones
failed, and why, and at the end which fault met which state of the call how often. Exit status 1: one failed, or
some of these never met.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Final, NoReturn

import attrs
import structlog
import trio
from fault_calls import assert_over, open_faulty_call, record_of
from trio.testing import MockClock
from unkind_models import run_in_order
from virtual_call import CALL_SID, FakeServices, counts, open_services

from agent.call.tools.declare import ToolCall, make_tool
from agent.core.records import CallRecord, Outcome
from agent.core.units import BYTES_PER_MS, FRAME_S
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import SERVER_ERROR, Answer, Faults, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import numbers_in, tone

MOST_SILENT_S: Final = 8.0
"""No silence that we owe the end of is longer (MO-4)."""
EAR_MS: Final = 40
NUMBERS: Final = 12
ANSWER: Final = re.compile(r"Answer (\d+) ")
STALLED_EAR_MS: Final = 300
"""What the record may be off where the line stalls: marks stand 200 ms apart, and say nothing until overdue."""
NEVER: Final = ("CALL_ERROR", "GUEST_FAILED", "POST_CANCEL_AUDIO_VIOLATION")
FAULTS: Final = (
    *("model drops", "model closes", "model deaf", "session expires", "answers fail"),
    *("carrier stalls", "carrier vanishes", "tool slow", "tool fails", "tool hangs"),
)
STATES: Final = ("opening", "caller speaks", "generating", "playing", "quiet", "leaving")
LEFT_BY_US: Final = (Outcome.AGENT_HUNG_UP, Outcome.IDLE, Outcome.TIME_LIMIT)
FAILS: Final = Faults(fail_answers=SERVER_ERROR)


@attrs.define(eq=False)
class Desk:
    """A tool that is quick until a fault makes it slow, failing, or deaf to every cancel."""

    does: str = ""

    async def book(self, call: ToolCall) -> str:
        """Book an appointment."""
        if self.does == "tool fails":
            raise RuntimeError("the calendar said no")
        with trio.CancelScope(shield=self.does == "tool hangs"):
            await trio.sleep({"tool slow": 5.0, "tool hangs": 30.0}.get(self.does, 0.3))
        return "booked"


@attrs.frozen(eq=False)
class World:
    """All that a fault can strike."""

    model: ScriptedRealtime
    stream: SimulatedStream
    services: FakeServices
    desk: Desk


@attrs.define(eq=False)
class Run:
    """One call, and what was seen of it."""

    seed: int
    fault: str = ""
    state: str = ""
    silent_s: float = 0.0
    """The longest silence behind the caller's words."""
    cut_off_s: float = inf
    """When the words began in whose midst the line was closed."""
    stalled_s: float = 0.0
    """For how long the line stalled."""
    record: CallRecord | None = None
    _owed_since: float | None = None

    async def main(self) -> None:
        """Run it. Raises AssertionError, which says what did not hold."""
        chance, desk = random.Random(self.seed), Desk()  # noqa: S311 - repeatable on purpose
        self.fault = FAULTS[self.seed % len(FAULTS)]
        wanted = STATES[self.seed // len(FAULTS) % len(STATES)]
        model = ScriptedRealtime(
            [answer(chance, number, wanted) for number in range(60)],
            default=Answer("Default.", 500),
        )
        tools = (make_tool(desk.book, writes=chance.random() < 0.5),)
        async with (
            open_services(memory_realtime(lambda: model), tools=tools, vad_silence_ms=300) as services,
            open_faulty_call(services, at_most_s=200.0) as (stream, leg),
            trio.open_nursery() as nursery,
        ):
            services.rest.streams[CALL_SID] = stream
            nursery.start_soon(self._listen, stream)
            nursery.start_soon(self._strike, wanted, chance, World(model, stream, services, desk))
            with trio.move_on_after(chance.uniform(20.0, 60.0)) as talk:
                await self._talk(chance, stream)
            if talk.cancelled_caught and not stream.is_closed:
                await stream.until_said()
                with trio.move_on_after(MOST_SILENT_S + 1.0):
                    await stream.until_closed()
            await stream.hang_up()
            await leg.over.wait()
            nursery.cancel_scope.cancel(reason="the call is over")
        self._check(services, stream, model)

    async def _talk(self, chance: random.Random, stream: SimulatedStream) -> None:
        while not stream.is_closed:
            await trio.sleep(chance.choice([0.1, 0.5, 1.0, 2.0, 4.0]))
            if chance.random() < 0.9:
                stream.say(tone(chance.choice([400, 800, 1500])))
                await stream.until_said()
            else:
                stream.press("#")

    async def _strike(self, wanted: str, chance: random.Random, world: World) -> None:
        model, stream, services, desk = world.model, world.stream, world.services, world.desk
        await trio.sleep(chance.uniform(0.5, 12.0) if wanted not in ("opening", "leaving") else 0.0)
        with trio.move_on_after(40.0):
            while state_of(model, stream, services) != wanted:  # noqa: ASYNC110 - a simulator's state tells nobody
                await trio.sleep(0.02)
        self.state = state_of(model, stream, services)
        match self.fault:
            case "model drops" | "model closes" if model.sessions:
                model.disconnect(drop=self.fault == "model drops")
            case "model deaf" if model.sessions:
                model.session.deaf = True
            case "session expires" if model.sessions:
                error = {"type": "invalid_request_error", "code": "session_expired", "message": "60 minutes."}
                model.inject({"type": "error", "error": error})
            case "answers fail" if model.sessions:
                model.session.faults = model.session._sender.faults = FAILS
                await trio.sleep(0.8)
                model.session.faults = model.session._sender.faults = Faults()
            case "carrier stalls":
                self.stalled_s = chance.choice([0.3, 1.0, 2.0])
                stream.stop_reading()
                await trio.sleep(self.stalled_s)
                stream.read_again()
            case "carrier vanishes":
                await stream.vanish()
            case _:
                desk.does = self.fault

    async def _listen(self, stream: SimulatedStream) -> None:
        """The caller's ear: how long nothing is heard behind words, and whether the line goes in their midst."""
        spoke, began_s = False, trio.current_time()
        while not stream.is_closed:
            now = trio.current_time()
            speaks = bool(stream.voice)
            if speaks and not spoke:
                self.cut_off_s = now - began_s
            if speaks or stream.playback.audible(now):
                self._owed_since = None
            if spoke and not speaks:
                self._owed_since, self.cut_off_s = now, inf
            if self._owed_since is not None:
                self.silent_s = max(self.silent_s, now - self._owed_since)
            spoke = speaks
            await trio.sleep(0.02)

    def _check(self, services: FakeServices, stream: SimulatedStream, model: ScriptedRealtime) -> None:
        record = self.record = record_of(services)
        assert_over(services)
        assert not set(NEVER) & set(counts(record)), counts(record)
        assert not stream.protocol_errors
        assert self.silent_s <= MOST_SILENT_S, f"{self.silent_s:.1f} s of silence"
        # Who begins to speak when the hang-up is on its way cannot be heard any more.
        cut_off = self.cut_off_s < record.metrics.duration_ms / 1000 - FRAME_S
        assert not (cut_off and record.outcome in LEFT_BY_US), f"hung up on while speaking: {record.reason}"
        if self.fault != "carrier vanishes":
            self._check_heard(record, stream)
            self._check_told(record, model)

    def _check_heard(self, record: CallRecord, stream: SimulatedStream) -> None:
        """The record is true to the ear, answer by answer: their audio carries numbers, twelve of them."""
        told_ms, cuts, unknown_ms = Counter[int](), Counter[int](), 0
        for turn in record.turns:
            if turn.role == "agent" and (named := ANSWER.match(turn.text)):
                number = int(named[1]) % NUMBERS
                told_ms[number] += turn.heard_ms
                cuts[number] += turn.interrupted
            elif turn.role == "agent":
                unknown_ms += turn.heard_ms  # cut off before its number, or said without the model
        heard = numbers_in(stream.playback.tape.audio())
        for number in set(told_ms) | set(heard):
            heard_ms = heard[number] // BYTES_PER_MS
            allowed_ms = EAR_MS * max(cuts[number], 1)
            if self.stalled_s and cuts[number]:
                # Before a first mark is back a stall looks like a slow network, until the buffer runs dry.
                opening = self.state == "opening"
                allowed_ms += round(self.stalled_s * 1000) if opening else STALLED_EAR_MS
            off_ms = abs(told_ms[number] - heard_ms)
            assert off_ms <= allowed_ms + unknown_ms, f"{told_ms[number]} ms recorded, {heard_ms} ms heard"

    def _check_told(self, record: CallRecord, model: ScriptedRealtime) -> None:
        """The last session knows of every turn: it heard it, or was told of it."""
        if not model.sessions or record.outcome in (Outcome.MODEL_LOST, Outcome.MODEL_UNAVAILABLE):
            return
        items = model.session.conversation.items.values()
        known = sum(item.resource.get("role") == "user" for item in items)
        turns = sum(turn.role == "caller" for turn in record.turns) + len(record.dtmf)
        under_way = record.turns[-1].role == "caller"
        assert known >= turns - under_way, f"{turns} turns, of which the model knows {known}"


def answer(chance: random.Random, number: int, wanted: str) -> Answer:
    """A greeting, and then answers of which some use the tool, and some say goodbye."""
    leaves = wanted == "leaving" and number % 3 == 2
    at_once = number or wanted != "opening"
    what = chance.random() if number else 1.0
    tool = (
        ScriptedToolCall("book")
        if what < 0.25
        else ScriptedToolCall("end_call")
        if what < 0.3 or leaves
        else None
    )
    return Answer(
        f"Answer {number} with some words in it.",
        chance.choice([800, 2000, 4000]),
        tool_call=tool,
        speed=chance.choice([None, 1.2, 4]),
        first_delta_ms=chance.choice([0, 200, 700]) if at_once else 700,
    )


def state_of(model: ScriptedRealtime, stream: SimulatedStream, services: FakeServices) -> str:
    """What the call is in the middle of."""
    counted = services.calls.events.telemetry.events  # looked at fifty times a second: no search of all metrics
    asked, taken_back = (
        counted.labels(event=event)._value.get() for event in ("END_CALL_ASKED", "LEAVING_TAKEN_BACK")
    )
    if asked > taken_back:
        return "leaving"
    if not stream.heard_ms():
        return "opening" if model.sessions else "ringing"
    if stream.voice:
        return "caller speaks"
    if model.sessions and model.session.active is not None:
        return "generating"
    return "playing" if stream.playback.audible(trio.current_time()) else "quiet"


def run_seeds(seeds: Sequence[int]) -> Counter[tuple[str, str]]:
    """Run them; how often each fault met each state. Raises AssertionError with the seed of one that failed."""
    met: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        run = Run(seed)
        try:
            run_in_order(run.main, seed, MockClock(autojump_threshold=0))
        except* AssertionError as failed:
            raise AssertionError(
                f"seed {seed}, {run.fault} while {run.state}: {failed.exceptions[0]}"
            ) from failed
        if run.state in STATES:  # else the call was over before the fault struck
            met[run.fault, run.state] += 1
    return met


def table_of(met: Counter[tuple[str, str]]) -> str:
    """Faults by states, in numbers of runs."""
    rows = [f"{'':18}" + "".join(f"{state:>15}" for state in STATES)]
    rows += [f"{fault:18}" + "".join(f"{met[fault, state]:15}" for state in STATES) for fault in FAULTS]
    return "\n".join(rows)


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


if __name__ == "__main__":
    structlog.configure(processors=[_drop])
    first, behind = map(int, sys.argv[1:3])
    total: Counter[tuple[str, str]] = Counter()
    failures = 0
    for number in range(first, behind):
        try:
            total += run_seeds([number])
        except AssertionError as error:
            failures += 1
            sys.stdout.write(f"{error}\n")
        if number % 50 == 49:
            sys.stdout.write(f"{number + 1 - first} runs, {failures} failed\n")
            sys.stdout.flush()
    sys.stdout.write(f"{table_of(total)}\n")
    sys.exit(bool(failures) or len(total) < len(FAULTS) * len(STATES))
