"""The demo from its start to its report: a server, a carrier, a call, and what became of it."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import msgspec
import trio

from agent.app.cli.calls.view import call_as_json
from agent.app.demo.after_call import open_after_call
from agent.app.demo.agent_process import DATA, LOG, PUBLIC_URL, Account, open_agent
from agent.app.demo.checks import Check, check_after_call, check_audio, check_found, check_script
from agent.app.demo.phoning import ANSWER_S, LONGEST_ANSWER_S, Say, follow_script, play_recording
from agent.app.demo.progress import Progress
from agent.app.demo.script import SCRIPT, ScriptedLine, SpokenLine
from agent.app.demo.timeline.lanes import Timeline, make_timeline
from agent.app.demo.timeline.levels import stretches, trimmed
from agent.app.demo.timeline.stream_analysis import TURN_PAUSE_MS, StreamAnalysis, analyse
from agent.app.demo.wav import RecordingError, read_wav, write_stereo
from agent.core.errors import AgentError, first_error
from agent.core.records import CallRecord
from agent.core.units import SAMPLE_RATE_HZ
from agent.local.process import check_installed
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.store.sql.values import CallView

ACCOUNT_SID: Final = "AC" + "d" * 32
CALLER, NUMBER = "+15550001111", "+15552223333"
CALL_LIMIT_S: Final = 120.0
"""How long the scripted call may take; 35 seconds are usual."""
LONGEST_RECORDING_S: Final = 600

Converse = Callable[[SimulatedStream, Say], Awaitable[None]]


class DemoError(AgentError):
    """The demo call could not be made, or not be followed to its end."""


@attrs.frozen
class Files:
    """What the demo leaves."""

    wav: Path
    picture: Path
    json: Path


@attrs.frozen
class Demo:
    """One finished demo call."""

    record: CallRecord
    seen: StreamAnalysis
    checks: tuple[Check, ...]
    files: Files
    after: CallView
    """The call as ``call-agent calls show`` has it, everything after it done."""


async def read_recording(path: Path) -> list[SpokenLine]:
    """The user's recording, in mu-law, divided at its pauses. Raises RecordingError, naming the file."""
    try:
        raw = await trio.Path(path).read_bytes()
        turns = await trio.to_thread.run_sync(divide, raw)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from None
    except RecordingError as error:
        raise RecordingError(f"cannot phone with {path}: {error}") from None
    return [SpokenLine(ScriptedLine(f"part {number}"), turn) for number, turn in enumerate(turns, 1)]


def divide(raw: bytes) -> list[bytes]:
    """The turns of the caller in a WAV file, as mu-law. Raises RecordingError."""
    audio = read_wav(raw)
    if len(audio) > LONGEST_RECORDING_S * SAMPLE_RATE_HZ:
        raise RecordingError(f"it is longer than {LONGEST_RECORDING_S // 60} minutes")
    turns = [audio[part] for part in stretches(audio, pause_ms=TURN_PAUSE_MS)]
    if not turns:
        raise RecordingError("there is only silence in it")
    return turns


async def run_demo(recording: Path | None, out: Path, progress: Progress) -> Demo:
    """Make the call and write its files into ``out``.

    Raises RecordingError, LocalModelMissingError, and AgentError or OSError when the call could not be made or
    followed to its end. A cancel ends the server and the call; no process stays behind.
    """
    turns = None if recording is None else await read_recording(recording)
    check_installed()
    if find_spec("matplotlib") is None:
        raise AgentError("the demo draws its picture with matplotlib: pip install 'call-agent[demo]'")
    await trio.Path(out).mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(16)
    progress.now("starting the embedded Postgres")
    async with (
        open_simulated_twilio(agent_url="", auth_token=token, account_sid=ACCOUNT_SID) as twilio,
        open_after_call((out / DATA).absolute(), NUMBER) as after,
    ):
        progress.step(f"the embedded Postgres runs; {NUMBER} is {after.tenant.name}")
        progress.step(f"starting the agent and the embedded model; the log is {out / LOG}")
        progress.now("loading the embedded model")
        account = Account(ACCOUNT_SID, token, twilio.api_url, NUMBER)
        async with open_agent(account, out) as url:
            progress.step(f"the agent is ready at {url}")
            # The server needs the carrier's address before it has its own: the carrier learns it here.
            twilio.caller = attrs.evolve(twilio.caller, agent_url=url, public_url=PUBLIC_URL)
            if turns is None:
                script = await trio.to_thread.run_sync(_synthesise)
                converse: Converse = partial(follow_script, script)
                limit_s = CALL_LIMIT_S
            else:
                converse = partial(play_recording, turns)
                spoken_s = sum(len(turn.audio) for turn in turns) / SAMPLE_RATE_HZ
                limit_s = spoken_s + (len(turns) + 1) * (ANSWER_S + LONGEST_ANSWER_S)
            stream, ended_s = await _phone(twilio, converse, limit_s, progress)
            view = await after.follow(stream.call_sid, progress)
            record = await after.record(view)
        received = after.received(stream.call_sid)
    seen = analyse(stream, ended_s)
    checks = check_audio(record, seen) + check_after_call(view, received)
    if turns is None:
        checks += check_script(record, seen) + check_found(view, CALLER)
    progress.now("drawing")
    files = Files(out / "call.wav", out / "timeline.png", out / "call.json")
    timeline = make_timeline(record, seen, stream.said, stream.playback.tape, stream.started_s)
    await trio.to_thread.run_sync(_write, files, stream, ended_s, timeline, _as_json(record, seen, checks, view))
    return Demo(record, seen, tuple(checks), files, view)


async def _phone(
    twilio: SimulatedTwilio, converse: Converse, limit_s: float, progress: Progress
) -> tuple[SimulatedStream, float]:
    """Call, converse, and return the stream with the time it ended."""
    failed = ""
    try:
        with trio.fail_after(limit_s):
            async with twilio.place_call(CALLER, NUMBER) as stream, trio.open_nursery() as nursery:
                progress.step(f"{CALLER} phones {NUMBER}")
                nursery.start_soon(progress.follow, stream)
                await converse(stream, progress.step)
                ended_s = trio.current_time()
                nursery.cancel_scope.cancel(reason="the call is over")
    except* trio.TooSlowError:
        failed = f"the call did not end within {limit_s:.0f} s"
    except* httpx.HTTPError as group:
        failed = f"a webhook of the call failed: {first_error(group)!r}"
    if failed:
        raise DemoError(failed)
    progress.step("the call has ended")
    return stream, ended_s


def _synthesise() -> list[SpokenLine]:
    """The script's sounds, in a voice that is not the agent's."""
    from agent.local.speech.samples import synthesise  # noqa: PLC0415  (the extra, which --caller does without)

    return [SpokenLine(line, trimmed(synthesise(line.text))) for line in SCRIPT]


def _as_json(record: CallRecord, seen: StreamAnalysis, checks: Sequence[Check], view: CallView) -> bytes:
    carrier: dict[str, Any] = {
        **attrs.asdict(seen),
        "latencies_ms": [latency.ms for latency in seen.latencies],
        "median_latency_ms": seen.median_latency_ms,
    }
    whole = {"record": record, "carrier": carrier, "checks": checks, "after": call_as_json(view)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _write(files: Files, stream: SimulatedStream, ended_s: float, timeline: Timeline, call: bytes) -> None:
    from agent.app.demo.timeline.picture import draw  # noqa: PLC0415  (matplotlib takes half a second to load)

    start_s = stream.started_s
    left, right = (tape.render(start_s, ended_s) for tape in (stream.said, stream.playback.tape))
    files.wav.write_bytes(write_stereo(left, right))
    files.json.write_bytes(call)
    draw(timeline, files.picture)
