"""Caller audio in pieces while the line is quiet, and frame by frame from the first sound on (BI-1)."""

from base64 import b64decode, b64encode

from hypothesis import given
from hypothesis import strategies as st

from agent.audio.uplink import ATTENTIVE_S, Uplink
from agent.core.audio_format import ULAW_8K
from agent.core.units import FRAME_S

PIECE_MS = 100


def frame(number: int) -> bytes:
    return bytes([number % 256]) * ULAW_8K.frame_bytes


def sent(quiet: list[bool], piece_ms: int = PIECE_MS) -> list[bytes | None]:
    """What goes out with each frame."""
    uplink = Uplink(piece_ms * ULAW_8K.bytes_per_ms)
    pieces = []
    for number, is_quiet in enumerate(quiet):
        audio = frame(number)
        piece = uplink.take(audio, b64encode(audio).decode(), number * FRAME_S, quiet=is_quiet)
        pieces.append(None if piece is None else b64decode(piece, validate=True))
    return pieces


def test_a_quiet_line_goes_out_in_pieces() -> None:
    pieces = sent([True] * 10)
    assert [piece is not None for piece in pieces] == [False, False, False, False, True] * 2
    assert pieces[9] == b"".join(map(frame, range(5, 10)))


def test_the_first_sound_waits_for_nothing_and_takes_along_what_waited() -> None:
    assert sent([True, True, False]) == [None, None, frame(0) + frame(1) + frame(2)]


def test_frame_by_frame_for_a_while_after_the_last_sound() -> None:
    """As long as a detector may need to say that a turn began; then in pieces again."""
    attentive = round(ATTENTIVE_S / FRAME_S)
    pieces = sent([False] + [True] * (attentive + 4))
    assert pieces[:attentive] == [frame(number) for number in range(attentive)]
    assert pieces[attentive:] == [None] * 4 + [b"".join(map(frame, range(attentive, attentive + 5)))]


def test_pieces_of_one_frame_never_wait() -> None:
    assert sent([True] * 3, piece_ms=20) == [frame(0), frame(1), frame(2)]


@given(st.lists(st.booleans(), max_size=200), st.sampled_from([20, 40, 100, 200]))
def test_nothing_is_left_out_or_changed_and_less_than_a_piece_waits(quiet: list[bool], piece_ms: int) -> None:
    out = b"".join(piece for piece in sent(quiet, piece_ms) if piece is not None)
    whole = b"".join(map(frame, range(len(quiet))))
    assert whole.startswith(out)
    assert len(whole) - len(out) < piece_ms * ULAW_8K.bytes_per_ms
    pieces = sent(quiet, piece_ms)
    assert all(piece is not None for piece, is_quiet in zip(pieces, quiet, strict=True) if not is_quiet)
