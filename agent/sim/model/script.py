"""What a scripted model says, and what goes wrong with it. Values only: no I/O, no clock."""

import enum
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from itertools import cycle
from random import Random
from typing import Any, Final, Literal

import attrs

from agent.core.units import FRAME_BYTES, SAMPLE_RATE_HZ
from agent.model.server_shapes import ErrorDetails
from agent.sim.sounds import numbered

_TEXT_HEAD_START: Final = 2.0
"""Transcript deltas are through in half the time of the audio: the real model's run well ahead."""
TWO_MESSAGES: Final = 0.25
"""In ``real``: the share of answers of which the first words are a message of their own, a commentary."""
CHUNK_FRAMES: Final = (1, 51)
"""In ``real``: the fewest and the most half frames of a delta."""
JITTER_S: Final = 0.03
PAUSES: Final = 0.1
PAUSE_S: Final = 0.8
"""In ``real``: the share of deltas before which there is a pause, and how long it is at the most."""


@attrs.frozen
class ScriptedToolCall:
    """A function call at the end of an answer."""

    name: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Answer:
    """One answer of the model.

    ``audio`` is mu-law, or a duration in milliseconds to be filled with audio that carries the answer's number
    (``agent.sim.sounds.numbered``); with ``0`` nothing is spoken, for a bare tool call. It is streamed in
    chunks whose sizes cycle through ``chunk_bytes``, ``speed`` times faster than it plays (None: at once),
    the first ``first_delta_ms`` after ``response.created``, which comes ``created_ms`` after the request.
    """

    text: str
    audio: bytes | int = attrs.field(default=1000, repr=False)
    tool_call: ScriptedToolCall | None = None
    chunk_bytes: tuple[int, ...] = (800, 1200, 2000)
    speed: float | None = 4.0
    first_delta_ms: int = 200
    created_ms: int = 0


@attrs.frozen
class Delta:
    """A delta: ``after_s`` counts from the first one; ``data`` is text, or base64 of ``length_bytes``."""

    after_s: float
    kind: Literal["text", "audio"]
    data: str = attrs.field(repr=False)
    length_bytes: int = 0
    part: int = 0
    """Which message of its answer it belongs to."""


@lru_cache(maxsize=256)
def plan(answer: Answer, number: int) -> tuple[Delta, ...]:
    """The deltas of ``answer`` in order, when it is the ``number``-th of its session (counted from 0)."""
    return _cut(answer, _audio_of(answer, number))


def plan_roughly(answer: Answer, number: int, chance: Random) -> tuple[Delta, ...]:
    """The deltas as the real service sends them: of any size, with jitter and pauses, in one message or two.

    A pause is never longer than half of what was sent ahead of the caller's ear: it cannot be heard.
    """
    audio, words = _audio_of(answer, number), answer.text.split(" ")
    first = len(words) // 3 if chance.random() < TWO_MESSAGES else 0
    border = len(audio) * first // len(words) // FRAME_BYTES * FRAME_BYTES
    sizes = tuple(chance.randrange(*CHUNK_FRAMES) * FRAME_BYTES // 2 for _ in range(9))
    steps: list[Delta] = []
    for part, (said, heard) in enumerate([(words[:first], audio[:border]), (words[first:], audio[border:])]):
        begun_s = steps[-1].after_s + chance.uniform(0, JITTER_S) if steps else 0.0
        rough = attrs.evolve(answer, text=" ".join(said), chunk_bytes=sizes)
        steps += [attrs.evolve(step, after_s=begun_s + step.after_s, part=part) for step in _cut(rough, heard)]
    if steps and steps[0].part:
        steps = [attrs.evolve(step, part=0) for step in steps]
    paused_s = sent_s = last_s = 0.0
    for index, step in enumerate(steps):
        if chance.random() < PAUSES:
            ahead_s = sent_s - step.after_s - paused_s
            paused_s += min(chance.uniform(0, PAUSE_S), max(ahead_s, 0.0) / 2)
        last_s = max(last_s, step.after_s + paused_s + chance.uniform(0, JITTER_S))
        sent_s += step.length_bytes / SAMPLE_RATE_HZ
        steps[index] = attrs.evolve(step, after_s=last_s)
    return tuple(steps)


def _audio_of(answer: Answer, number: int) -> bytes:
    return answer.audio if isinstance(answer.audio, bytes) else numbered(number, answer.audio)


def _cut(answer: Answer, audio: bytes) -> tuple[Delta, ...]:
    steps: list[Delta] = []
    at, sizes = 0, cycle(answer.chunk_bytes)
    while at < len(audio):
        chunk = audio[at : at + next(sizes)]
        after_s = at / SAMPLE_RATE_HZ / answer.speed if answer.speed else 0.0
        steps.append(Delta(after_s, "audio", b64encode(chunk).decode(), len(chunk)))
        at += len(chunk)
    if not steps:
        return ()
    words = answer.text.split(" ")
    word_s = steps[-1].after_s / _TEXT_HEAD_START / len(words)
    texts = [
        Delta(index * word_s, "text", word if index == 0 else f" {word}") for index, word in enumerate(words)
    ]
    return tuple(sorted(texts + steps, key=lambda step: step.after_s))


@attrs.define(eq=False)
class Script:
    """What is left to be said: by the model, and (as transcripts) by the caller. Sessions may share one."""

    answers: deque[Answer] = attrs.field(factory=deque)
    default: Answer = attrs.field(factory=lambda: Answer("I see."))
    transcripts: deque[str] = attrs.field(factory=deque)
    default_transcript: str = "Hello."
    answered: int = 0

    def next_answer(self) -> tuple[int, Answer]:
        """The next answer and its number; the default one when the script is at its end."""
        self.answered += 1
        return self.answered - 1, self.answers.popleft() if self.answers else self.default

    def next_transcript(self) -> str:
        """What the caller is taken to have said."""
        return self.transcripts.popleft() if self.transcripts else self.default_transcript


class Milestone(enum.StrEnum):
    """A moment in the life of a session at which something can go wrong."""

    CONNECTED = "connected"
    """Before ``session.created``."""
    UPDATED = "updated"
    """Just after the first ``session.updated``."""
    ANSWERING = "answering"
    """In the middle of the first answer's audio."""
    APPENDED = "appended"
    """After ``Faults.after_appends`` pieces of caller audio."""


RATE_LIMITED: Final = ErrorDetails("rate_limit_error", "rate_limit_exceeded", "Rate limit reached.")
SERVER_ERROR: Final = ErrorDetails("server_error", None, "The server had an error while processing.")


@attrs.frozen(kw_only=True)
class Faults:
    """What goes wrong; by default nothing does. Only the first ``sessions`` sessions of a server suffer."""

    sessions: int = 1_000_000
    close_at: Milestone | None = None
    """The server closes the socket, with ``close_code``; with ``drop`` without a close frame."""
    close_code: int = 1011
    drop: bool = False
    deaf_at: Milestone | None = None
    """The server reads no more, not even pings and close frames (needs the link underneath the socket)."""
    after_appends: int = 50
    never_answer_close: bool = False
    """A close frame is not answered and the connection stays open (needs the link, too)."""
    error_at: tuple[Milestone, ErrorDetails] | None = None
    """An error event, after which everything goes on."""
    fail_answers: ErrorDetails | None = None
    """Each answer ends at once, ``failed`` with this error."""
    garbage: bool = False
    """Before the audio of each answer come a message that is no JSON and one that is no event."""
    stray_delta: bool = False
    """Before the audio of each answer comes a delta of a response that does not exist."""
    duplicate_created: bool = False
    duplicate_done: bool = False
    early_done: bool = False
    """``response.done`` comes before the last audio delta of its answer."""
    speech_started_delay_ms: int = 0
    refuse_setting: str = ""
    """Each ``session.update`` that has this field, ``audio.output.voice`` for example, is refused for it."""
    busy_error: bool = False
    """A turn that ends while an answer is active is answered with an error event, not ignored."""
