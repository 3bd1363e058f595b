"""Our own ear hears the same in both formats."""

from __future__ import annotations

import pytest

from agent.audio.level_meter import LevelMeter
from agent.audio.ulaw import ulaw_to_pcm16
from agent.core.audio_format import PCM16_24K, ULAW_8K, AudioFormat
from agent.core.units import FRAME_BYTES
from agent.sim.sounds import silence, tone


@pytest.mark.parametrize("dbfs", [-50.0, -30.0, -12.0])
def test_a_level_means_the_same_in_both_formats(dbfs: float) -> None:
    """BI-7: voiced frames, level and noise floor; 6 dB of error would move the threshold of voice."""
    phone, browser = LevelMeter(), LevelMeter(PCM16_24K)
    audio = silence(200) + tone(400, dbfs=dbfs) + silence(100)
    for at in range(0, len(audio), FRAME_BYTES):
        frame = audio[at : at + FRAME_BYTES]
        phone.feed(frame)
        browser.feed(ulaw_to_pcm16(frame).repeat(3).astype("<i2").tobytes())
    assert browser.voiced_total == phone.voiced_total
    assert browser.voiced == phone.voiced
    heard, meant = browser.snapshot(), phone.snapshot()
    assert heard["rms_dbfs"] == pytest.approx(meant["rms_dbfs"], abs=1)
    assert heard["noise_floor_dbfs"] == pytest.approx(meant["noise_floor_dbfs"], abs=1)


@pytest.mark.parametrize("audio", [ULAW_8K, PCM16_24K])
def test_silence_is_the_lowest_level(audio: AudioFormat) -> None:
    meter = LevelMeter(audio)
    meter.feed(audio.silence_frame)
    meter.feed(audio.silence_of(10))
    assert meter.level == 0
    assert not meter.voiced
