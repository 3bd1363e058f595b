"""Who said what in a recording: segments in the order of time, and whose channel is whose. Pure.

Twilio's dual-channel recordings have the audio *received* from the call's first leg on the first channel and what
was played to that leg on the second. A call connected to a media stream has one leg only, the phone's, so the
human is on the first channel whichever way the call went: of an inbound call that is who called, of an outbound
one (``outbound-api``) who was called. Both are the "caller" of our transcripts.
Sources: https://www.twilio.com/docs/voice/tutorials/how-record-single-side-call (what Twilio receives is the
inbound track, what it plays the outbound one; dual: each in its channel), and for the order
https://www.twilio.com/docs/flex/developer/insights/enable-dual-channel-recordings (begun on the customer's leg:
the customer first, everybody else second).
Documents are no measurements, and a bridged call depends on who dialled whom; but we know what the agent said.
So a recording whose words plainly contradict that order is read the other way round.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import attrs

from agent.core.records import Turn

Channel = Literal["caller", "agent", "unknown"]
FIRST_LEG_FIRST: Final[tuple[Channel, ...]] = ("caller", "agent")
_WORD: Final = re.compile(r"\w{3,}")
_LEAST_WORDS: Final = 6
"""Fewer words on a recording prove nothing."""
_PLAINLY: Final = 0.3
"""By how much the reversed order must fit better; a call read the right way round is far on the other side."""


@attrs.frozen
class ChannelWords:
    """Words on one channel of a recording; times count from its beginning."""

    start_ms: int
    end_ms: int
    text: str


@attrs.frozen
class Segment:
    """Words of one of the two; times count from the beginning of the recording, not of the call."""

    channel: Channel
    start_ms: int
    end_ms: int
    text: str


@attrs.frozen
class Transcription:
    """A recording in words. ``reversed_channels``: the agent was found on the first channel."""

    segments: tuple[Segment, ...]
    channels: int
    model: str
    reversed_channels: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the ledger: plain lists and dictionaries."""
        return {**attrs.asdict(self), "segments": [attrs.asdict(segment) for segment in self.segments]}


class Transcriber(Protocol):
    """Writes down recordings."""

    async def transcribe(self, path: Path, *, language: str = "", turns: Sequence[Turn] = ()) -> Transcription:
        """What was said in a WAV file of one or two channels.

        ``language`` (ISO 639-1, empty: detect) is what is spoken; ``turns``, what the call itself knows, tell
        whose channel is whose. Raises ProviderError or OSError when another attempt may do better, ModelGoneError
        when another model may, StepDeadError when none can. A cancel leaves no request, process or file behind.
        """


def make_transcription(
    heard: Sequence[Sequence[ChannelWords]], model: str, turns: Iterable[Turn] = ()
) -> Transcription:
    """Lay the channels' utterances over each other; ``turns`` are what the call itself knows was said."""
    is_reversed = len(heard) == len(FIRST_LEG_FIRST) and _is_reversed(heard, turns)
    names = _names(len(heard), is_reversed=is_reversed)
    segments = [
        Segment(name, said.start_ms, max(said.start_ms, said.end_ms), said.text.strip())
        for name, channel in zip(names, heard, strict=True)
        for said in channel
        if said.text.strip()
    ]
    segments.sort(key=lambda segment: (segment.start_ms, segment.end_ms))
    return Transcription(tuple(segments), len(heard), model, is_reversed)


def fill_turns(turns: Iterable[Turn], segments: Iterable[Segment], began_ms: int) -> tuple[Turn, ...]:
    """The caller's turns whose words nobody wrote down during the call, with the words of the recording.

    Each of the caller's segments belongs to the turn that it overlaps most, or else is nearest to; the recording
    begins ``began_ms`` after the answer. The turns stay marked as not ``complete``, so that filling them again,
    from another transcription, replaces the words.
    """
    spoken = [turn for turn in turns if turn.role == "caller"]
    words: defaultdict[int, list[str]] = defaultdict(list)
    for segment in segments:
        if segment.channel == "caller" and spoken:
            start_ms, end_ms = segment.start_ms + began_ms, segment.end_ms + began_ms
            gaps_ms = [
                max(turn.started_ms, start_ms) - min(turn.started_ms + turn.audio_ms, end_ms) for turn in spoken
            ]
            words[gaps_ms.index(min(gaps_ms))].append(segment.text)
    return tuple(
        attrs.evolve(turn, text=" ".join(words[place]), heard_text=" ".join(words[place]))
        for place, turn in enumerate(spoken)
        if not turn.complete
    )


def _names(channels: int, *, is_reversed: bool) -> tuple[Channel, ...]:
    if channels != len(FIRST_LEG_FIRST):
        nobody: Channel = "unknown"
        return (nobody,) * channels
    return FIRST_LEG_FIRST[::-1] if is_reversed else FIRST_LEG_FIRST


def _is_reversed(heard: Sequence[Sequence[ChannelWords]], turns: Iterable[Turn]) -> bool:
    """Whether the channels are swapped: the words of each fit the other side better.

    Only what the caller heard of the agent's words can be on the recording.
    """
    known = {"caller": Counter[str](), "agent": Counter[str]()}
    for turn in turns:
        known[turn.role] += _words(turn.heard_text)
    first, second = (sum((_words(said.text) for said in channel), Counter[str]()) for channel in heard)
    if first.total() + second.total() < _LEAST_WORDS:
        return False
    straight = _share(first, known["caller"]) + _share(second, known["agent"])
    crossed = _share(first, known["agent"]) + _share(second, known["caller"])
    return crossed - straight > _PLAINLY


def _words(text: str) -> Counter[str]:
    return Counter(word.casefold() for word in _WORD.findall(text))


def _share(heard: Counter[str], known: Counter[str]) -> float:
    """How much of what was heard is known; 0 when nothing was."""
    return (heard & known).total() / heard.total() if heard else 0.0
