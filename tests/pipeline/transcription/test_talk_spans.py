"""Where somebody talks, and how that is cut into pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.transcription.talk_spans import PAD_MS, WINDOW_MS, Piece, has_sound, plan_pieces

QUIET, LOUD = -70.0, -20.0


def line(*stretches: tuple[float, int]) -> list[float]:
    """Levels: each stretch so loud for so many milliseconds."""
    return [level for level, length_ms in stretches for _ in range(length_ms // WINDOW_MS)]


def test_silence_has_no_pieces() -> None:
    assert plan_pieces(line((QUIET, 60_000)), join_ms=1000, most_ms=10_000) == ()
    assert plan_pieces([], join_ms=1000, most_ms=10_000) == ()


def test_talk_is_padded_within_the_recording() -> None:
    levels = line((LOUD, 1000), (QUIET, 2000), (LOUD, 500))
    assert plan_pieces(levels, join_ms=1000, most_ms=10_000) == (
        Piece(0, 1000 + PAD_MS),
        Piece(3000 - PAD_MS, 3500),
    )


def test_talk_that_is_near_stays_together_while_it_may() -> None:
    levels = line((LOUD, 1000), (QUIET, 2000), (LOUD, 1000))
    assert plan_pieces(levels, join_ms=5000, most_ms=10_000) == (Piece(0, 4000),)
    assert len(plan_pieces(levels, join_ms=5000, most_ms=3000)) == 2


def test_long_talk_is_cut_where_it_is_quietest() -> None:
    """A monologue of 10 s with a breath at 4.5 s: the cut is in the breath, not at the limit."""
    levels = line((LOUD, 4500), (-40.0, 100), (LOUD, 5400))
    pieces = plan_pieces(levels, join_ms=1000, most_ms=5000)
    assert [piece.start_ms for piece in pieces][1] in range(4500, 4600)
    assert pieces[-1].end_ms == 10_000
    assert all(piece.end_ms - piece.start_ms <= 5000 for piece in pieces)


def test_sound_between_two_times() -> None:
    levels = line((QUIET, 1000), (LOUD, 1000))
    assert not has_sound(levels, 0, 900)
    assert has_sound(levels, 500, 1500)
    assert not has_sound(levels, 5000, 6000)


@given(st.lists(st.floats(-90, 0), max_size=400), st.integers(0, 5000), st.integers(1000, 8000))
def test_pieces_cover_all_sound_in_order_and_within_the_limit(
    levels: list[float], join_ms: int, most_ms: int
) -> None:
    pieces = plan_pieces(levels, join_ms=join_ms, most_ms=most_ms)
    for earlier, later in pairwise(pieces):
        assert earlier.end_ms <= later.start_ms
    for piece in pieces:
        assert 0 <= piece.start_ms < piece.end_ms <= len(levels) * WINDOW_MS
        assert piece.end_ms - piece.start_ms <= most_ms
    for index, level in enumerate(levels):
        if level > -50.0:
            middle = index * WINDOW_MS + WINDOW_MS // 2
            assert any(piece.start_ms <= middle <= piece.end_ms for piece in pieces)
