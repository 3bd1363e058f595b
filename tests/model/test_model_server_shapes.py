"""What our own Realtime servers put on the wire."""

from __future__ import annotations

from agent.model.server_shapes import Outbox


def test_two_sessions_of_our_own_servers_share_no_id() -> None:
    """What one session calls a thing, no other one does."""
    first, second = Outbox(lambda _: None), Outbox(lambda _: None)
    assert not {first.new_id("item") for _ in range(20)} & {second.new_id("item") for _ in range(20)}


def test_a_session_that_is_named_is_the_same_each_time() -> None:
    """So that a run can be repeated to the letter."""
    first, second = (Outbox(lambda _: None, session="seed") for _ in range(2))
    ids = [first.new_id(kind) for kind in ("item", "resp", "item")]
    assert ids == [second.new_id(kind) for kind in ("item", "resp", "item")]
    assert len(set(ids)) == len(ids)
