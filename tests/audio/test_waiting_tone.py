"""The call-waiting tone against ITU-T E.180."""

from __future__ import annotations

import cmath
import math
import struct

import pytest

from agent.audio.ulaw import LINEAR
from agent.audio.waiting_tone import CADENCE_MS, TONE_DBM0, TONE_HZ, waiting_tone
from agent.core.audio_format import PCM16_24K
from agent.core.units import BYTES_PER_MS, SAMPLE_RATE_HZ, ULAW_SILENCE


def test_the_tone_is_on_and_off_in_its_cadence() -> None:
    """Twice 200 ms, 600 ms apart, and 3 s of nothing; silence is silence, the tone nowhere pauses."""
    audio, at = waiting_tone(), 0
    for length_ms, on in CADENCE_MS:
        part = audio[at : at + length_ms * BYTES_PER_MS]
        at += len(part)
        assert len(part) == length_ms * BYTES_PER_MS
        loud = [any(abs(LINEAR[code]) > 100 for code in part[i : i + 20]) for i in range(0, len(part), 20)]
        assert all(loud) if on else part == bytes([ULAW_SILENCE]) * len(part)
    assert at == len(audio)


def test_the_tone_has_its_pitch_and_its_level() -> None:
    """All of its energy is at 425 Hz, at -15 dBm0: 3.17 dBm0 is a sine that reaches the largest code."""
    samples = [LINEAR[code] for code in waiting_tone(CADENCE_MS[0][0])]
    turns = (cmath.exp(-2j * math.pi * TONE_HZ * at / SAMPLE_RATE_HZ) for at in range(len(samples)))
    peak = 2 * abs(sum(sample * turn for sample, turn in zip(samples, turns, strict=True))) / len(samples)
    energy = sum(sample * sample for sample in samples) / len(samples)
    assert peak * peak / 2 == pytest.approx(energy, rel=0.01)
    assert 20 * math.log10(peak / max(LINEAR)) + 3.17 == pytest.approx(TONE_DBM0, abs=0.1)


@pytest.mark.parametrize("duration_ms", [0, 20, 250, 4000, 9990])
def test_it_goes_on_for_as_long_as_is_asked(duration_ms: int) -> None:
    audio = waiting_tone(duration_ms)
    assert len(audio) == duration_ms * BYTES_PER_MS
    assert audio == (waiting_tone() * 3)[: len(audio)]


def test_the_browser_hears_the_same_tone() -> None:
    """Every third sample of it is the phone's, but for what mu-law rounds away."""
    length_ms = 2 * sum(length_ms for length_ms, _ in CADENCE_MS)
    pcm, phone = waiting_tone(length_ms, PCM16_24K), [LINEAR[code] for code in waiting_tone(length_ms)]
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    assert len(pcm) == length_ms * PCM16_24K.bytes_per_ms
    assert samples[::3] == pytest.approx(phone, abs=130)
