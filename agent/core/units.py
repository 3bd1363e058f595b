"""The numbers and identifiers every floor shares.

Units are part of the names: ``_ms`` is an int of milliseconds, ``_s`` a float of seconds on the monotonic
clock, ``_bytes`` an amount of audio. On the phone leg audio is G.711 mu-law at 8 kHz, so one byte is one
sample and eight bytes are one millisecond.
"""

import re
from typing import Final, NewType

CallSid = NewType("CallSid", str)
"""The carrier's name for a call (Twilio: ``CA`` and 32 hex digits)."""
StreamSid = NewType("StreamSid", str)
"""The carrier's name for one media stream of a call (Twilio: ``MZ`` and 32 hex digits)."""
RecordingSid = NewType("RecordingSid", str)
"""The carrier's name for a recording (Twilio: ``RE`` and 32 hex digits)."""
ResponseId = NewType("ResponseId", str)
"""The model's name for one of its answers."""
ItemId = NewType("ItemId", str)
"""The model's name for one item (message, function call) of the conversation."""
GenerationId = NewType("GenerationId", int)
"""Our own number for a spoken answer, counted from 1 in each call; it names the answer's marks."""

SAMPLE_RATE_HZ: Final = 8000
FRAME_MS: Final = 20
"""Packetisation time (ptime) of the phone leg."""
FRAME_S: Final = FRAME_MS / 1000
BYTES_PER_MS: Final = SAMPLE_RATE_HZ // 1000
FRAME_BYTES: Final = FRAME_MS * BYTES_PER_MS
"""160 bytes: 20 ms of 8 kHz G.711."""
ULAW_SILENCE: Final = 0xFF
"""Mu-law code of the smallest positive amplitude: the pattern of an idle line (ITU-T G.711, table 2b)."""
SILENCE_FRAME: Final = bytes([ULAW_SILENCE]) * FRAME_BYTES
_CALL_SID: Final = re.compile("CA[0-9a-fA-F]{32}")


def is_call_sid(text: str) -> bool:
    """Whether ``text`` is a name that the carrier gives to calls; it becomes part of keys and file names."""
    return _CALL_SID.fullmatch(text) is not None


def audio_ms(length_bytes: int) -> int:
    """Whole milliseconds in ``length_bytes`` of 8 kHz mu-law, rounded down."""
    return length_bytes // BYTES_PER_MS
