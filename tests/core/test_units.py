"""The numbers that everything else is made of."""

from __future__ import annotations

import pytest

from agent.audio import ulaw
from agent.core import units


def test_a_frame_is_20_ms_of_8_khz_mu_law() -> None:
    assert units.FRAME_BYTES == 160
    assert pytest.approx(0.020) == units.FRAME_S
    assert len(units.SILENCE_FRAME) == units.FRAME_BYTES


def test_silence_is_what_g711_decodes_to_nothing() -> None:
    assert set(ulaw.ulaw_to_pcm16(units.SILENCE_FRAME).tolist()) == {0}


@pytest.mark.parametrize(("length_bytes", "ms"), [(0, 0), (7, 0), (8, 1), (160, 20), (8001, 1000)])
def test_milliseconds_are_whole_ones(length_bytes: int, ms: int) -> None:
    assert units.audio_ms(length_bytes) == ms
