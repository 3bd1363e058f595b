"""G.711 mu-law: the tables agree with the standard, and with each other."""

import subprocess
import sys

import numpy as np
import pytest

from agent.audio import ulaw
from agent.core.units import ULAW_SILENCE


def test_the_standard_s_corner_values() -> None:
    assert ulaw.LINEAR[ULAW_SILENCE] == 0
    assert ulaw.LINEAR[0x7F] == 0
    assert ulaw.LINEAR[0x80] == 32124
    assert ulaw.LINEAR[0x00] == -32124


def test_every_code_survives_the_round_trip() -> None:
    """All 256 codes come back; the two zeros share the idle line's code."""
    codes = bytes(range(256))
    back = ulaw.pcm16_to_ulaw(ulaw.ulaw_to_pcm16(codes))
    assert back == codes.replace(b"\x7f", b"\xff")


def test_every_sample_gets_a_code_within_half_a_step() -> None:
    """Quantisation error is at most half the step of the sample's segment."""
    samples = np.arange(-32124, 32125, dtype=np.int16)
    error = np.abs(ulaw.ulaw_to_pcm16(ulaw.pcm16_to_ulaw(samples)).astype(int) - samples)
    segment = np.floor(np.log2(np.abs(samples.astype(int)) + 0x84)).astype(int) - 7
    assert (error <= 4 << segment).all()


def test_samples_beyond_full_scale_are_clipped() -> None:
    assert ulaw.pcm16_to_ulaw(np.array([32767, -32768], dtype=np.int16)) == b"\x80\x00"


def test_loudness() -> None:
    assert ulaw.rms_dbfs(b"") == ulaw.SILENCE_DBFS
    assert ulaw.rms_dbfs(b"\xff\x7f" * 80) == ulaw.SILENCE_DBFS
    assert ulaw.rms_dbfs(b"\x80\x00" * 80) == pytest.approx(-0.172, abs=0.001)
    half = ulaw.pcm16_to_ulaw(np.array([16384, -16384] * 80, dtype=np.int16))
    assert ulaw.rms_dbfs(half) == pytest.approx(-6.02, abs=0.2)


@pytest.mark.sockets
def test_measuring_loudness_does_not_load_numpy() -> None:
    """The agent's server process measures frames without the weight of numpy."""
    code = "import sys, agent.audio.ulaw as u; u.rms_dbfs(bytes(160)); sys.exit('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == 0
