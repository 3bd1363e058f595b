"""A detector of speech says the same, at the same time, of a quiet line in pieces and of one frame by frame.

Speech of two voices, loud and faint, on lines from digital silence to loud noise; the embedded model's detector.
"""

from itertools import product

import numpy as np
import pytest

from agent.audio.level_meter import LevelMeter
from agent.audio.ulaw import pcm16_to_ulaw, ulaw_to_pcm16
from agent.audio.uplink import Uplink
from agent.core.settings import Settings
from agent.core.units import FRAME_BYTES, FRAME_MS

pytest.importorskip("onnxruntime", reason="the embedded model is not installed: make setup installs it")
from agent.local.speech.endpointing import TurnEnded, TurnStarted
from agent.local.speech.listening import Listener
from agent.local.speech.samples import synthesise
from agent.local.speech.tts import VOICES
from agent.local.speech.vad import SileroVad

REPORTED_MS = 100
"""From the detector to us."""
SAME_MS = 5
QUIET_S = (3, 2)
"""Before and behind what is said."""
SAID = ("My name is Helen Smith.", "Yes.", "Four one five, five five five.")
GAINS_DB = (0, -15, -30)
NOISES_DB = (None, -65, -50, -38)


def a_line(said: str, voice: str, gain_db: float, noise_db: float | None) -> bytes:
    """Mu-law of what is said, ``gain_db`` louder than it was spoken, in noise of ``noise_db`` of full scale."""
    speech = ulaw_to_pcm16(synthesise(said, voice)) * 10 ** (gain_db / 20)
    line = np.concatenate([np.zeros(QUIET_S[0] * 8000), speech, np.zeros(QUIET_S[1] * 8000)])
    if noise_db is not None:
        line += np.random.default_rng(1).standard_normal(len(line)) * 32768 * 10 ** (noise_db / 20)
    return pcm16_to_ulaw(np.clip(line, -32768, 32767).astype(np.int16))


def endpoints(line: bytes, piece_ms: int) -> tuple[list[tuple[type, int]], int]:
    """What the detector says and when, in milliseconds; and how many messages brought it the audio."""
    meter, uplink, listener = LevelMeter(), Uplink(piece_ms * 8), Listener(SileroVad())
    said: list[tuple[type, int]] = []
    sent = messages = 0
    for end in range(FRAME_BYTES, len(line) + 1, FRAME_BYTES):
        now_ms = end // 8
        audio = line[end - FRAME_BYTES : end]
        meter.feed(audio)
        reported = [kind for kind, at_ms in said if at_ms + REPORTED_MS <= now_ms]
        in_turn = bool(reported) and reported[-1] is TurnStarted
        if uplink.take(audio, "", now_ms / 1000, quiet=meter.quiet and not in_turn) is None:
            continue
        messages += 1
        events = listener.append(line[sent:end])
        said += [(type(event), now_ms) for event in events if isinstance(event, TurnStarted | TurnEnded)]
        sent = end
    return said, messages


def test_onset_and_end_of_turn_are_where_they_were() -> None:
    """Within SAME_MS, over all voices and lines, for a third of the messages on the quiet ones."""
    compared = 0
    for voice, said, gain_db, noise_db in product(list(VOICES)[:2], SAID, GAINS_DB, NOISES_DB):
        line = a_line(said, voice, gain_db, noise_db)
        plain, all_messages = endpoints(line, FRAME_MS)
        pieces, messages = endpoints(line, Settings().uplink_ms)
        assert [kind for kind, _ in pieces] == [kind for kind, _ in plain]
        late_ms = [late - early for (_, late), (_, early) in zip(pieces, plain, strict=True)]
        assert all(abs(ms) <= SAME_MS for ms in late_ms), (voice, said, gain_db, noise_db, late_ms)
        compared += len(late_ms)
        if noise_db is None:
            assert messages < 0.7 * all_messages
    assert compared > 100
