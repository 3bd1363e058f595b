"""The simulated caller on the line: speaks its lines when what it hears calls for it."""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from agent.app.demo.script import ScriptedLine, SpokenLine
from agent.core.errors import AgentError
from agent.core.units import BYTES_PER_MS
from agent.sim.carrier.stream import SimulatedStream

ANSWER_S: Final = 15.0
"""How long the caller waits for an answer to begin, or to become long enough to be interrupted."""
LONGEST_ANSWER_S: Final = 40.0
HANG_UP_S: Final = 20.0
"""How long the agent may take for its goodbye, from the caller's to the hang-up."""
QUIET_S: Final = 0.6
"""Silence after which the caller takes an answer for finished."""
BEGUN_MS: Final = 200
"""How much of an answer is heard before the caller notices that it has begun."""

Say = Callable[[str], None]
"""Told what happens, in one line."""


class CallStuckError(AgentError):
    """The call did not go on: the agent stayed silent, or never ended."""


async def follow_script(script: Sequence[SpokenLine], stream: SimulatedStream, say: Say) -> None:
    """Speak the lines, each when it is due, then wait for the agent to hang up.

    Returns early when the agent hangs up early. Raises CallStuckError. A cancel leaves the line open.
    """
    before_ms = 0
    for spoken in script:
        await _listen(stream, spoken.line, before_ms)
        if stream.is_closed:
            return
        heard_ms = stream.heard_ms() - before_ms
        how = f"interrupts after {heard_ms / 1000:.1f} s" if spoken.line.after_heard_ms is not None else "says"
        say(f"caller {how}: {spoken.line.text}")
        await _speak(stream, spoken)
        before_ms = stream.heard_ms()
    with trio.move_on_after(HANG_UP_S) as waiting:
        await stream.until_closed()
    if waiting.cancelled_caught:
        raise CallStuckError(f"the agent did not hang up within {HANG_UP_S:.0f} s of the caller's goodbye")


async def play_recording(turns: Sequence[SpokenLine], stream: SimulatedStream, say: Say) -> None:
    """Speak the user's recording turn by turn, waiting for the greeting and for each answer, then hang up."""
    before_ms = 0
    for number, turn in enumerate([*turns, None], 1):
        with trio.move_on_after(ANSWER_S):
            await stream.until_heard_ms(before_ms + BEGUN_MS)
        with trio.move_on_after(LONGEST_ANSWER_S):
            await stream.until_quiet(QUIET_S)
        if stream.is_closed or turn is None:
            break
        say(f"caller says part {number} of {len(turns)} ({len(turn.audio) / BYTES_PER_MS / 1000:.1f} s)")
        await _speak(stream, turn)
        before_ms = stream.heard_ms()
    if not stream.is_closed:
        say("caller hangs up")
        await stream.hang_up()


async def _listen(stream: SimulatedStream, line: ScriptedLine, before_ms: int) -> None:
    """Wait until the line is due. Raises CallStuckError."""
    wanted_ms = line.after_heard_ms if line.after_heard_ms is not None else BEGUN_MS
    with trio.move_on_after(ANSWER_S) as waiting:
        await stream.until_heard_ms(before_ms + wanted_ms)
    if waiting.cancelled_caught:
        heard_ms = stream.heard_ms() - before_ms
        raise CallStuckError(
            f"the caller waited {ANSWER_S:.0f} s for {wanted_ms / 1000:.1f} s of the agent and heard "
            f"{heard_ms / 1000:.1f} s, before saying: {line.text}"
        )
    if line.after_heard_ms is None:
        with trio.move_on_after(LONGEST_ANSWER_S) as waiting:
            await stream.until_quiet(QUIET_S)
        if waiting.cancelled_caught:
            raise CallStuckError(f"the agent spoke for over {LONGEST_ANSWER_S:.0f} s without a pause")


async def _speak(stream: SimulatedStream, spoken: SpokenLine) -> None:
    stream.say(spoken.audio)
    await stream.until_said()
