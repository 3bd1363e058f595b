"""The embedded model hears 24 kHz as 8 kHz: the same in pieces of any size, and nothing is folded into it."""

import numpy as np
import pytest

from agent.audio.ulaw import rms_dbfs
from agent.core.audio_format import PCM16_24K
from agent.local.speech.resampling import Narrowing


def sine(hz: float, duration_ms: int = 500, peak: float = 12_000) -> bytes:
    time_s = np.arange(duration_ms * PCM16_24K.rate_hz // 1000) / PCM16_24K.rate_hz
    return np.round(peak * np.sin(2 * np.pi * hz * time_s)).astype("<i2").tobytes()


@pytest.mark.parametrize("size", [960, 961, 1, 4096])
def test_pieces_of_any_size_are_one_signal(size: int) -> None:
    audio = sine(440, 40)
    pieces = Narrowing()
    assert b"".join(pieces.feed(audio[at : at + size]) for at in range(0, len(audio), size)) == (
        Narrowing().feed(audio)
    )


@pytest.mark.parametrize(("hz", "passes"), [(300, True), (3000, True), (5000, False), (9000, False)])
def test_what_8_khz_cannot_carry_is_left_out(hz: float, passes: bool) -> None:  # noqa: FBT001 - a table
    level = rms_dbfs(Narrowing().feed(sine(hz)))
    assert (level == pytest.approx(-11.7, abs=1)) if passes else (level < -45)


def test_it_keeps_the_length() -> None:
    assert len(Narrowing().feed(sine(440, 1000))) == 8000
