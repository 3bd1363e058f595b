"""What was heard, and when: spans of mu-law audio on a time line. No I/O, no clock."""

import attrs

from agent.core.units import SAMPLE_RATE_HZ, ULAW_SILENCE


@attrs.define(eq=False)
class Span:
    """Audio without a hole in it, from ``start_s`` on."""

    start_s: float
    audio: bytearray

    @property
    def end_s(self) -> float:
        """The moment just after the last sample."""
        return self.start_s + len(self.audio) / SAMPLE_RATE_HZ


@attrs.define(eq=False)
class Tape:
    """Spans in the order of time; they never overlap."""

    spans: list[Span] = attrs.field(factory=list)

    def write(self, start_s: float, audio: bytes, *, joined: bool) -> None:
        """Add ``audio``; ``joined`` says that it follows the last span without a hole."""
        if joined and self.spans:
            self.spans[-1].audio += audio
        else:
            self.spans.append(Span(start_s, bytearray(audio)))

    def audio(self) -> bytes:
        """Everything on the tape, holes left out."""
        return b"".join(bytes(span.audio) for span in self.spans)

    def render(self, start_s: float, end_s: float) -> bytes:
        """The time line from ``start_s`` to ``end_s`` as mu-law, holes filled with silence."""
        rendered = bytearray([ULAW_SILENCE]) * max(0, round((end_s - start_s) * SAMPLE_RATE_HZ))
        for span in self.spans:
            at = round((span.start_s - start_s) * SAMPLE_RATE_HZ)
            audio = span.audio[max(0, -at) :][: max(0, len(rendered) - max(0, at))]
            rendered[max(0, at) : max(0, at) + len(audio)] = audio
        return bytes(rendered)
