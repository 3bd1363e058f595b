"""A generation: one spoken answer of the model, from its creation until its last frame was heard or cancelled.

This is the ledger half: the audio still owed, the text, the items it belongs to. The cancel scope around the
task that fills it is in ``call/generations.py``; ``live`` is false from the instant of the cancel,
and the pacer looks at it immediately before each write.
"""

import enum
from typing import Final

import attrs

from agent.audio.frames import FrameSlicer
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.units import GenerationId, ItemId, ResponseId

SPEECH_CHARS_PER_S: Final = 16.0
"""Upper bound on how fast text is spoken (about 190 English words a minute), to place text whose audio is not
there yet; measured answers of the Realtime API run at 13 to 16."""


class Purpose(enum.StrEnum):
    """Why an answer was asked for; ``ANSWER`` is the provider's own answer to a caller's turn."""

    ANSWER = "answer"
    GREETING = "greeting"
    TURN = "turn"
    TOOL = "tool"
    KEYS = "keys"
    IDLE = "idle"
    FILLER = "filler"
    FAREWELL = "farewell"
    PROMPT = "prompt"


@attrs.define
class Part:
    """The audio of one message item of the answer: ``begin_ms`` is its place in the generation."""

    item_id: ItemId
    content_index: int
    begin_bytes: int
    length_bytes: int = 0
    text: str = ""
    format: AudioFormat = ULAW_8K

    @property
    def length_ms(self) -> int:
        """Whole milliseconds of audio received for the item."""
        return self.format.ms(self.length_bytes)

    def heard_of(self, heard_ms: int) -> int:
        """How much of this item was heard when ``heard_ms`` of the generation were."""
        return min(max(heard_ms - self.format.ms(self.begin_bytes), 0), self.length_ms)


@attrs.define(eq=False)
class Generation:
    """The ledger of one answer. Pure and synchronous."""

    id: GenerationId
    response_id: ResponseId
    purpose: Purpose
    created_s: float
    live: bool = True
    cancelled_s: float | None = None
    slicer: FrameSlicer = attrs.field(factory=FrameSlicer)
    parts: list[Part] = attrs.field(factory=list)
    received_bytes: int = 0
    sent_frames: int = 0
    first_frame_s: float | None = None
    interrupted: bool = False
    closed: bool = False
    """No more audio is taken: the model is done, its session is lost, or the answer was too long."""
    overflowed: bool = False
    response_done: bool = False

    @property
    def received_ms(self) -> int:
        """Whole milliseconds of audio received."""
        return self.slicer.format.ms(self.received_bytes)

    @property
    def owed_frames(self) -> int:
        """Frames not yet handed to the pacer."""
        return self.slicer.waiting

    @property
    def text(self) -> str:
        """All text of the answer so far."""
        return " ".join(part.text for part in self.parts if part.text)

    @property
    def received_text(self) -> str:
        """The words whose audio was received; text may have run ahead of it."""
        words = [heard_text(part, part.length_ms, complete=self.response_done) for part in self.parts]
        return " ".join(text for text in words if text)

    def cancel(self, now: float) -> int:
        """Never to be sent again; returns the frames it still owned. Only the first call counts."""
        if not self.live:
            return 0
        self.live, self.cancelled_s = False, now
        return self.owed_frames

    def accept(self, item_id: ItemId, content_index: int, audio: bytes) -> None:
        """Take audio that arrived: it waits in the slicer for the pacer."""
        self.part_of(item_id, content_index).length_bytes += len(audio)
        self.received_bytes += len(audio)
        self.slicer.push(audio)

    def close(self) -> None:
        """No more audio comes; may be repeated."""
        self.closed = True
        self.slicer.finish()

    def part_of(self, item_id: ItemId, content_index: int = 0) -> Part:
        """The part of an item, begun here if it is new."""
        for part in reversed(self.parts):
            if part.item_id == item_id:
                return part
        part = Part(item_id, content_index, self.received_bytes, format=self.slicer.format)
        self.parts.append(part)
        return part


def heard_text(part: Part, heard_ms: int, *, complete: bool) -> str:
    """The words of ``part`` that fit into ``heard_ms``: text spread evenly over its audio, cut at a word.

    Text runs ahead of audio: unless the answer is ``complete``, the text received may belong to more audio than
    was received, so its length is taken to be at least what speaking it takes.
    """
    total_ms = part.length_ms
    if not complete:
        total_ms = max(total_ms, int(len(part.text) / SPEECH_CHARS_PER_S * 1000))
    if heard_ms <= 0 or not part.text:
        return ""
    if heard_ms >= total_ms:
        return part.text
    cut = int(len(part.text) * heard_ms / total_ms)
    if part.text[cut].isspace():
        return part.text[:cut].rstrip()
    return part.text[:cut].rpartition(" ")[0].rstrip()
