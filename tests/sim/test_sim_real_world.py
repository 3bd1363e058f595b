"""The ``real`` profile: model and carrier do what was seen of the real services, the same for the same seed."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
import trio
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from realtime_client import SPOKEN, Client, open_session, update
from trio.testing import MockClock
from typer.testing import CliRunner
from worlds import in_worlds

import agent.sim.__main__ as command_line
from agent.audio.ulaw import ulaw_to_pcm16
from agent.core.errors import HandshakeRejectedError
from agent.model import events as codec
from agent.model.requests import encode_response_create, encode_text_item
from agent.model.server_shapes import Outbox
from agent.sim.carrier.network import Network, OneWay, network_of
from agent.sim.model.script import PAUSE_S, Answer, Faults, ScriptedToolCall, plan_roughly
from agent.sim.model.server import ScriptedRealtime
from agent.sim.model.session import TO_NOISE
from agent.sim.model.transcribing import Transcribing
from agent.sim.profile import Profile
from agent.sim.sounds import numbered, numbers_in

SEEDS: Final = range(10)
SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(RealtimeServerEvent)
WORDS: Final = "One moment please I look it up for you we are open from nine to five"
PLAIN: Final = ("rate_limits.updated", "response.output_audio.delta")
"""Events without a field of tomorrow."""
TOOL: Final = ScriptedToolCall("book", {"day": "monday"})


async def talk(world: Profile, answers: int = 4) -> tuple[list[dict[str, Any]], list[float], ScriptedRealtime]:
    """Speak four times to a model of ``world``; all it sent and when, and the model."""
    model = ScriptedRealtime([Answer(WORDS, 3000, TOOL)] * answers, profile=world)
    async with open_session(model) as client:
        await client.send(update(silence_duration_ms=500), encode_response_create("ev", "greeting"))
        await client.until("response.done")
        for _ in range(answers - 1):
            await client.speak(SPOKEN)
            await trio.sleep(3.0)
    told = [*client.events, *((0.0, msgspec.json.decode(raw)) for raw in client.garbage)]
    return [event for _, event in told], [t_s for t_s, _ in told], model


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_speaks_the_providers_protocol_in_the_providers_order(
    autojump_clock: MockClock, seed: int
) -> None:
    """All is valid but events of tomorrow and calls without a name, and our decoder reads all of it."""
    events, _, _ = await talk(Profile.real(seed, quiet_room=True))
    kinds = [event["type"] for event in events]
    for event in events:
        decoded = codec.decode_event(msgspec.json.encode(event))
        if not is_valid(event):
            nameless = isinstance(decoded, codec.FunctionCallDone) and not decoded.name
            assert nameless or decoded == codec.OtherEvent("session.weather.updated")
        else:
            assert "obfuscation" in event or event["type"] in PLAIN
    assert kinds.count("rate_limits.updated") == kinds.count("response.done") == 4
    known = [kind for kind, event in zip(kinds, events, strict=True) if is_valid(event)]
    for before, kind in pairwise(known):
        assert kind != "rate_limits.updated" or before == "response.done"
    for event in (event for event in events if event["type"] == "response.done"):
        assert event["response"]["usage"]["total_tokens"] > 0
    turn = [
        *("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
        *("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"),
        "response.created",
    ]
    begins = known.index(turn[0])
    assert [kind for kind in known[begins:] if "transcription" not in kind][: len(turn)] == turn


def chance_of(seed: int) -> Any:
    """What a part of a world draws from."""
    return Profile.real(seed).chance("a part")


def is_valid(event: dict[str, Any]) -> bool:
    """Whether the provider's own types know it so."""
    try:
        SERVER_EVENT.validate_python(event, strict=True)
    except ValueError:
        return False
    return True


async def test_a_seed_says_it_all(autojump_clock: MockClock) -> None:
    """The same seed gives the same messages, ids and all, at the same times; another seed others."""
    first, second, other = [(await talk(Profile.real(seed)))[0] for seed in (3, 3, 4)]
    assert first == second
    assert first != other


async def test_the_kind_world_has_none_of_it(autojump_clock: MockClock) -> None:
    """No field, no event and no chance that a test did not ask for."""
    events, _, _ = await talk(Profile())
    assert all(map(is_valid, events))
    assert not any(event["type"] == "rate_limits.updated" or "obfuscation" in event for event in events)
    done = [event["response"] for event in events if event["type"] == "response.done"]
    assert [[item["type"] for item in response["output"]] for response in done] == [
        ["message", "function_call"]
    ] * 4


@pytest.mark.parametrize("speed", [None, 1.5, 4.0])
def test_deltas_are_uneven_and_late_but_never_too_late(speed: float | None) -> None:
    """All audio and all words come, in order; sizes differ; a pause is not heard."""
    parts, pauses_s = Counter[int](), []
    for seed in range(60):
        steps = plan_roughly(Answer(WORDS, 6000, speed=speed), 2, chance_of(seed))
        audio = [step for step in steps if step.kind == "audio"]
        assert b"".join(b64decode(step.data) for step in audio) == numbered(2, 6000)
        assert "".join(step.data for step in steps if step.kind == "text").replace(" ", "") == WORDS.replace(
            " ", ""
        )
        assert len({step.length_bytes for step in audio}) > 3
        assert sorted(steps, key=lambda step: (step.part, step.after_s)) == list(steps)
        parts[steps[-1].part + 1] += 1
        sent_s = 0.0
        for before, step in pairwise(audio):
            sent_s += before.length_bytes / 8000
            assert step.after_s <= sent_s + 0.1, "the ear would run dry"
            pauses_s.append(step.after_s - before.after_s)
    assert set(parts) == {1, 2}
    assert max(pauses_s) > PAUSE_S / 4


async def test_an_answer_may_be_two_messages(autojump_clock: MockClock) -> None:
    """A commentary and the final answer: two items in the order of the output, each truncated by itself."""
    seed = next(seed for seed in range(50) if two_messages(seed))
    events, _, model = await talk(Profile.real(seed, quiet_room=True), answers=2)
    [response, *_] = [each for each in model.session.responses if len(each.messages) == 2]
    [done] = [
        event["response"]
        for event in events
        if event["type"] == "response.done" and event["response"]["id"] == response.id
    ]
    assert [item.get("phase") for item in done["output"]] == ["commentary", "final_answer", None]
    assert [item["type"] for item in done["output"]] == ["message", "message", "function_call"]
    places = [event for event in events if event.get("response_id") == response.id and "output_index" in event]
    assert [place["output_index"] for place in places] == sorted(place["output_index"] for place in places)
    ids = {event["item_id"] for event in places if event["type"] == "response.output_audio.delta"}
    assert ids == {item["id"] for item in done["output"][:2]}
    assert sum(message.sent_ms for message in response.messages) == 3000


def two_messages(seed: int) -> bool:
    """Whether the first answer in the world of this seed is two messages."""
    chance = Profile.real(seed).chance("model 0 room")
    return plan_roughly(Answer(WORDS, 3000), 0, chance)[-1].part == 1


def test_transcripts_are_late_missing_or_of_the_turn_before() -> None:
    """Of many turns most have their words, in deltas and whole; some late, failed, or after the next turn."""
    sent: list[dict[str, Any]] = []
    planned: list[tuple[float, Any]] = []
    outbox = Outbox(lambda raw: sent.append(msgspec.json.decode(raw)))
    transcribing = Transcribing(outbox, lambda at_s, do: planned.append((at_s, do)), 0.2, chance_of(1))
    delays_s, fates = [], Counter[str]()
    for turn in range(400):
        transcribing.commit(f"item_{turn}", "Good morning to you", turn * 10.0)
        for at_s, do in planned:
            do(at_s)
            last = sent[-1]
            of = int(last["item_id"].removeprefix("item_"))
            kind = last["type"].rpartition(".")[2]
            fates[kind if of == turn else "of the turn before"] += 1
            delays_s.append(at_s - turn * 10.0)
        planned.clear()
    assert 300 < fates["completed"] < 360
    assert min(fates["failed"], fates["of the turn before"], 400 - fates.total()) >= 8
    assert min(delays_s) < 0.5
    assert max(delays_s) > 2.0
    [complete, *_] = [event for event in sent if event["type"].endswith("completed")]
    deltas = [event["delta"] for event in sent if event["type"].endswith("delta")][:4]
    assert "".join(deltas) == complete["transcript"] == "Good morning to you"


async def test_refused_settings_leave_the_providers_own(autojump_clock: MockClock) -> None:
    """PCM16 at 24 kHz, and the caller's speech cancels an answer: what a client gets that did not look."""
    faults = Faults(refuse_setting="audio.output.voice")
    model = ScriptedRealtime(
        [Answer("a", 9000, speed=1.0)], faults=faults, profile=Profile.real(2, quiet_room=True)
    )
    async with open_session(model) as client:
        await client.send(update(), encode_response_create("ev", "x"))
        await client.until("response.output_audio.delta", 4)
        await client.speak()
        await client.until("response.done")
    [refusal] = client.of("error")
    assert refusal["error"]["param"] == "session.audio.output.voice"
    assert client.of("session.updated") == []
    deltas, interrupted = client.of("response.output_audio.delta"), client.of("response.created")[0]["response"]
    audio = b"".join(b64decode(each["delta"]) for each in deltas if each["response_id"] == interrupted["id"])
    expected = ulaw_to_pcm16(numbered(0, 9000)).repeat(3).astype("<i2").tobytes()
    assert audio
    assert expected.startswith(audio)
    assert client.of("response.done")[0]["response"]["status_details"]["reason"] == "turn_detected"


async def test_a_setting_that_is_not_refused_is_taken(autojump_clock: MockClock) -> None:
    """Nothing is refused but the field that was named, in a kind world too."""
    model = ScriptedRealtime([Answer("a", 400)], faults=Faults(refuse_setting="audio.output.speed"))
    async with open_session(model) as client:
        await client.send(update(), encode_response_create("ev", "x"))
        await client.until("response.done")
    assert client.errors() == []
    assert len(client.of("session.updated")) == 1


async def listen(world: Profile, minutes: int) -> Client:
    """Say nothing for some minutes, and ask for a long answer now and then; what came."""
    model = ScriptedRealtime(default=Answer(WORDS, 5000, speed=1.0), profile=world)
    async with open_session(model) as client:
        await client.send(update())
        for _ in range(minutes * 6):
            if model.session.active is None:
                await client.send(encode_text_item("user", "Go on.", "ev"), encode_response_create("ev", "x"))
            await trio.sleep(10.0)
    return client


async def test_noise_and_echo_are_taken_for_speech_but_not_in_a_quiet_room(autojump_clock: MockClock) -> None:
    """Nobody spoke: each such turn begins, ends, is committed without a word, and is answered to noise."""
    noisy = await listen(Profile.real(5), 5)
    starts, stops = (noisy.of(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped"))
    committed = [event["item_id"] for event in noisy.of("input_audio_buffer.committed")]
    assert len(starts) >= 5
    assert [event["item_id"] for event in starts][: len(committed)] == committed
    assert len(stops) == len(committed)
    transcripts = noisy.of("conversation.item.input_audio_transcription.completed")
    assert {event["transcript"] for event in transcripts} == {""}
    audio = b"".join(b64decode(delta["delta"]) for delta in noisy.of("response.output_audio.delta"))
    assert numbers_in(audio)[TO_NOISE[0]]
    quiet = await listen(Profile.real(5, quiet_room=True), 5)
    assert quiet.of("input_audio_buffer.speech_started") == []
    times = [noisy.when(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped")]
    lasted_s = [stop - start for start, stop in zip(*times, strict=False)]
    assert 0.6 <= min(lasted_s) <= max(lasted_s) <= 0.9, "the noise, and the silence that ends a turn"


async def test_a_caller_who_speaks_into_noise_goes_on_with_its_turn(autojump_clock: MockClock) -> None:
    """No turn begins within another: starts and stops take turns."""
    turns = 0
    for seed in SEEDS[:3]:
        model = ScriptedRealtime(profile=Profile.real(seed))
        async with open_session(model) as client:
            await client.send(update(silence_duration_ms=200))
            for _ in range(40):
                await client.speak()
        signs = [event for _, event in client.events if event["type"].startswith("input_audio_buffer.speech_")]
        turns += len(signs) // 2
        for first, second in pairwise(signs):
            assert (first["type"] == second["type"]) is False
            if first["type"].endswith("started"):
                assert first["item_id"] == second["item_id"]
    assert turns > 40 * 3, "the caller's, and noise"


def test_the_line_is_late_uneven_and_stalls() -> None:
    """Frames come in order, late by a bounded time; a stall holds many and lets go of all at once."""
    for seed in SEEDS:
        network = network_of(Profile.real(seed))
        line, again = OneWay(network), OneWay(network)
        sent_s = [index * 0.02 for index in range(6000)]
        arrived_s = [line.arrival_s(now) for now in sent_s]
        late_s = [arrival - now for arrival, now in zip(arrived_s, sent_s, strict=True)]
        assert arrived_s == sorted(arrived_s) == [again.arrival_s(now) for now in sent_s]
        assert min(late_s) >= network.delay_s
        assert 0.2 < max(late_s) <= network.latest_s
        bursts = [count for count in Counter(arrived_s).values() if count >= 5]
        assert 3 <= len(bursts) <= 20, "in two minutes"
    assert network_of(Profile()) == Network()


def test_the_command_line_gives_each_call_a_world_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--profile real --seed 3``: the first call is of seed 3, the next of 4; by default all is kind."""
    served: list[Any] = []
    monkeypatch.setattr(command_line, "_serve", lambda serve, _what, _port: served.append(serve.args[1]))
    for options in (["--profile", "real", "--seed", "3"], []):
        assert CliRunner().invoke(command_line.app, ["realtime", *options]).exit_code == 0
    real, kind = served
    assert [real().profile, real().profile] == [Profile.real(3), Profile.real(4)]
    assert kind().profile == Profile()
    assert CliRunner().invoke(command_line.app, ["realtime", "--profile", "rude"]).exit_code != 0


def test_each_call_of_the_command_line_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The carrier's calls of one seed differ from each other, and are those of a run before."""
    lines: list[Network] = []

    @asynccontextmanager
    async def note(*_: object, network: Network, **_others: object) -> AsyncIterator[object]:
        lines.append(network)
        raise HandshakeRejectedError(503, "no agent here")
        yield

    monkeypatch.setattr(command_line, "place_call", note)
    calls = ["carrier", "--url", "http://127.0.0.1:1", "--calls", "2", "--profile", "real", "--seed", "7"]
    for _ in range(2):
        assert CliRunner().invoke(command_line.app, calls).exit_code == 1
    worlds = [network_of(Profile.real(seed)) for seed in (7, 8)]
    assert sorted(lines[:2], key=worlds.index) == sorted(lines[2:], key=worlds.index) == worlds


@in_worlds(real=[8])
async def test_a_test_in_worlds_has_their_simulators(autojump_clock: MockClock, world: Profile) -> None:
    """A model that is not told otherwise is of the world, one that is keeps to it."""
    assert ScriptedRealtime().profile == world
    assert ScriptedRealtime(profile=Profile.real(1)).profile == Profile.real(1)
