"""Bad input and faults of the carrier in whole calls: each counted and logged, and nothing left.

Everything runs in virtual time over the real WebSocket protocol. What the model does wrong is in
``test_call_model_faults`` and ``test_call_model_disorder``, barge-ins at bad moments in ``test_call_races``,
what goes wrong at the end of a call in ``test_call_ending_faults``; real sockets in ``test_call_sockets``.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable

import attrs
import pytest
import trio
from fault_calls import (
    GREETING,
    LONG,
    SHORT,
    a_neighbour,
    assert_over,
    open_faulty_call,
    open_leg,
    open_one_call,
    record_of,
)
from trio.testing import MockClock
from virtual_call import CALL_SID, counts, open_services, received

from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.errors import AdmissionError, SocketClosedError
from agent.core.records import Outcome
from agent.sim.carrier.network import Network
from agent.sim.carrier.playback import DueMark, PlaybackBuffer
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import numbers_in, tone
from agent.wire.websocket import MAX_MESSAGE_BYTES, TrioWebSocket

SILENCE = b64encode(b"\xff" * 160).decode()


def media(payload: str, timestamp: str = "0") -> str:
    return json.dumps({"event": "media", "media": {"payload": payload, "timestamp": timestamp}})


BAD_MESSAGES = {
    "no JSON": ("{this is no JSON", "CARRIER_JSON"),
    "half a message": ('{"event":"media","media":{"pay', "CARRIER_JSON"),
    "nothing": ("", "CARRIER_JSON"),
    "a list": ("[1, 2, 3]", "CARRIER_FIELD"),
    "no event": ('{"sequenceNumber":"1"}', "CARRIER_FIELD"),
    "a number for an event": ('{"event":7}', "CARRIER_FIELD"),
    "brackets without end": ("[" * 100_000, "CARRIER_FIELD"),
    "nested without end": ('{"a":' * 100_000, "CARRIER_JSON"),
    "half a surrogate pair": ('{"event":"\\ud800"}', "CARRIER_JSON"),
    "media without media": ('{"event":"media"}', "CARRIER_FIELD"),
    "a timestamp of words": (media(SILENCE, "yesterday"), "CARRIER_FIELD"),
    "wrong base64": (media("not base64!"), "CARRIER_BASE64"),
    "base64 cut short": (media(SILENCE[:-1]), "CARRIER_BASE64"),
    "base64 with a line break": (media(SILENCE[:40] + "\n" + SILENCE[40:]), "CARRIER_BASE64"),
    "an injection": (media('AAAA"},{"type":"response.cancel"'), "CARRIER_BASE64"),
    "payload beyond ASCII": (media("שלום"), "CARRIER_BASE64"),
    "huge media": (media(b64encode(b"\xff" * 8008).decode()), "CARRIER_FIELD"),
    "empty media": (media(""), "EMPTY_MEDIA"),
    "a mark without a name": ('{"event":"mark","mark":{}}', "CARRIER_FIELD"),
    "an unknown mark": ('{"event":"mark","mark":{"name":"99:20"}}', "UNKNOWN_MARK"),
    "an unknown event": ('{"event":"hologram","hologram":{}}', "UNKNOWN_CARRIER_EVENT"),
    "dtmf without a digit": ('{"event":"dtmf","dtmf":{}}', "CARRIER_FIELD"),
    "dtmf of a letter": ('{"event":"dtmf","dtmf":{"digit":"x"}}', "DTMF_REFUSED"),
    "dtmf of many digits": ('{"event":"dtmf","dtmf":{"digit":"12345678901234567890"}}', "DTMF_REFUSED"),
    "empty dtmf": ('{"event":"dtmf","dtmf":{"digit":""}}', "DTMF_REFUSED"),
    "connected again": ('{"event":"connected","protocol":"Call","version":"1.0.0"}', "REPEATED_START"),
}


async def test_every_bad_message_is_counted_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    """Each kind of nonsense, twice, into one call: counted by kind, logged once, and no frame is disturbed."""
    model = ScriptedRealtime([GREETING, SHORT], record_audio=True)
    async with (
        open_services(memory_realtime(lambda: model)) as services,
        open_faulty_call(services) as (stream, leg),
    ):
        await stream.until_heard_ms(200)
        before = dict(services.calls.events.counts)
        for message, _ in BAD_MESSAGES.values():
            await leg.send(message, message)
        # Our sockets send text only: the engine underneath is asked.
        await leg.socket._connection.send_message(b"\x00\x01binary")
        await stream.until_heard_ms(3000)
        stream.say(tone(400))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    expected: dict[str, int] = {"CARRIER_BINARY": 1}
    for _, kind in BAD_MESSAGES.values():
        expected[kind] = expected.get(kind, 0) + 2
    assert {kind: counts(record)[kind] for kind in expected} == expected
    logged = [event.kind for event in record.timeline if event.kind in expected]
    assert len(logged) == len(set(logged)), "a broken peer cannot flood the log"
    assert services.calls.events.counts == before, "what is wrong with a call is counted with the call"
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert [turn.heard_text for turn in record.turns if turn.role == "agent"] == [GREETING.text, SHORT.text]
    assert stream.playback.underruns == []
    assert received(model, "response.cancel") == []
    assert model.errors_sent == []
    assert record.dtmf == ""
    assert_over(services)


@pytest.mark.parametrize("name", [name for name, (_, kind) in BAD_MESSAGES.items() if kind.startswith("CARRIER")])
async def test_bad_messages_before_start_do_not_keep_it_out(autojump_clock: MockClock, name: str) -> None:
    """Nonsense before ``start`` is counted with the house; the call begins all the same."""
    message, kind = BAD_MESSAGES[name]
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([SHORT]))) as services,
        open_leg(services) as leg,
    ):
        await leg.send(message, media(SILENCE), leg.writer.start({}))
        await trio.sleep(2)
        await leg.send(leg.writer.stop())
    assert services.calls.events.counts[kind] == 1
    assert services.calls.events.counts["MESSAGE_BEFORE_START"] == 1
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP


async def close_code(socket: TrioWebSocket) -> int:
    """What the agent closed the carrier's socket with."""
    try:
        while True:
            await socket.receive()
    except SocketClosedError as closed:
        return closed.code


async def test_a_stream_that_never_starts_is_closed(autojump_clock: MockClock) -> None:
    """No ``start`` within ten seconds: refused and closed with 1008; a neighbour notices nothing."""
    async with open_services(memory_realtime(ScriptedRealtime)) as services, a_neighbour(services):
        async with open_leg(services) as leg:
            began = trio.current_time()
            await leg.send(leg.writer.connected())
            assert await close_code(leg.socket) == 1008
        assert trio.current_time() - began == pytest.approx(10, abs=1.5)
    assert services.calls.events.counts["STREAM_REFUSED"] == 1
    assert_over(services)


async def test_a_stream_of_chatter_before_start_is_closed(autojump_clock: MockClock) -> None:
    """Fifty messages and no ``start`` among them: refused at once."""
    async with open_services(memory_realtime(ScriptedRealtime)) as services, open_leg(services) as leg:
        await leg.send(*[media(SILENCE)] * 50)
        assert await close_code(leg.socket) == 1008
    events = services.calls.events.counts
    assert (events["MESSAGE_BEFORE_START"], events["STREAM_REFUSED"]) == (50, 1)
    assert services.records.saved == []


async def test_a_peer_that_leaves_before_start_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_services(memory_realtime(ScriptedRealtime)) as services, open_leg(services) as leg:
        await leg.send(leg.writer.connected())
        await leg.socket.abort()
    assert services.calls.events.counts["STREAM_LEFT"] == 1
    assert_over(services)


@pytest.mark.parametrize(
    "changes",
    [{"encoding": "audio/opus"}, {"sampleRate": 16000}, {"channels": 2}, {"sampleRate": "8000", "channels": "7"}],
)
async def test_audio_that_is_not_mono_8_khz_mu_law_is_refused(
    autojump_clock: MockClock, changes: dict[str, object]
) -> None:
    """A format we would make noise of is refused with 1008 and says why."""
    async with open_services(memory_realtime(ScriptedRealtime)) as services, open_leg(services) as leg:
        start = json.loads(leg.writer.start({}))
        start["start"]["mediaFormat"] |= changes
        await leg.send(json.dumps(start))
        assert await close_code(leg.socket) == 1008
    assert services.calls.events.counts["STREAM_REFUSED"] == 1
    assert services.records.saved == []


async def test_a_second_start_is_counted_and_ignored(autojump_clock: MockClock) -> None:
    """A repeated ``start``, even for another call, changes nothing of the call in progress."""
    model = ScriptedRealtime([GREETING])
    async with (
        open_services(memory_realtime(lambda: model)) as services,
        open_faulty_call(services) as (stream, leg),
    ):
        await stream.until_heard_ms(500)
        await leg.send(leg.writer.start({}), leg.writer.start({}).replace(CALL_SID, "CA" + "7" * 32))
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["REPEATED_START"] == 2
    assert record.turns[0].heard_text == GREETING.text
    assert len(services.records.saved) == len(model.sessions) == 1


@pytest.mark.parametrize("kind", ["token_missing", "token_forged", "token_reused", "token_wrong_call"])
async def test_a_stream_that_is_not_admitted_is_refused(autojump_clock: MockClock, kind: str) -> None:
    """Unknown and reused tokens: refused with 1008, no model is called, no record is made."""

    async def refuse(start: Start) -> CallTicket:
        await trio.lowlevel.checkpoint()
        raise AdmissionError(kind, "no such call is expected")

    model = ScriptedRealtime()
    async with open_services(memory_realtime(lambda: model)) as services, open_leg(services, admit=refuse) as leg:
        await leg.send(leg.writer.start({}))
        assert await close_code(leg.socket) == 1008
    assert services.calls.events.counts["STREAM_REFUSED"] == 1
    assert model.sessions == []
    assert services.rest.requests == []
    assert_over(services)


async def test_a_second_stream_for_a_call_in_progress_is_refused(autojump_clock: MockClock) -> None:
    """The second stream of a call gets 1008; the first goes on and does not notice."""
    async with open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services:
        async with open_faulty_call(services) as (stream, _):
            await stream.until_heard_ms(500)
            async with open_leg(services) as second:
                await second.send(second.writer.start({}))
                assert await close_code(second.socket) == 1008
            await stream.until_heard_ms(3000)
            await trio.sleep(0.5)
            await stream.hang_up()
        assert services.calls.events.counts["STREAM_REFUSED"] == 1
    assert record_of(services).turns[0].heard_text == GREETING.text
    assert stream.playback.underruns == []


async def test_an_oversize_message_closes_with_1009(autojump_clock: MockClock) -> None:
    """WB-6: more than 2 MB in one message: closed with 1009; recorded, hung up by REST, nobody else notices."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services,
        a_neighbour(services),
    ):
        async with open_leg(services) as leg:
            await leg.send(leg.writer.start({}))
            await trio.sleep(1)
            await leg.send(media("A" * (MAX_MESSAGE_BYTES + 4)))
            assert await close_code(leg.socket) == 1009
        record = record_of(services)
        assert record.outcome is Outcome.CARRIER_LOST
        assert "1009" in record.reason
        assert services.rest.hung_up == [CALL_SID]
    assert_over(services)


async def test_a_message_of_just_under_2_mb_is_only_refused(autojump_clock: MockClock) -> None:
    """A large message within the limit is too much audio, counted, and the call goes on."""
    async with open_one_call(ScriptedRealtime([GREETING])) as (services, stream, leg):
        await stream.until_heard_ms(200)
        await leg.send(media("A" * (MAX_MESSAGE_BYTES - 1000)))
        await stream.until_heard_ms(3000)
        await stream.hang_up()
    assert counts(record_of(services))["CARRIER_FIELD"] == 1
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP


@pytest.mark.parametrize(
    "frame",
    [b"\x81\x82\x00\x00\x00\x00\xff\xfe", b"\xf1\x80\x00\x00\x00\x00", b"\x83\x80\x00\x00\x00\x00", b"\x81\x01a"],
    ids=["text that is no UTF-8", "reserved bits", "a reserved opcode", "unmasked"],
)
async def test_a_broken_websocket_frame_ends_only_its_call(autojump_clock: MockClock, frame: bytes) -> None:
    """What WebSocket itself forbids: the connection is lost, the call is recorded and hung up by REST."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services,
        a_neighbour(services),
    ):
        async with open_leg(services) as leg:
            await leg.send(leg.writer.start({}))
            await trio.sleep(1)
            await leg.link.send_all(frame)
        record = record_of(services)
        assert record.outcome is Outcome.CARRIER_LOST
        assert services.rest.hung_up == [CALL_SID]
    assert_over(services)


async def test_a_carrier_that_stops_reading_is_given_up(autojump_clock: MockClock) -> None:
    """The buffers fill, a write takes over ten seconds: CARRIER_STUCK, and the call is over soon."""
    long = Answer("On and on.", 120_000, speed=50)
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([long])), ping_s=0) as services,
        a_neighbour(services),
    ):
        async with open_faulty_call(services, at_most_s=80) as (stream, leg):
            await stream.until_heard_ms(500)
            stream.stop_reading()
            await leg.over.wait()
        record = record_of(services)
        assert record.outcome is Outcome.CARRIER_STUCK
        assert counts(record)["CALL_ERROR"] == 0
        assert services.rest.hung_up == [CALL_SID]
    assert_over(services)


async def test_a_carrier_that_stops_reading_for_a_while_gets_everything(autojump_clock: MockClock) -> None:
    """TX-5, TX-7: a send of eight seconds is reported as TX_SEND_SLOW; nothing is dropped, nothing is flushed."""
    long = Answer("On and on.", 30_000, speed=50)
    async with open_one_call(ScriptedRealtime([long]), settings={"ping_s": 0}) as (services, stream, _):
        await stream.until_heard_ms(500)
        stream.stop_reading()
        # The buffers on the way take 64 KB, some four seconds of frames.
        await trio.sleep(12)
        stream.read_again()
        await stream.until_heard_ms(30_000)
        await stream.hang_up()
    record = record_of(services)
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert counts(record)["TX_SEND_SLOW"] == 1
    assert counts(record)["TX_STALL"] == 1
    assert len(stream.playback.tape.audio()) >= 30_000 * 8
    assert set(numbers_in(stream.playback.tape.audio())) == {0}


async def test_a_carrier_that_vanishes_is_found_out_by_the_keepalive(autojump_clock: MockClock) -> None:
    """No close, no media, no pong: CARRIER_LOST after at most two keepalive periods (WB-2)."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([SHORT])), ping_s=5) as services,
        a_neighbour(services),
    ):
        async with open_leg(services) as leg:
            await leg.send(leg.writer.start({}))
            await trio.sleep(1)
            leg.link.hold()
            began = trio.current_time()
            await leg.over.wait()
            assert trio.current_time() - began <= 2 * 5 + 1.5
        record = record_of(services)
        assert record.outcome is Outcome.CARRIER_LOST
        assert services.rest.hung_up == [CALL_SID]
    assert_over(services)


async def test_wb_2_a_carrier_too_busy_to_answer_pings_is_not_gone(autojump_clock: MockClock) -> None:
    """WB-2: no pong, but media comes: the call goes on."""
    async with open_one_call(ScriptedRealtime([SHORT]), settings={"ping_s": 5}) as (services, stream, leg):
        await stream.until_heard_ms(800)
        leg.link.hold()
        await trio.sleep(20)
        assert not leg.over.is_set()
        leg.link.let_go()
        await stream.hang_up()
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP


async def test_a_dropped_connection_ends_the_call_at_once(autojump_clock: MockClock) -> None:
    """TCP drops in the middle of the greeting: CARRIER_LOST, the leg is hung up by REST (D11)."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services,
        a_neighbour(services),
    ):
        async with open_faulty_call(services) as (stream, leg):
            await stream.until_heard_ms(500)
            await stream.vanish()
            with trio.fail_after(1):
                await leg.over.wait()
        record = record_of(services)
        assert record.outcome is Outcome.CARRIER_LOST
        assert 400 <= record.turns[0].heard_ms <= 620
        assert record.turns[0].interrupted
        assert services.rest.hung_up == [CALL_SID]
    assert_over(services)


async def test_a_close_without_stop_is_not_an_ended_call(autojump_clock: MockClock) -> None:
    """D11: a closed carrier socket is not an ended call: it is hung up by REST, and 1000 is no crash."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services,
        open_leg(services) as leg,
    ):
        await leg.send(leg.writer.start({}))
        await trio.sleep(1)
        await leg.socket.aclose(1000)
    assert record_of(services).outcome is Outcome.CARRIER_LOST
    assert services.rest.hung_up == [CALL_SID]


async def test_stop_twice_is_one_end(autojump_clock: MockClock) -> None:
    """``stop`` again, and media after it: one outcome, one record, no hang-up by REST."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([GREETING]))) as services,
        open_leg(services) as leg,
    ):
        await leg.send(leg.writer.start({}))
        await trio.sleep(1)
        await leg.send(leg.writer.stop(), leg.writer.stop(), media(SILENCE), leg.writer.stop())
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP
    assert services.rest.hung_up == []
    assert_over(services)


@attrs.define(eq=False)
class MangledMarks(PlaybackBuffer):
    """The carrier's playback, whose marks come back as ``mangle`` makes them of each."""

    mangle: Callable[[DueMark], list[DueMark]] = attrs.field(kw_only=False)

    def advance(self, now: float) -> list[DueMark]:
        """See PlaybackBuffer."""
        return [mark for due in PlaybackBuffer.advance(self, now) for mark in self.mangle(due)]


async def test_a_carrier_without_marks_hears_everything_all_the_same(autojump_clock: MockClock) -> None:
    """PL-4: no mark ever comes back: the clock and its grace decide; a barge-in still tells what was heard."""
    model = ScriptedRealtime([SHORT, LONG, SHORT])
    async with open_one_call(model, playback=MangledMarks(lambda _: [])) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(400))
        await stream.until_heard_ms(800 + 1500)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    record = record_of(services)
    first, _, second, _, third = record.turns
    assert (first.heard_text, third.heard_text) == (SHORT.text, SHORT.text)
    [truncate] = received(model, "conversation.item.truncate")
    really_ms = numbers_in(stream.playback.tape.audio())[1] / 8
    assert truncate["audio_end_ms"] == second.heard_ms == pytest.approx(really_ms, abs=10)
    assert model.errors_sent == []


async def test_marks_returned_twice_prove_once(autojump_clock: MockClock) -> None:
    """Each mark comes back twice: the second is unknown, counted, and heard_ms is what was heard (PL-4)."""
    model = ScriptedRealtime([GREETING, SHORT])
    async with open_one_call(model, playback=MangledMarks(lambda mark: [mark, mark])) as (services, stream, _):
        await stream.until_heard_ms(1500)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    record = record_of(services)
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(numbers_in(stream.playback.tape.audio())[0] / 8, abs=10)
    assert counts(record)["UNKNOWN_MARK"] >= 7
    assert [event.kind for event in record.timeline].count("UNKNOWN_MARK") == 1


async def test_marks_in_the_wrong_order_never_take_back_what_was_heard(autojump_clock: MockClock) -> None:
    """Marks come back in pairs, each pair swapped: heard to the end, nothing more and nothing less."""
    greeting_ms = 16 * 200  # no pair is left open: an answer whose last mark is kept back was not heard (MO-8)
    model = ScriptedRealtime([Answer("Hello.", greeting_ms), SHORT])
    held: list[DueMark] = []

    def swap(mark: DueMark) -> list[DueMark]:
        held.append(mark)
        if len(held) < 2:
            return []
        first, second = held
        held.clear()
        return [second, first]

    async with open_one_call(model, playback=MangledMarks(swap)) as (services, stream, _):
        await stream.until_heard_ms(greeting_ms)
        await trio.sleep(0.6)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    greeting, _, answer = record_of(services).turns
    assert (greeting.heard_ms, greeting.interrupted, answer.heard_ms) == (greeting_ms, False, 800)
    assert model.errors_sent == []


async def test_no_media_at_all_is_a_call_of_listening(autojump_clock: MockClock) -> None:
    """A carrier that never sends audio: the greeting is heard, the idle prompt too, and then the goodbye."""
    model = ScriptedRealtime([SHORT, SHORT, SHORT])
    settings = {"idle_prompt_s": 4.0, "idle_prompts": 1}
    async with open_one_call(model, settings=settings, network=Network(silence=False)) as (services, stream, leg):
        await leg.over.wait()
    record = record_of(services)
    assert record.outcome is Outcome.IDLE
    assert record.metrics.frames_in == 0
    assert len(stream.playback.tape.audio()) == 3 * 800 * 8
    assert services.rest.hung_up == [CALL_SID]


async def test_a_flood_of_keys_is_bounded(autojump_clock: MockClock) -> None:
    """Two hundred keys at once: 64 are told in one message, the rest refused and counted; the call goes on."""
    model = ScriptedRealtime([SHORT, SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        for _ in range(200):
            stream.press("5")
        await trio.sleep(5)
        await stream.hang_up()
    record = record_of(services)
    [item] = received(model, "conversation.item.create")
    assert item["item"]["content"][0]["text"].endswith(" " + "5" * 64)
    assert counts(record)["DTMF_REFUSED"] == 200 - 64
    assert record.dtmf == "5" * 64


async def test_a_carrier_too_fast_is_read_as_it_comes(autojump_clock: MockClock) -> None:
    """Ten seconds of caller audio in one go: all of it reaches the model, in order, none dropped (BI-1)."""
    model = ScriptedRealtime([SHORT], record_audio=True)
    async with open_services(memory_realtime(lambda: model)) as services, open_leg(services) as leg:
        await leg.send(leg.writer.start({}))
        await trio.sleep(1)
        for number in range(500):
            await leg.send(leg.writer.media(SILENCE, number * 20))
        await trio.sleep(1)
        await leg.send(leg.writer.stop())
    assert len(model.session.appended) == 500 * 160
    assert counts(record_of(services))["CALLER_AUDIO_DROPPED"] == 0
