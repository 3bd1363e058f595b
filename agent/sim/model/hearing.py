"""What a scripted model takes for speech: the caller's; in ``real`` noise and echo, too. No I/O, no clock."""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Final

import attrs

from agent.model.server_shapes import Outbox
from agent.sim.model.energy_vad import EnergyVad, SpeechEnd, SpeechStart
from agent.sim.model.settings import SessionSettings
from agent.sim.model.transcribing import Later

NOISE_EVERY_S: Final = (10.0, 40.0)
NOISE_S: Final = (0.1, 0.4)
ECHOES: Final = 0.15
"""The share of answers in whose audio the model hears the caller speak, and after how long."""
ECHO_AFTER_S: Final = (0.4, 2.0)


@attrs.define(eq=False)
class Hearing:
    """Reports the caller's speech; with ``room`` also noise and echo, as if they were speech."""

    vad: EnergyVad
    _settings: SessionSettings
    _outbox: Outbox
    _later: Later
    _delay_s: float
    """How long after it began speech is told of."""
    _on_start: Callable[[float], None]
    _on_stop: Callable[[str, float, bool], None]
    """A turn ended: its item, when, and whether it was nothing but noise."""
    _room: Random | None
    """What noise and echo draw from; None: it is quiet."""
    _item_id: str = ""
    _floor_s: float = -inf
    _noise: bool = False
    """Whether what is taken for speech is noise."""

    def open(self, now: float) -> None:
        """The session begins."""
        self._plan_noise(now)

    def append(self, payload: str, now: float) -> None:
        """Take the caller's audio. Raises binascii.Error for what is not base64."""
        for sign in self.vad.append(payload):
            if self._settings.detection is not None:
                self._detect(sign, now)

    def expect_echo(self, now: float) -> None:
        """An answer begins, which the microphone may pick up."""
        if self._room and self._room.random() < ECHOES:
            self._later(now + self._room.uniform(*ECHO_AFTER_S), self._start_noise)

    def _detect(self, sign: SpeechStart | SpeechEnd, now: float) -> None:
        if isinstance(sign, SpeechStart):
            start_ms = sign.audio_start_ms
            self._floor_s = now + self._delay_s
            self._later(self._floor_s, lambda at_s: self._start(start_ms, at_s))
        else:
            end_ms = sign.audio_end_ms
            self._later(max(now, self._floor_s), lambda at_s: self._stop(end_ms, at_s))

    def _start(self, start_ms: int, at_s: float) -> None:
        if self._noise:
            self._noise = False  # the caller goes on where the noise began
            return
        self._item_id = self._outbox.new_id("item")
        self._outbox.send("input_audio_buffer.speech_started", item_id=self._item_id, audio_start_ms=start_ms)
        self._on_start(at_s)

    def _stop(self, end_ms: int, at_s: float) -> None:
        noise, self._noise = self._noise, False
        self._outbox.send("input_audio_buffer.speech_stopped", item_id=self._item_id, audio_end_ms=end_ms)
        self._on_stop(self._item_id, at_s, noise)

    def _plan_noise(self, now: float) -> None:
        if self._room:
            self._later(now + self._room.uniform(*NOISE_EVERY_S), self._make_noise)

    def _make_noise(self, at_s: float) -> None:
        self._start_noise(at_s)
        self._plan_noise(at_s)

    def _start_noise(self, at_s: float) -> None:
        if self._room and not (self._noise or self.vad.speaking) and self._settings.detection is not None:
            self._start(max(0, self.vad.appended_ms - self.vad.prefix_padding_ms), at_s)
            self._noise = True
            lasts_s = self._room.uniform(*NOISE_S) + self.vad.silence_duration_ms / 1000
            self._later(at_s + lasts_s, self._stop_noise)

    def _stop_noise(self, at_s: float) -> None:
        if self._noise:
            self._stop(self.vad.appended_ms, at_s)
