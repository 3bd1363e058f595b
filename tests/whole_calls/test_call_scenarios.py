"""Whole calls in virtual time: the scenarios of BI-8, and what each of them proves."""

from __future__ import annotations

import math

import pytest
import trio
from heard_audio import agent_words, assert_no_stale_frame, believed_ms, ear_ms, heard_numbers, refusals
from trio.testing import MockClock
from virtual_call import (
    CALL_SID,
    FakeServices,
    counts,
    open_call,
    open_scripted_call,
    open_services,
    received,
    tx,
)
from worlds import in_worlds

from agent.core.records import Outcome
from agent.core.settings import Settings
from agent.core.units import FRAME_MS
from agent.sim.carrier.network import Network
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, Faults, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.profile import Profile
from agent.sim.sounds import numbered, tone

GREETING = Answer("Hello, this is the assistant, how can I help you today?", 3000)
LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 4000)
SHORT = Answer("You are welcome.", 800)


def assert_smooth(stream: SimulatedStream, services: FakeServices, *, stalls: bool = False) -> None:
    """TX-3: gaps under 60 ms, 50 frames a second; no underrun at the carrier, unless its line ``stalls``."""
    metrics = services.record.metrics
    assert stalls or stream.playback.underruns == []
    assert metrics.max_gap_ms is not None
    assert metrics.max_gap_ms < 60
    assert metrics.fps is not None
    assert metrics.fps == pytest.approx(50, abs=0.5)


@in_worlds(real=range(10))
async def test_bi_8_a_interrupting_the_greeting(autojump_clock: MockClock, world: Profile) -> None:
    """A (BI-2, BI-4, PL-8): the greeting stops at once, the model learns what was heard, the turn is answered."""
    async with open_scripted_call([GREETING, LONG]) as (services, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await stream.until_quiet(0.3)
        quiet_at = stream.heard_ms()
        await stream.until_heard_ms(quiet_at + 4000)
        await trio.sleep(0.5)
        await stream.hang_up()
    record = services.record
    greeting, caller, answer = record.turns
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.metrics.barge_in_events == 1
    assert greeting.interrupted
    really_heard_ms = heard_numbers(stream)[0] // 8
    assert believed_ms(model)[0] == pytest.approx(really_heard_ms, abs=ear_ms(world))
    assert greeting.heard_ms == believed_ms(model)[0]
    assert greeting.text.startswith(greeting.heard_text)
    assert 0 < len(greeting.heard_text) < len(greeting.text)
    assert caller.role == "caller"
    assert answer.heard_text == LONG.text
    assert not answer.interrupted
    assert refusals(model) == []
    assert_no_stale_frame(stream)
    assert_smooth(stream, services, stalls=world.is_real)


@in_worlds(real=range(10))
async def test_bi_4_the_last_frame_leaves_within_a_tick_of_speech_started(
    autojump_clock: MockClock, world: Profile
) -> None:
    """BI-4: speech_started to the last agent frame <= 20 ms, and to silence in the ear <= 200 ms."""
    network = Network(delay_s=0.04)
    async with open_scripted_call([GREETING], network=network) as (services, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(400))
        await stream.until_quiet(0.5)
        await stream.hang_up()
    events = {event.kind: event for event in services.record.timeline}
    assert events["CLEARED"].t_ms - events["SPEECH_STARTED"].t_ms <= 20
    assert events["CLEARED"].detail["latency_ms"] <= 20
    [clear] = tx(stream, "clear")
    frames_after = [entry for entry in tx(stream, "media") if entry.t_s > clear.t_s]
    assert frames_after == []
    assert believed_ms(model)[0] == pytest.approx(heard_numbers(stream)[0] / 8, abs=2 * ear_ms(world))


@in_worlds(real=range(10))
async def test_bi_8_b_interrupting_an_answer(autojump_clock: MockClock, world: Profile) -> None:
    """B: an answer is interrupted although the model has long finished generating it (BI-2)."""
    fast = Answer(LONG.text, 4000, speed=None)
    async with open_scripted_call([SHORT, fast, SHORT]) as (services, stream, model):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(600))
        await stream.until_heard_ms(800 + 1500)
        stream.say(tone(600))
        await stream.until_quiet(0.3)
        await trio.sleep(2.5)
        await stream.hang_up()
    record = services.record
    assert record.metrics.barge_in_events == 1
    assert world.is_real or received(model, "response.cancel") == [], "it was generated long before"
    assert believed_ms(model)[1] == pytest.approx(heard_numbers(stream)[1] / 8, abs=ear_ms(world))
    assert [turn.interrupted for turn in record.turns if turn.role == "agent"] == [False, True, False]
    assert refusals(model) == []
    assert_no_stale_frame(stream)


@in_worlds(real=range(10))
async def test_bi_8_b2_several_barge_ins_in_one_call(autojump_clock: MockClock, world: Profile) -> None:
    """B2: five answers interrupted in a row: each cancelled at most once, each truncated as heard (BI-3)."""
    answers = [
        GREETING,
        *(Answer(f"Answer number {number}, a long one.", 4000, speed=1.5) for number in range(5)),
    ]
    async with open_scripted_call(answers) as (services, stream, model):
        for _ in range(5):
            await stream.until_heard_ms(stream.heard_ms() + 1200)
            stream.say(tone(500))
            await stream.until_said()
            await stream.until_quiet(0.2)
        await trio.sleep(8)
        await stream.hang_up()
    record = services.record
    assert record.metrics.barge_in_events == 5
    cancels = [event["response_id"] for event in received(model, "response.cancel")]
    assert len(cancels) == len(set(cancels))
    assert refusals(model) == []
    heard_ms = [length / 8 for length in heard_numbers(stream)]
    assert believed_ms(model) == pytest.approx(heard_ms, abs=ear_ms(world, stalls=True))
    assert_no_stale_frame(stream)
    assert_smooth(stream, services, stalls=world.is_real)


@in_worlds(real=range(10))
async def test_bi_8_c_an_outbound_call_is_smooth(autojump_clock: MockClock, world: Profile) -> None:
    """C: an outbound call of several answers, over a network with delay and jitter: no gap is heard."""
    network = Network(delay_s=0.03, jitter_s=0.03)
    answers = [Answer(f"Part {number}.", 5000, speed=8) for number in range(4)]
    async with open_scripted_call(answers, network=network) as (services, stream, _):
        for number in range(4):
            await stream.until_heard_ms(5000 * number + 4990)
            stream.say(tone(500))
            await stream.until_said()
        await trio.sleep(1)
        await stream.hang_up()
    assert_smooth(stream, services, stalls=world.is_real)
    assert services.record.metrics.stalls == 0


@in_worlds(real=range(10))
async def test_bi_8_hebrew_survives_everywhere(autojump_clock: MockClock, world: Profile) -> None:
    """Hebrew from greeting to record: heard text is cut at a word, nothing is escaped or lost."""
    text = "שלום, כאן העוזרת הקולית, איך אפשר לעזור לך היום?"
    model = ScriptedRealtime([Answer(text, 3000), SHORT], transcripts=["רגע רגע, יש לי שאלה"])
    async with (
        open_services(memory_realtime(lambda: model), greeting=text) as services,
        open_call(services) as stream,
    ):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await trio.sleep(3)
        await stream.hang_up()
    greeting, caller, _ = services.record.turns
    assert greeting.text == text
    assert greeting.heard_text in text
    assert greeting.heard_text.split() == text.split()[: len(greeting.heard_text.split())]
    words = "רגע רגע, יש לי שאלה"
    assert caller.text == words or (world.is_real and not caller.text), "a transcript may never come"
    [request] = received(model, "response.create")
    assert text in request["response"]["instructions"]


@in_worlds(real=range(10))
async def test_nb_4_five_calls_at_once_behave_as_one_does(autojump_clock: MockClock) -> None:
    """NB-4: five calls, each with a barge-in: the same truncation, smoothness and outcome in each."""
    models: list[ScriptedRealtime] = []
    streams: list[SimulatedStream] = []

    def another() -> ScriptedRealtime:
        models.append(ScriptedRealtime([GREETING, LONG]))
        return models[-1]

    async with open_services(memory_realtime(another)) as services, trio.open_nursery() as nursery:

        async def one_call(number: int) -> None:
            async with open_call(services, call_sid=f"CA{number:032d}") as stream:
                streams.append(stream)
                await stream.until_heard_ms(1000)
                stream.say(tone(600))
                await trio.sleep(4)
                await stream.hang_up()

        for number in range(5):
            nursery.start_soon(one_call, number)
    assert len(services.records.saved) == 5
    for record in services.records.saved:
        assert record.outcome is Outcome.CALLER_HUNG_UP
        assert record.metrics.barge_in_events == 1
        assert record.metrics.max_gap_ms is not None
        assert record.metrics.max_gap_ms < 60
    for stream in streams:
        assert_no_stale_frame(stream)
        assert stream.playback.underruns == []


@in_worlds(real=range(10))
async def test_bi_5_the_first_half_second_of_the_greeting_is_protected(
    autojump_clock: MockClock, world: Profile
) -> None:
    """BI-5: a speech start at 100 ms does not cancel; the caller still speaks at 500 ms: then it does."""
    async with open_scripted_call([GREETING, SHORT]) as (services, stream, model):
        await stream.until_heard_ms(100)
        stream.say(tone(1500))
        await stream.until_quiet(0.5)
        heard_ms = stream.heard_ms()
        await stream.hang_up()
    assert 500 <= heard_ms <= 600
    assert believed_ms(model)[0] == pytest.approx(heard_ms, abs=ear_ms(world))
    assert services.record.metrics.barge_in_events == 1


@in_worlds(real=range(10))
async def test_bi_5_a_short_noise_in_the_protected_greeting_is_ignored(autojump_clock: MockClock) -> None:
    """BI-5: a cough at 100 ms is over when the protection ends: the greeting is heard to its end."""
    async with open_scripted_call([GREETING, SHORT]) as (services, stream, model):
        await stream.until_heard_ms(100)
        stream.say(tone(150))
        await stream.until_heard_ms(3000)
        await trio.sleep(2)
        await stream.hang_up()
    assert services.record.metrics.barge_in_events == 0
    assert believed_ms(model)[0] == 3000
    assert services.record.turns[0].heard_text == GREETING.text


@in_worlds(real=range(10))
async def test_bi_6_a_turn_spoken_into_the_protected_greeting_is_answered(
    autojump_clock: MockClock, world: Profile
) -> None:
    """BI-6: words committed while the greeting was still being generated get their answer afterwards."""
    slow = Answer(GREETING.text, 3000, speed=1.1)
    async with open_scripted_call([slow, SHORT], transcripts=["How much is it?"]) as (services, stream, model):
        await stream.until_heard_ms(60)
        stream.say(tone(200))
        await trio.sleep(8)
        await stream.hang_up()
    assert counts(services.record)["TURN_RECOVERED"] == 1 or world.is_real, "it may be answered by itself there"
    [words] = [turn.text for turn in services.record.turns if turn.role == "caller"]
    answers = [SHORT.text] if words else []  # words that are never known are taken for a cough by their length
    assert agent_words(services.record) == [slow.text, *answers]
    assert refusals(model) == []


@in_worlds(real=range(10))
async def test_bi_1_caller_audio_flows_from_the_first_frame_during_the_greeting(
    autojump_clock: MockClock,
) -> None:
    """BI-1: what the model gets is what the caller's leg carried, from the first frame on, none gated.

    At the end less than a piece of the quiet line may not have gone out yet.
    """
    model = ScriptedRealtime([GREETING], record_audio=True)
    async with open_services(memory_realtime(lambda: model)) as services, open_call(services) as stream:
        await stream.until_heard_ms(600)
        stream.say(numbered(7, 200))
        await trio.sleep(2)
        await stream.hang_up()
    heard_by_model = bytes(model.session.appended)
    assert numbered(7, 200) in heard_by_model
    missing = services.record.metrics.frames_in - len(heard_by_model) // 160
    assert -1 <= missing < Settings().uplink_ms // FRAME_MS


@in_worlds(real=range(10))
async def test_pl_6_the_agent_hangs_up_after_its_last_word_was_heard(autojump_clock: MockClock) -> None:
    """PL-6, D10: end_call waits until the goodbye was heard, then hangs up by REST and closes."""
    goodbye = Answer(
        "Goodbye and thank you for calling.", 2000, speed=None, tool_call=ScriptedToolCall("end_call", {})
    )
    async with open_scripted_call([GREETING, goodbye]) as (services, stream, _):
        await stream.until_heard_ms(3000)
        stream.say(tone(400))
        await stream.until_closed()
    assert services.record.outcome is Outcome.AGENT_HUNG_UP
    assert services.rest.hung_up == [CALL_SID]
    assert heard_numbers(stream)[1] == 2000 * 8
    assert services.record.turns[-1].heard_text == goodbye.text


@in_worlds(real=range(10))
async def test_end_call_is_taken_back_when_the_caller_speaks_into_the_goodbye(
    autojump_clock: MockClock, world: Profile
) -> None:
    """A caller who interrupts the goodbye has more to say: the call goes on, the model is told."""
    goodbye = Answer("Goodbye and thank you for calling us.", 3000, tool_call=ScriptedToolCall("end_call", {}))
    async with open_scripted_call([SHORT, goodbye, SHORT]) as (services, stream, model):
        await stream.until_heard_ms(800)
        stream.say(tone(400))
        await stream.until_heard_ms(800 + 1000)
        stream.say(tone(400))
        await trio.sleep(5)
        assert not stream.is_closed
        await stream.hang_up()
    assert services.record.outcome is Outcome.CALLER_HUNG_UP
    items = [event["item"] for event in received(model, "conversation.item.create")]
    told = any("the caller spoke again" in item.get("output", "") for item in items)
    assert told or world.is_real, "there the goodbye may be cut off before it is whole, and its tool is not used"


@in_worlds(real=range(10))
async def test_tx_9_recording_starts_only_after_the_first_frame(autojump_clock: MockClock) -> None:
    """TX-9: no REST request of the set-up before FIRST_FRAME_SENT."""
    slow_start = Answer("Hello.", 1000, first_delta_ms=1500)
    async with open_scripted_call([slow_start]) as (services, stream, _):
        started_s = trio.current_time()
        await stream.until_heard_ms(500)
        await stream.hang_up()
    [start] = [request for request in services.rest.requests if request.what == "start_recording"]
    first_frame_ms = services.record.metrics.first_audio_ms
    assert first_frame_ms is not None
    assert first_frame_ms >= 1500
    assert start.t_s - started_s >= 1.5


@in_worlds(real=range(10))
async def test_nb_1_a_slow_carrier_api_blocks_nothing(autojump_clock: MockClock, world: Profile) -> None:
    """NB-1, ST-3: REST that takes four seconds leaves the pacing as it is."""
    async with open_scripted_call([Answer("A long greeting.", 6000)]) as (services, stream, _):
        services.rest.delay_s = 4.0
        await stream.until_heard_ms(6000)
        await stream.hang_up()
    assert_smooth(stream, services, stalls=world.is_real)
    assert services.record.recording_sid is not None


@in_worlds(real=range(10))
async def test_d11_a_failing_recording_does_not_end_the_call(autojump_clock: MockClock) -> None:
    """A guest fails alone: counted, logged, and the caller notices nothing."""
    async with open_scripted_call([GREETING]) as (services, stream, _):
        services.rest.failures.append("no recording today")
        await stream.until_heard_ms(3000)
        await stream.hang_up()
    assert counts(services.record)["GUEST_FAILED"] == 1
    assert services.record.turns[0].heard_text == GREETING.text


@pytest.mark.parametrize("endpoint_ms", [400, 2000])
async def test_d14_missing_frames_are_made_silence_so_that_the_turn_ends(
    autojump_clock: MockClock, endpoint_ms: int
) -> None:
    """The carrier stops sending in the middle of a word: the model hears silence and ends the turn."""
    call = open_scripted_call(
        [SHORT, LONG], settings={"vad_silence_ms": endpoint_ms}, network=Network(silence=False)
    )
    async with call as (services, stream, model):
        await stream.until_heard_ms(800)
        stream.say(tone(600))
        await trio.sleep(8)
        await stream.hang_up()
    assert counts(services.record)["CALLER_AUDIO_REPAIRED"] > 0
    assert len(received(model, "response.create")) == 1, "the greeting; the turn was answered by the provider"
    assert services.record.turns[-1].heard_text == LONG.text


@in_worlds(real=range(10))
async def test_dtmf_reaches_the_model_as_one_message(autojump_clock: MockClock) -> None:
    """Keys pressed together are told together, and kept in the record."""
    async with open_scripted_call([SHORT, LONG]) as (services, stream, model):
        await stream.until_heard_ms(800)
        for digit in "1234":
            stream.press(digit)
            await trio.sleep(0.3)
        await trio.sleep(3)
        await stream.hang_up()
    items = received(model, "conversation.item.create")
    assert [item["item"]["content"][0]["text"] for item in items] == ["The caller pressed these keys: 1234"]
    assert services.record.dtmf == "1234"


@in_worlds(real=range(10))
async def test_nb_3_call_metrics_are_complete(autojump_clock: MockClock, world: Profile) -> None:
    """NB-3: duration, barge-ins, fps, gap, first audio, turn latencies, frames both ways, drops, reconnects."""
    async with open_scripted_call([GREETING, SHORT]) as (services, stream, _):
        await stream.until_heard_ms(1500)
        stream.say(tone(500))
        await trio.sleep(3)
        await stream.hang_up()
    metrics = services.record.metrics
    late_ms = 300 if world.is_real else 0
    assert metrics.duration_ms == pytest.approx(1500 + 200 + 3000, abs=100 + late_ms)
    assert metrics.barge_in_events == 1
    assert metrics.first_audio_ms is not None
    assert 200 <= metrics.first_audio_ms <= 200 + late_ms
    [latency_ms] = metrics.turn_latencies_ms
    assert latency_ms == pytest.approx(services.calls.settings.vad_silence_ms + 200, abs=60 + late_ms)
    assert metrics.frames_in == pytest.approx(metrics.duration_ms / 20, abs=3)
    assert metrics.frames_out == len(tx(stream, "media"))
    assert metrics.frames_dropped > 0
    assert metrics.reconnects == 0


@in_worlds(real=range(10))
async def test_idle_prompts_count_from_the_audible_end_of_speech(autojump_clock: MockClock) -> None:
    """Silence after the greeting was *heard* brings a question, then a goodbye, then the end."""
    settings = {"idle_prompt_s": 5.0, "idle_prompts": 1}
    answers = [Answer("Hello.", 4000, speed=None), Answer("Are you there?", 1000), Answer("Goodbye.", 1000)]
    async with open_scripted_call(answers, settings=settings) as (services, stream, model):
        began = trio.current_time()
        await stream.until_closed()
        took_s = trio.current_time() - began
    assert services.record.outcome is Outcome.IDLE
    assert len(received(model, "response.create")) == 3
    assert took_s == pytest.approx(4.2 + 5 + 1.2 + 5 + 1.2 + 0.4, abs=3.5)
    assert heard_numbers(stream) == [4000 * 8, 1000 * 8, 1000 * 8]


@in_worlds(real=range(10))
async def test_the_time_limit_ends_a_call_with_a_spoken_goodbye(autojump_clock: MockClock) -> None:
    """max_call_s: the agent says goodbye, is heard, and hangs up."""
    answers = [SHORT, Answer("Time is up, goodbye.", 1500)]
    async with open_scripted_call(answers, settings={"max_call_s": 10.0}) as (services, stream, _):
        await stream.until_closed()
    assert services.record.outcome is Outcome.TIME_LIMIT
    assert heard_numbers(stream) == [800 * 8, 1500 * 8]
    assert services.rest.hung_up == [CALL_SID]


@in_worlds(real=range(10))
async def test_tx_7_an_endless_answer_is_ended_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    """TX-7: over its limit an answer ends with a clear error; what was taken of it is heard; the call goes on."""
    endless = Answer("On and on and on.", 20_000, speed=None)
    async with open_scripted_call([endless, SHORT], settings={"max_answer_s": 5.0}) as (services, stream, model):
        await stream.until_heard_ms(5000)
        await trio.sleep(1)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    assert counts(services.record)["GENERATION_TOO_LONG"] == 1
    heard = heard_numbers(stream)
    assert 5000 * 8 <= heard[0] <= 5500 * 8
    assert heard[1] == 800 * 8
    assert believed_ms(model)[0] == heard[0] // 8


@pytest.mark.parametrize("call_seconds", [3600])
async def test_an_hour_of_call_in_virtual_time(autojump_clock: MockClock, call_seconds: int) -> None:
    """A carrier that sends no silence, an hour, one short exchange: timers alone, and no drift of anything."""
    call = open_scripted_call([SHORT, SHORT], network=Network(silence=False), at_most_s=call_seconds + 60)
    async with call as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(call_seconds - 10)
        stream.say(tone(400))
        await trio.sleep(5)
        await stream.hang_up()
    assert services.record.metrics.duration_ms >= (call_seconds - 10) * 1000
    assert heard_numbers(stream) == [6400, 6400]
    assert math.isclose(services.record.metrics.fps or 50, 50, abs_tol=0.5)


@in_worlds(real=range(10))
async def test_model_garbage_is_counted_and_survived(autojump_clock: MockClock) -> None:
    """Garbage, strays, duplicates and out-of-order events of the model: counted, and the caller hears it all."""
    faults = Faults(garbage=True, stray_delta=True, duplicate_created=True, duplicate_done=True)
    model = ScriptedRealtime([GREETING, SHORT], faults=faults)
    async with open_services(memory_realtime(lambda: model)) as services, open_call(services) as stream:
        await stream.until_heard_ms(3000)
        await trio.sleep(1)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    assert heard_numbers(stream) == [3000 * 8, 800 * 8]
    events = counts(services.record)
    assert events["MODEL_JSON"] == 2
    assert events["STALE_DELTA"] == 2
    assert events["DUPLICATE_RESPONSE"] == 2
