"""The short way for whole text messages yields and sends what wsproto does, whatever comes in whatever pieces."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from agent.wire.text_frames import ShortcutConnection, encode_text

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0, mask: bool = True, form: int = 0
) -> bytes:
    """A frame as anyone might make it; ``form`` 126 or 127 writes the length longer than it has to be."""
    length = len(payload)
    form = form or (length if length < 126 else 126 if length < 65536 else 127)
    head = bytes([fin << 7 | reserved << 4 | opcode, mask << 7 | form])
    if form >= 126:
        head += length.to_bytes(2 if form == 126 else 8, "big")
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def shake_hands(connection: WSConnection, behind: bytes = b"", cut: int = 0) -> list[Event]:
    """Open ``connection`` with a plain peer; ``behind`` comes in one piece with the handshake's end.

    The handshake itself comes in two pieces, divided at ``cut``.
    """
    peer = WSConnection(ConnectionType.SERVER if connection.client else ConnectionType.CLIENT)
    if connection.client:
        peer.receive_data(connection.send(Request(host="localhost", target="/")))
        assert [type(event) for event in peer.events()] == [Request]
        head = peer.send(AcceptConnection())
    else:
        head = peer.send(Request(host="localhost", target="/"))
    cut = min(cut, len(head))
    events: list[Event] = []
    for piece in (head[:cut], head[cut:] + behind):
        if piece:
            connection.receive_data(piece)
            events += connection.events()
    if not connection.client:
        connection.send(AcceptConnection())
        events += connection.events()
    return [event for event in events if not isinstance(event, Request | AcceptConnection)]


def told(events: list[Event]) -> list[object]:
    """What an application makes of ``events``: whole messages, control frames, and the first close."""
    found: list[object] = []
    parts: list[bytes | str] = []
    for event in events:
        if isinstance(event, Message):
            parts.append(bytes(event.data) if isinstance(event, BytesMessage) else event.data)
            if event.message_finished:
                kind = "text" if isinstance(event, TextMessage) else "bytes"
                joined = "".join(map(str, parts)) if kind == "text" else b"".join(p for p in parts if p)  # type: ignore[misc]
                found.append((kind, joined))
                parts = []
        elif isinstance(event, CloseConnection):
            found.append(("close", event.code))
            return found
        elif isinstance(event, Ping | Pong):
            found.append((type(event).__name__, bytes(event.payload)))
    return found


payloads = st.one_of(
    st.text(max_size=300).map(str.encode),
    st.binary(max_size=200),
    st.integers(120, 130).map(lambda size: b"x" * size),
    st.sampled_from([65_535, 65_536, 70_000]).map(lambda size: b"y" * size),
)
ordinary = st.builds(lambda payload: (payload, TEXT, True, 0, None, 0), payloads)
strange = st.tuples(
    payloads,
    st.sampled_from([TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 0x3, 0xB]),
    st.booleans(),
    st.sampled_from([0, 0, 0, 0, 4]),
    st.sampled_from([None, None, None, None, False, True]),
    st.sampled_from([0, 0, 0, 126, 127]),
)
fragmented = st.lists(payloads, min_size=2, max_size=4).map(
    lambda parts: [
        (part, TEXT if not number else CONTINUATION, number == len(parts) - 1, 0, None, 0)
        for number, part in enumerate(parts)
    ]
)
streams = st.lists(
    st.one_of(ordinary.map(lambda one: [one]), strange.map(lambda one: [one]), fragmented), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(
    plan=streams,
    is_client=st.booleans(),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
    glued=st.integers(0, 40),
    cut=st.integers(0, 400),
)
def test_any_bytes_in_any_pieces_are_understood_as_wsproto_understands_them(
    plan: list[list[tuple[bytes, int, bool, int, bool | None, int]]],
    is_client: bool,  # noqa: FBT001  (hypothesis passes by name)
    cuts: list[int],
    glued: int,
    cut: int,
) -> None:
    data = b"".join(
        frame(
            payload,
            opcode,
            fin=fin,
            reserved=reserved,
            mask=(not is_client) if mask is None else mask,
            # A form too short for the payload would make other frames of its bytes: fine, but not the claim.
            form=form if form and len(payload) < 65_536 else 0,
        )
        for group in plan
        for payload, opcode, fin, reserved, mask, form in group
    )
    kind = ConnectionType.CLIENT if is_client else ConnectionType.SERVER
    understood = []
    for connection in (WSConnection(kind), ShortcutConnection(kind)):
        # Only a server speaks at once behind the handshake; what a client sends before our answer wsproto drops.
        behind, rest = (data[:glued], data[glued:]) if is_client else (b"", data)
        events = shake_hands(connection, behind, cut)
        borders = [0, *sorted(min(at, len(rest)) for at in cuts), len(rest)]
        for begin, end in pairwise(borders):
            if begin < end and connection.state is not ConnectionState.CLOSED:
                connection.receive_data(rest[begin:end])
                events += connection.events()
            if any(isinstance(event, CloseConnection) for event in events):
                break
        understood.append(told(events))
    assert understood[0] == understood[1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=400), st.integers(65_530, 65_540).map(lambda size: "z" * size)), max_size=5
    )
)
@pytest.mark.parametrize("kind", list(ConnectionType))
def test_what_is_sent_is_what_a_plain_peer_receives(kind: ConnectionType, texts: list[str]) -> None:
    connection = ShortcutConnection(kind)
    shake_hands(connection)
    peer = WSConnection(ConnectionType.SERVER if connection.client else ConnectionType.CLIENT)
    if connection.client:
        peer.receive_data(WSConnection(ConnectionType.CLIENT).send(Request(host="localhost", target="/")))
        list(peer.events())
        peer.send(AcceptConnection())
    else:
        shake_hands(peer)
    received: list[Event] = []
    for text in texts:
        peer.receive_data(connection.send(TextMessage(data=text)))
        received += peer.events()
    assert told(received) == [("text", text) for text in texts]


def test_a_client_masks_each_frame_with_a_key_of_its_own() -> None:
    first, second = (encode_text(b"the same words", mask=True) for _ in range(2))
    assert first[2:6] != second[2:6]
    assert b"words" not in first


def test_fragments_of_ours_are_left_to_wsproto() -> None:
    connection, peer = ShortcutConnection(ConnectionType.SERVER), WSConnection(ConnectionType.CLIENT)
    shake_hands(connection)
    shake_hands(peer)
    for event in (
        TextMessage(data="a", message_finished=False),
        TextMessage(data="b"),
        TextMessage(data="whole"),
    ):
        peer.receive_data(connection.send(event))
    assert told(list(peer.events())) == [("text", "ab"), ("text", "whole")]


def test_a_long_frame_is_given_out_as_it_comes_so_that_a_limit_works_before_its_end() -> None:
    connection = ShortcutConnection(ConnectionType.SERVER)
    shake_hands(connection)
    connection.receive_data(frame(b"x" * 3_000_000)[:100_000])
    assert sum(len(event.data) for event in connection.events() if isinstance(event, Message)) > 90_000


def test_a_refusal_and_its_body_are_wsprotos_business() -> None:
    client, server = ShortcutConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    server.receive_data(client.send(Request(host="localhost", target="/")))
    list(server.events())
    answer = server.send(RejectConnection(status_code=403, headers=[(b"content-length", b"2")], has_body=True))
    client.receive_data(answer + b"no")
    assert [type(event) for event in client.events()][:2] == [RejectConnection, RejectData]
    assert client.state is not ConnectionState.OPEN


def test_nothing_is_sent_after_our_close() -> None:
    connection = ShortcutConnection(ConnectionType.SERVER)
    shake_hands(connection)
    connection.send(CloseConnection(code=1000))
    with pytest.raises(Exception, match="cannot be sent"):
        connection.send(TextMessage(data="too late"))
