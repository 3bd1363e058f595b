"""The codec against Autobahn's cases, against wsproto and against websockets, on any bytes in any pieces."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from autobahn_cases import CASES, Case, Frame
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as TheirFrame
from websockets.protocol import Protocol, Side, State
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.events import Pong as WsprotoPong
from wsproto.utilities import RemoteProtocolError

from agent.wire.frames import (
    BINARY,
    CLOSE,
    NO_CODE,
    PING,
    PONG,
    TEXT,
    Closed,
    FrameReader,
    FrameWriter,
    Ping,
    Pong,
    Received,
    Violation,
    may_close_with,
)

LIMIT = 2 * 1024 * 1024
KEY = b"\x11\xf0\x07\xa5"


def encode(frame: Frame, *, mask: bool, form: int = 0) -> bytes:
    """A frame as anyone might make it; ``form`` 126 or 127 writes the length longer than it has to be."""
    length = len(frame.payload)
    form = max(form, length if length < 126 else 126 if length < 65536 else 127)
    head = bytes([frame.fin << 7 | frame.reserved << 4 | frame.opcode, mask << 7 | form])
    if form >= 126:
        head += length.to_bytes(2 if form == 126 else 8, "big")
    if not mask:
        return head + frame.payload
    return head + KEY + bytes(byte ^ KEY[index % 4] for index, byte in enumerate(frame.payload))


def told_by_us(pieces: list[bytes], *, client: bool) -> list[object]:
    """Everything, with a violation as its code."""
    reader = FrameReader(client, LIMIT)
    events: list[Received] = [event for piece in pieces for event in reader.feed(piece)]
    return [event.code if isinstance(event, Violation) else event for event in events]


# Autobahn


def chopped(case: Case, way: str, *, mask: bool) -> list[bytes]:
    frames = [encode(frame, mask=mask) for frame in case.frames]
    if way == "frame by frame":
        return frames
    whole = b"".join(frames)
    size = 1 if len(whole) < 2000 else 997
    return [whole] if way == "at once" else [whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize("way", ["at once", "frame by frame", "in octets"])
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_the_cases_of_autobahn(client: bool, way: str) -> None:  # noqa: FBT001
    """Each case is told as the suite demands, in both roles, whatever the pieces it comes in."""
    for case in CASES:
        expected = [*case.told, *([] if case.end is None else [case.end])]
        assert told_by_us(chopped(case, way, mask=not client), client=client) == expected, case.id


# The other implementations


def told_by_wsproto(pieces: list[bytes], *, client: bool) -> list[object]:
    connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
    told: list[object] = []
    parts: list[Event] = []
    for piece in pieces:
        try:
            connection.receive_data(piece)
            events = list(connection.events())
        except RemoteProtocolError:
            return [*told, 1002]
        for event in events:
            if isinstance(event, TextMessage | BytesMessage):
                parts.append(event)
                if event.message_finished:
                    data = [each.data for each in parts if isinstance(each, TextMessage | BytesMessage)]
                    told.append("".join(data) if isinstance(event, TextMessage) else b"".join(data))  # type: ignore[arg-type]
                    parts.clear()
            elif isinstance(event, WsprotoPing):
                told.append(Ping(bytes(event.payload)))
            elif isinstance(event, WsprotoPong):
                told.append(Pong(bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                # A violation is told as a close whose code is to be sent.
                return [*told, event]
    return told


def agree_with_wsproto(ours: list[object], theirs: list[object]) -> bool:
    """The same, where wsproto's last word may be the peer's close or its own complaint, with the same code."""
    if not theirs or not isinstance(theirs[-1], CloseConnection):
        return ours == theirs
    end = theirs[-1]
    last = ours[-1] if ours else None
    code = last.code if isinstance(last, Closed) else last
    return ours[:-1] == theirs[:-1] and code == end.code


def told_by_websockets(pieces: list[bytes], *, client: bool) -> list[object]:
    """Its core gives out frames: the messages are put together here, and their UTF-8 checked."""
    side = Side.CLIENT if client else Side.SERVER
    protocol = Protocol(side, state=State.OPEN, max_size=LIMIT)
    told: list[object] = []
    parts: list[TheirFrame] = []
    for piece in pieces:
        protocol.receive_data(piece)
        for frame in protocol.events_received():
            assert isinstance(frame, TheirFrame)
            data = bytes(frame.data)
            if frame.opcode == PING:
                told.append(Ping(data))
            elif frame.opcode == PONG:
                told.append(Pong(data))
            elif frame.opcode == CLOSE:
                close = protocol.close_rcvd
                assert close is not None
                return [*told, Closed(int(close.code), close.reason)]
            else:
                parts.append(frame)
                if frame.fin:
                    whole = b"".join(bytes(each.data) for each in parts)
                    try:
                        told.append(whole.decode() if parts[0].opcode == TEXT else whole)
                    except UnicodeDecodeError:
                        return [*told, 1007]
                    parts.clear()
        if protocol.parser_exc is not None:
            assert protocol.close_sent is not None
            return [*told, int(protocol.close_sent.code)]
    return told


words = st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=40), st.just(b"x" * 130))
frames = st.builds(
    Frame,
    opcode=st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 11]),
    payload=st.one_of(words, st.integers(995, 5005).map(lambda code: code.to_bytes(2, "big"))),
    fin=st.booleans(),
    reserved=st.sampled_from([0] * 15 + [4]),
)


@st.composite
def streams(draw: st.DrawFn, *, mask: bool, forms: list[int]) -> list[bytes]:
    """Frames, most of them good, that come in any pieces."""
    right = st.sampled_from([mask] * 9 + [not mask])
    whole = b"".join(
        encode(frame, mask=draw(right), form=draw(st.sampled_from(forms)))
        for frame in draw(st.lists(frames, max_size=8))
    )
    cuts = sorted({0, len(whole), *draw(st.lists(st.integers(0, len(whole)), max_size=8))})
    return [whole[begin:end] for begin, end in pairwise(cuts)]


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_any_frames_are_read_as_wsproto_reads_them(client: bool) -> None:  # noqa: FBT001
    @given(streams(mask=not client, forms=[0] * 12 + [126, 127]))
    @settings(max_examples=300, deadline=None)
    def run(pieces: list[bytes]) -> None:
        ours, theirs = told_by_us(pieces, client=client), told_by_wsproto(pieces, client=client)
        assert agree_with_wsproto(ours, theirs), (ours, theirs)

    run()


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_any_frames_are_read_as_websockets_reads_them(client: bool) -> None:  # noqa: FBT001
    """But for lengths in a longer form than they need, which it does not mind, and for when it sees bad UTF-8."""

    @given(streams(mask=not client, forms=[0]))
    @settings(max_examples=300, deadline=None)
    def run(pieces: list[bytes]) -> None:
        ours, theirs = told_by_us(pieces, client=client), told_by_websockets(pieces, client=client)
        if (ours[-1:] == [1002] and theirs[-1:] == [1007]) or (
            ours and isinstance(ours[-1], Closed) and theirs[-1:] == [1002]
        ):  # a close with neither a code nor UTF-8
            assert ours[:-1] == theirs[:-1]
        elif ours[-1:] == [1007]:  # we say it with the fragment, it is looked for with the message
            assert theirs[: len(ours) - 1] == ours[:-1]
        else:
            assert ours == theirs

    run()


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_wsproto_reads_them(pieces: list[bytes], client: bool) -> None:  # noqa: FBT001
    """But for half a frame at the end: either may complain of it where the other still waits."""
    ours, theirs = told_by_us(pieces, client=client), told_by_wsproto(pieces, client=client)
    they_complain = bool(theirs) and (isinstance(theirs[-1], CloseConnection) or theirs[-1] == 1002)
    we_complain = bool(ours) and isinstance(ours[-1], int)
    half = (they_complain and ours == theirs[:-1]) or (we_complain and ours[:-1] == theirs)
    assert half or agree_with_wsproto(ours, theirs), (ours, theirs)


@given(st.binary(max_size=70_000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_by_the_other_side(payload: bytes, client: bool) -> None:  # noqa: FBT001
    writer, reader = FrameWriter(client), FrameReader(not client, LIMIT)
    text = payload.decode("latin-1")
    sent = writer.message(text) + writer.frame(BINARY, payload) + writer.frame(PING, payload[:125])
    assert reader.feed(sent) == [text, payload, Ping(payload[:125])]


# What the seam relies on


def test_no_text_comes_behind_a_violation_or_a_close() -> None:
    """In the same piece or in a later one."""
    good = encode(Frame(TEXT, b"good"), mask=True)
    for bad in (Frame(3), Frame(TEXT, b"\xff"), Frame(CLOSE, b"\x03\xe8")):
        reader = FrameReader(False, LIMIT)
        events = reader.feed(good + encode(bad, mask=True) + good)
        assert events[0] == "good"
        assert len(events) == 2
        assert not isinstance(events[1], str)
        assert reader.feed(good) == []


def test_a_limit_is_seen_in_the_head() -> None:
    """Of a single frame, and of the parts of a message together; nothing of the payload need be there."""
    reader = FrameReader(True, 1000)
    [event] = reader.feed(b"\x81\x7e\x03\xe9")
    assert isinstance(event, Violation)
    assert event.code == 1009
    reader = FrameReader(True, 1000)
    assert reader.feed(encode(Frame(BINARY, b"x" * 600, fin=False), mask=False)) == []
    [event] = reader.feed(b"\x80\x7e\x01\x91")
    assert isinstance(event, Violation)
    assert event.code == 1009


@pytest.mark.parametrize("fragments", [1, 200_000])
def test_the_cost_is_linear(fragments: int) -> None:
    """A message of two megabytes in one frame or in 200,000, in pieces of a kilobyte: a second, not an hour."""
    part = b"x" * (LIMIT // fragments)
    head = [Frame(TEXT, part, fin=fragments == 1), *[Frame(0, part, fin=False)] * (fragments - 2)]
    tail = [] if fragments == 1 else [Frame(0, part)]
    whole = b"".join(encode(frame, mask=False) for frame in [*head, *tail])
    reader, began_s = FrameReader(True, LIMIT), time.thread_time()
    events = [event for at in range(0, len(whole), 1024) for event in reader.feed(whole[at : at + 1024])]
    assert [len(str(event)) for event in events] == [len(part) * fragments]
    assert time.thread_time() - began_s < 10


def test_each_frame_of_a_client_has_a_key_of_its_own() -> None:
    """RFC 6455, section 5.3; also where the buffered keys run out. A server masks nothing."""
    writer = FrameWriter(client=True)
    assert len({writer.message("x" * 200)[4:8] for _ in range(3000)}) == 3000
    assert FrameWriter(client=False).message("x") == b"\x81\x01x"


def test_a_close_frame_fits() -> None:
    """A reason that is too long is cut between two characters; no code, no payload."""
    reader = FrameReader(True, LIMIT)
    [event] = reader.feed(FrameWriter(client=False).close(4001, "ש" * 100))
    assert event == Closed(4001, "ש" * 61)
    assert FrameWriter(client=False).close(NO_CODE, "") == b"\x88\x00"
    assert [code for code in range(1000, 1017) if not may_close_with(code)] == [1004, 1005, 1006, 1015, 1016]
