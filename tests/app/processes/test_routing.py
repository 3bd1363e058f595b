"""Which process gets what; and the board they read it from."""

import pytest

from agent.app.processes.board import LEAVING, ROWS, TAKING, Board, Row, open_board
from agent.app.processes.routing import whose

ROWS_OF_FOUR = [
    Row(1, TAKING, lines=3),
    Row(2, TAKING, lines=1, promised=3),
    Row(3, LEAVING, lines=1),
    Row(4),  # starts
]


@pytest.mark.parametrize(
    ("own", "path", "number"),
    [
        (1, "/media-stream/2", 2),
        (1, "/media-stream/2/", 2),
        (2, "/media-stream/2", 0),
        (1, "/media-stream", 0),
        (1, "/media-stream/3", 0),
        (1, "/media-stream/4", 0),
        (1, "/media-stream/5", 0),
        (1, "/media-stream/two", 0),
        (1, "/browser-stream/2", 2),
        (1, "/browser-stream/3", 3),
        (1, "/browser-stream/5", 0),
        (3, "/browser-stream/3", 0),
        (3, "/media-stream/3", 1),
        (3, "/media-stream/2", 2),
        (3, "/voice/incoming", 1),
        (3, "", 1),
        (1, "/voice/incoming", 0),
        (1, "", 0),
        (4, "", 0),
    ],
)
def test_streams_go_where_their_calls_are_and_who_leaves_gives_all_away(own: int, path: str, number: int) -> None:
    """A stream of a process that leaves is anybody's: its token is; a browser's call is only where it is."""
    assert whose(ROWS_OF_FOUR, own, path) == number


def test_a_process_without_time_passes_on_what_would_be_a_call() -> None:
    """NB-6: nobody hears that we are busy while another process is not."""
    rows = [Row(1, TAKING, lines=9, is_busy=1), Row(2, TAKING, lines=8), Row(3, TAKING, lines=7, is_busy=1)]
    assert whose(rows, 1, "/voice/incoming") == 2
    assert whose(rows, 1, "/voice/outgoing") == 2
    assert whose(rows, 1, "/voice/status") == 0
    assert whose([rows[0], rows[2]], 1, "/voice/incoming") == 0, "all are busy"


def test_the_last_process_that_leaves_serves_all_itself() -> None:
    assert whose([Row(1, LEAVING), Row(2, LEAVING)], 1, "/voice/incoming") == 0


def test_what_one_writes_the_others_read_until_its_row_is_cleared() -> None:
    mine, file = open_board()
    with file:
        theirs = Board.over(file.fileno())
    assert theirs.rows() == []
    first, last = Row(7, TAKING, 2, 1), Row(8, LEAVING, 5, 0, 1)
    mine.write(0, first)
    mine.write(ROWS - 1, last)
    assert theirs.rows() == [first, last]
    theirs.write(0, Row(0))
    assert mine.rows() == [last]
