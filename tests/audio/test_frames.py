"""TX-2: chunks of any size become the same frames; none lost, none padded but the last."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audio.frames import FrameSlicer
from agent.core.units import FRAME_BYTES, ULAW_SILENCE


def sliced(chunks: list[bytes], *, eager: bool) -> list[bytes]:
    """All frames of ``chunks``; eagerly popped after each push, or all at the end."""
    slicer, frames = FrameSlicer(), []

    def take() -> None:
        while (frame := slicer.pop()) is not None:
            frames.append(frame)

    for chunk in chunks:
        slicer.push(chunk)
        if eager:
            take()
    slicer.finish()
    take()
    assert slicer.exhausted
    assert slicer.waiting == 0
    return frames


@given(audio=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=12), eager=st.booleans())
def test_tx_2_any_chunking_slices_into_the_same_frames(audio: bytes, cuts: list[int], *, eager: bool) -> None:
    """However the audio is cut into chunks, and whenever frames are taken: the same bytes, 160 at a time."""
    borders = [0, *sorted(min(cut, len(audio)) for cut in cuts), len(audio)]
    chunks = [audio[start:end] for start, end in pairwise(borders)]
    frames = sliced(chunks, eager=eager)
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    joined = b"".join(frames)
    assert joined[: len(audio)] == audio
    assert set(joined[len(audio) :]) <= {ULAW_SILENCE}
    assert len(frames) == -(-len(audio) // FRAME_BYTES)


@pytest.mark.parametrize("size", [800, 1200, 2000, 1, 159, 160, 161])
def test_tx_2_the_models_chunk_sizes(size: int) -> None:
    """The sizes the model really sends, and the odd ones around a frame."""
    audio = bytes(range(256)) * 40
    chunks = [audio[at : at + size] for at in range(0, len(audio), size)]
    assert b"".join(sliced(chunks, eager=True))[: len(audio)] == audio


def test_a_part_of_a_frame_waits_for_more_or_for_the_end() -> None:
    """Nothing is padded while more may come."""
    slicer = FrameSlicer()
    slicer.push(b"\x01" * 100)
    assert slicer.pop() is None
    assert slicer.waiting == 0
    slicer.push(b"\x02" * 100)
    assert slicer.pop() == b"\x01" * 100 + b"\x02" * 60
    assert slicer.pop() is None
    slicer.finish()
    assert slicer.waiting == 1
    assert slicer.pop() == b"\x02" * 40 + bytes([ULAW_SILENCE]) * 120
    assert slicer.exhausted


def test_audio_after_the_end_is_the_callers_mistake() -> None:
    slicer = FrameSlicer()
    slicer.finish()
    with pytest.raises(ValueError, match="after the end"):
        slicer.push(b"\x01")


def test_tx_7_a_long_answer_costs_its_own_size_and_no_more() -> None:
    """Played audio is given back while the answer goes on: memory is what is owed."""
    slicer = FrameSlicer()
    for _ in range(600):
        slicer.push(b"\x01" * 8000)
        while slicer.pop() is not None:
            pass
    assert len(slicer._audio) <= 64 * 1024 + 8000


def test_tx_7_an_answer_that_is_over_keeps_no_audio() -> None:
    """A call with a hundred interrupted answers keeps a hundred ledgers, not their unheard audio."""
    slicer = FrameSlicer()
    slicer.push(bytes(4000))
    assert slicer.waiting == 25
    slicer.drop()
    assert (slicer.waiting, slicer.pop(), len(slicer._audio)) == (0, None, 0)
