"""What the simulated caller is saying: utterances in a queue, handed out 20 ms at a time. No I/O, no clock."""

from collections import deque

import attrs

from agent.core.units import FRAME_BYTES, FRAME_S
from agent.sim.carrier.tape import Tape
from agent.sim.sounds import Utterance


@attrs.define(eq=False)
class CallerVoice:
    """Speech not yet said; with ``record``, what was said goes on ``tape``."""

    record: bool
    tape: Tape = attrs.field(factory=Tape)
    _queue: deque[Utterance] = attrs.field(factory=deque)
    _index: int = 0
    """The next payload of the first utterance."""

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, utterance: Utterance) -> None:
        """Say ``utterance``, which is not empty, after what is being said."""
        self._queue.append(utterance)

    def next_payload(self, at_s: float) -> str:
        """The next 20 ms, said at ``at_s``. Raises IndexError when there is nothing to say."""
        utterance, index = self._queue[0], self._index
        if self.record:
            audio = utterance.audio[index * FRAME_BYTES : (index + 1) * FRAME_BYTES]
            joined = bool(self.tape.spans) and at_s - self.tape.spans[-1].end_s < FRAME_S / 2
            self.tape.write(at_s, audio, joined=joined)
        self._index += 1
        if self._index == len(utterance.payloads):
            self._queue.popleft()
            self._index = 0
        return utterance.payloads[index]

    def hush(self) -> None:
        """Say no more."""
        self._queue.clear()
        self._index = 0
