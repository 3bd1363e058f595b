"""Is this speech? Silero VAD v6 at 8 kHz, straight from its ONNX file, which is beside this one.

One detector per session, made once and never reset while the session lives (WB-5): its recurrent state is
what makes it good. A window costs about 0.1 ms, so it runs on the event loop of the model's own process.
"""

from functools import cache
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt
import onnxruntime

from agent.audio.ulaw import ulaw_to_pcm16
from agent.core.units import SAMPLE_RATE_HZ
from agent.local.speech.weights import SILERO_VAD

_CONTEXT: Final = 32
"""Samples of the previous window that the network wants in front of each at 8 kHz."""
_UNIT: Final = np.float32(1 / 32768)
_LINE_NOISE: Final = np.float32(10 ** (-58 / 20))
"""RMS of the noise added for the detector alone. On digital silence, which carriers send for a quiet caller, it
takes up to 450 ms to notice a soft onset ("My name ..."); on a line with the usual noise 130 to 160 ms."""
_RATE: Final = np.array(SAMPLE_RATE_HZ, dtype=np.int64)


@cache
def _load() -> Any:
    """The network, shared by all sessions: it holds no state of its own. Raises WeightsError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = SILERO_VAD.checked() / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@attrs.define(eq=False)
class SileroVad:
    """The detector of one session, fed with windows of 256 bytes mu-law (32 ms) in order."""

    _network: Any = attrs.field(factory=_load)
    _state: npt.NDArray[np.float32] = attrs.field(factory=lambda: np.zeros((2, 1, 128), np.float32))
    _context: npt.NDArray[np.float32] = attrs.field(factory=lambda: np.zeros(_CONTEXT, np.float32))
    _noise: np.random.Generator = attrs.field(factory=lambda: np.random.default_rng(0))

    def probability(self, window: bytes) -> float:
        """How likely the window holds speech, 0 to 1."""
        samples = ulaw_to_pcm16(window).astype(np.float32) * _UNIT
        samples += self._noise.standard_normal(len(samples), np.float32) * _LINE_NOISE
        heard = np.concatenate((self._context, samples))[np.newaxis]
        probability, self._state = self._network.run(None, {"input": heard, "state": self._state, "sr": _RATE})
        self._context = samples[-_CONTEXT:]
        return float(probability[0, 0])
