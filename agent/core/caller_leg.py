"""What the leg of a caller says and takes, whether a telephone network or a browser is behind it. Pure.

Each protocol has a codec of its own to and from these values (``agent.carrier.media_stream``, ``agent.browser``);
a call knows nothing else of it. Directions are the telephone's: ``rx`` comes from the caller, ``tx`` goes there.
"""

from collections.abc import Callable
from typing import Protocol

import attrs
import msgspec

from agent.core.records import Turn

Message = str | bytes
"""One WebSocket message."""


class Media(msgspec.Struct, frozen=True, gc=False):
    """Caller audio: ``payload`` is the untouched base64, checked; ``audio`` what it stands for.

    A struct, since fifty of them a second and call are made.
    """

    payload: str
    audio: bytes
    timestamp_ms: int
    sequence: int


@attrs.frozen
class Dtmf:
    """The caller pressed ``digit`` (0-9, *, #, A-D)."""

    digit: str


@attrs.frozen
class MarkReturned:
    """Playback reached the mark ``name``, or a ``clear`` removed what stood before it (DESIGN D6)."""

    name: str


@attrs.frozen
class DeviceDelay:
    """From now on audio is heard ``delay_ms`` after the device could have begun with it."""

    delay_ms: int


@attrs.frozen
class Stop:
    """The leg is over: the caller hung up, or the carrier took the call elsewhere."""


@attrs.frozen
class RepeatedStart:
    """The leg begins once more, with ``message``; to be counted and ignored."""

    message: str


@attrs.frozen
class UnknownMessage:
    """An event the codec does not know; to be counted and ignored."""

    event: str


LegMessage = Media | Dtmf | MarkReturned | DeviceDelay | Stop | RepeatedStart | UnknownMessage
Decode = Callable[[Message], LegMessage | None]
"""Raises MalformedMessageError; None: a message that means nothing to the call."""


class LegEncoder(Protocol):
    """Encodes what the pacer sends."""

    @property
    def clear(self) -> Message:
        """Drop what is not played yet."""

    def media(self, audio: bytes) -> Message:
        """Play ``audio`` behind what came before."""

    def mark(self, name: str) -> Message:
        """Send ``name`` back when playback reaches it."""


class Screen(Protocol):
    """What a leg shows its caller. Synchronous: nobody waits for a screen."""

    def turn(self, turn: Turn) -> None:
        """A turn of either side as it stands: a new one, or one that has changed."""

    def latency(self, turn_ms: int, voice_ms: int) -> None:
        """What an answer took: from the end of the caller's speech to the answer, and to its first frame."""
