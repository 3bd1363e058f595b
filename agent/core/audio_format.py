"""The audio of one call as a value: what the caller's leg and the model's speak, so that nothing is transcoded.

A frame is 20 ms of it. Sources: ITU-T G.711; the ``audio.input.format`` object of the OpenAI Realtime API.
"""

from typing import Any, Final

import attrs

from agent.core.units import FRAME_MS


@attrs.frozen
class AudioFormat:
    """One mono format. ``silence`` is one sample of an idle line."""

    name: str
    """In the provider's words."""
    rate_hz: int
    silence: bytes
    bytes_per_ms: int = attrs.field(init=False)
    frame_bytes: int = attrs.field(init=False)
    silence_frame: bytes = attrs.field(init=False, repr=False)

    @bytes_per_ms.default
    def _bytes_per_ms(self) -> int:
        return self.rate_hz * len(self.silence) // 1000

    @frame_bytes.default
    def _frame_bytes(self) -> int:
        return self.bytes_per_ms * FRAME_MS

    @silence_frame.default
    def _silence_frame(self) -> bytes:
        return self.silence_of(FRAME_MS)

    def ms(self, length_bytes: int) -> int:
        """Whole milliseconds in ``length_bytes``, rounded down."""
        return length_bytes // self.bytes_per_ms

    def silence_of(self, length_ms: int) -> bytes:
        """``length_ms`` of silence."""
        return self.silence * (length_ms * self.rate_hz // 1000)

    def declare(self) -> dict[str, Any]:
        """The provider's object for it; the rate of mu-law goes without saying."""
        return {"type": self.name, **({} if self.name == "audio/pcmu" else {"rate": self.rate_hz})}


ULAW_8K: Final = AudioFormat("audio/pcmu", 8000, b"\xff")
"""The phone leg: G.711 mu-law; the code of the smallest positive amplitude is the pattern of an idle line."""
PCM16_24K: Final = AudioFormat("audio/pcm", 24_000, b"\0\0")
"""The browser's leg: 16-bit little-endian samples, at the only rate that the provider takes and gives."""
