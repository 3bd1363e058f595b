"""The simulated carrier's recordings: really made from the call, told of with a signature, in any part wanted."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import trio
from greeting_agent import AGENT, AUTH, CALLER, GreetingAgent, open_world
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from virtual_call import CALL_SID, open_scripted_call

from agent.carrier.rest import open_twilio_rest
from agent.carrier.stream_token import CallTicket
from agent.core.settings import Settings, load_settings
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording.carrier_media import open_twilio_recordings
from agent.pipeline.recording.download import fetch_recording
from agent.sim.carrier.rest.recordings import GeneratedSound, SimulatedRecording, Sound, UlawSound, mix
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.carrier.twilio import SimulatedTwilio
from agent.sim.model.script import Answer
from agent.sim.sounds import silence, tone

Samples = npt.NDArray[np.int16]
SOUNDS: list[Sound] = [
    GeneratedSound(2.37),
    GeneratedSound(1.0, channels=1),
    UlawSound((tone(300), tone(100, hz=900))),
    UlawSound((tone(55),)),
]


def samples(content: bytes) -> Samples:
    """The file's samples, a column for each channel."""
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getsampwidth(), file.getframerate()) == (2, 8000)
        return np.frombuffer(file.readframes(10**9), "<i2").reshape(-1, file.getnchannels())


def loud_ms(channel: Samples) -> int:
    """For how long there is sound."""
    tens = np.abs(channel[: len(channel) // 80 * 80].astype(np.int32)).reshape(-1, 80).max(axis=1)
    return int(np.count_nonzero(tens > 500)) * 10


def content_of(recording: SimulatedRecording) -> bytes:
    return b"".join(recording.read(0, recording.size))


@given(st.sampled_from(SOUNDS), st.data())
def test_any_part_of_a_file_is_what_it_is_in_the_whole(sound: Sound, data: st.DataObject) -> None:
    recording = SimulatedRecording(
        sid="RE1", call_sid="CA1", status="completed", channels=sound.channels, sound=sound
    )
    content = content_of(recording)
    assert len(content) == recording.size
    assert samples(content).shape == (sound.frames, sound.channels)
    start = data.draw(st.integers(0, recording.size))
    end = data.draw(st.integers(start, recording.size))
    assert b"".join(recording.read(start, end)) == content[start:end]


def test_mono_is_the_louder_of_both() -> None:
    loud, quiet = tone(20), silence(20)
    assert mix(loud, quiet) == mix(quiet, loud)
    assert loud_ms(samples(content_of(_recording(UlawSound((mix(loud, quiet),)))))[:, 0]) == 20


def _recording(sound: Sound) -> SimulatedRecording:
    return SimulatedRecording(sid="RE1", call_sid="CA1", status="completed", channels=sound.channels, sound=sound)


async def test_in_virtual_time_a_recording_is_made_of_the_call(autojump_clock: MockClock) -> None:
    """What the caller said is on the first channel, what was played to them on the second."""
    async with open_scripted_call([Answer("Hello.", tone(900))], settings={"vad_silence_ms": 5000}) as (
        services,
        stream,
        _,
    ):
        services.rest.streams[CALL_SID] = stream
        await stream.until_heard_ms(900)
        await stream.until_quiet(0.5)
        stream.say(tone(400))
        await stream.until_said()
        state = await services.rest.recording_of(CallSid(CALL_SID))
        assert state is not None
        assert state.status == "in-progress"
        await stream.hang_up()
        await stream.until_closed()
        state = await services.rest.recording_state(RecordingSid(state.recording_sid))
        assert state is not None
        assert state.status == "completed"
        [recording] = services.rest.kept.of_call(CALL_SID)
    both = samples(content_of(recording))
    assert loud_ms(both[:, 0]) == pytest.approx(400, abs=20)
    # It begins after the first frame, when the request was answered (TX-9).
    assert loud_ms(both[:, 1]) == pytest.approx(800, abs=60)


# Over sockets


def settings_of(twilio: SimulatedTwilio) -> Settings:
    return load_settings(
        twilio_account_sid=twilio.account_sid,
        twilio_auth_token=AUTH,
        twilio_number=AGENT,
        twilio_api_url=twilio.api_url,
        public_url=twilio.caller.agent_url,
    )


async def until_told(twilio: SimulatedTwilio, status: str) -> None:
    while status not in [hook.fields["RecordingStatus"] for hook in twilio.recording_webhooks]:  # noqa: ASYNC110
        await trio.sleep(0.01)


@pytest.mark.sockets
@pytest.mark.parametrize("direction", ["inbound", "outbound-api"])
@pytest.mark.parametrize("agent_first", [False, True])
async def test_a_call_is_recorded_told_of_and_downloaded(
    tmp_path: Path,
    direction: str,
    agent_first: bool,  # noqa: FBT001 - parametrized
) -> None:
    """Both ways the human is on the first channel; the callbacks are signed and taken by the real webhook."""
    agent = GreetingAgent()

    async def human(stream: SimulatedStream) -> None:
        await stream.until_heard_ms(200)
        stream.say(tone(300))
        await stream.until_said()
        await stream.hang_up()

    async with open_world(agent) as twilio:
        twilio.recordings.agent_first = agent_first
        settings = settings_of(twilio)
        with open_twilio_rest(settings) as rest:
            assert rest is not None

            async def record(ticket: CallTicket) -> None:
                await rest.start_recording(ticket.call_sid)

            agent.after_greeting = record
            if direction == "inbound":
                async with twilio.place_call(CALLER, AGENT) as stream:
                    await human(stream)
            else:
                twilio.callee = human
                base = twilio.caller.agent_url
                sid = await rest.create_call(
                    CALLER, url=f"{base}/voice/outgoing", status_callback=f"{base}/voice/status"
                )
                await twilio.calls[sid].ended.wait()
            await until_told(twilio, "completed")
        assert [hook.fields["RecordingStatus"] for hook in twilio.recording_webhooks] == [
            "in-progress",
            "completed",
        ]
        assert [hook.answer for hook in twilio.recording_webhooks] == [204, 204]
        [call] = twilio.calls.values()
        assert call.direction == direction
        async with open_twilio_recordings(settings) as carrier:
            assert carrier is not None
            got = await fetch_recording(CallSid(call.sid), None, carrier, tmp_path)
    assert got is not None
    both = samples(got.path.read_bytes())[:, :: -1 if agent_first else 1]
    assert loud_ms(both[:, 0]) == pytest.approx(300, abs=40)
    assert 0 < loud_ms(both[:, 1]) <= 200


@pytest.mark.sockets
async def test_a_recording_that_is_never_ready_or_never_was() -> None:
    agent = GreetingAgent()
    async with open_world(agent) as twilio:
        with open_twilio_rest(settings_of(twilio)) as rest:
            assert rest is not None

            async def record(ticket: CallTicket) -> None:
                await rest.start_recording(ticket.call_sid)

            agent.after_greeting = record
            twilio.processing_s = 0.0
            for never_ready, ends_as in ((True, "processing"), (False, "absent")):
                twilio.recordings.never_ready = never_ready
                twilio.recordings.ends_as = "absent"
                async with twilio.place_call(CALLER, AGENT) as stream:
                    await stream.until_heard_ms(200)
                    while not twilio.recordings.of_call(stream.call_sid):  # noqa: ASYNC110
                        await trio.sleep(0.01)
                [recording] = twilio.recordings.of_call(stream.call_sid)
                while recording.status != ends_as:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await until_told(twilio, "absent")
        assert twilio.recording_webhooks[-1].fields["ErrorCode"] == "16101"
        url = f"{twilio.api_url}/2010-04-01/Accounts/{twilio.account_sid}/Recordings/{recording.sid}.wav"
        async with httpx.AsyncClient(auth=(twilio.account_sid, AUTH), trust_env=False) as client:
            assert (await client.get(url)).status_code == 404
