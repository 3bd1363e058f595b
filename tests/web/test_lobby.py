"""The lobby: few for each address, the oldest idle one makes room, never one that is served. DO-1, DO-2."""

import pytest

from agent.web.lobby import BURST, FRESH_S, PACE_S, VOUCHED_S, Lobby, Place
from agent.web.peer import TrustedProxies, lobby_key, parse_networks, without_forwarded

LONG_S = FRESH_S + 1


def enter(lobby: Lobby, key: str, now_s: float) -> tuple[Place, Place | None]:
    place, given_up = lobby.enter(key, lambda: None, now_s)
    assert place is not None
    return place, given_up


def test_the_oldest_idle_one_of_an_address_makes_room() -> None:
    lobby = Lobby(per_address=3, most=100)
    first, second, third = (enter(lobby, "a", float(number))[0] for number in range(3))
    first.serves()
    assert enter(lobby, "b", LONG_S)[1] is None
    assert enter(lobby, "a", LONG_S + 2)[1] is second
    assert enter(lobby, "a", LONG_S + 2.01)[1] is third
    assert len(lobby) == 4


def test_sending_away_does_not_go_on_for_ever() -> None:
    """Whoever is sent away comes again at once: a hundred a second is enough."""
    lobby = Lobby(per_address=3, most=100)
    for number in range(20):
        enter(lobby, "a", float(number) / 100)
    given_up = [enter(lobby, "a", LONG_S + number / 1000)[1] for number in range(30)]
    assert sum(place is not None for place in given_up) == 3


def test_an_address_that_has_its_share_is_not_looked_at_when_there_is_no_room() -> None:
    lobby = Lobby(per_address=3, most=4)
    for key in "aaab":
        assert not lobby.refuses(key, 0)
        enter(lobby, key, 0)
    assert [lobby.refuses(key, 0) for key in "abc"] == [True, False, False]
    lobby.vouch("a", 0)
    assert lobby.refuses("a", 0)
    lobby = Lobby(per_address=1, most=4)
    lobby.vouch("a", 0)
    for key in "abcd":
        enter(lobby, key, 0)
    assert not lobby.refuses("a", 0)


def test_a_burst_is_no_crowd() -> None:
    """Twilio sends what it has at once: nobody is given up who came within the second."""
    lobby = Lobby(per_address=3, most=100)
    assert [enter(lobby, "a", 0.5)[1] for _ in range(20)] == [None] * 20


def test_the_most_crowded_address_makes_room_for_all() -> None:
    """Also for its own, and however fresh."""
    lobby = Lobby(per_address=3, most=10)
    carriers, _ = enter(lobby, "carrier", 0)
    crowd = [enter(lobby, "crowd", 1 + number / 100)[0] for number in range(9)]
    assert enter(lobby, "carrier", 1.5)[1] is crowd[0]
    assert enter(lobby, "third", 1.5)[1] is crowd[1]
    assert len(lobby) == 10
    assert carriers.idle_since_s == 0


def test_whoever_signed_is_not_crowded_before_strangers_are() -> None:
    """A carrier with five connections, and strangers with four of each address: it was given up first."""
    lobby = Lobby(per_address=16, most=1005)
    lobby.vouch("carrier", 0)
    carriers = [enter(lobby, "carrier", 1)[0] for _ in range(5)]
    for number in range(1000):
        enter(lobby, f"stranger {number % 250}", 1)
    given_up = [enter(lobby, f"stranger {number % 250}", 1.5)[1] for number in range(100)]
    assert all(place is not None and place not in carriers for place in given_up)
    assert not any(enter(lobby, "carrier", 1.5)[1] in carriers for _ in range(20))


def test_a_body_that_is_waited_for_holds_no_place() -> None:
    """Strangers of a hundred addresses who sent half of a request each had all places for five seconds."""
    lobby = Lobby(per_address=16, most=100)
    slow = [enter(lobby, f"stranger {number % 50}", 0)[0] for number in range(100)]
    for place in slow:
        place.begins(0)
    carriers, given_up = enter(lobby, "carrier", 1)
    assert given_up in slow
    for place in (*slow, carriers):
        place.serves()
    assert enter(lobby, "another", 1)[1] is None, "there is some room beyond"


def test_nobody_makes_room_for_who_has_more() -> None:
    """All strangers are being served; the carrier, who is not yet, keeps its place."""
    lobby = Lobby(per_address=16, most=100)
    for number in range(98):
        enter(lobby, f"stranger {number % 7}", 0)[0].serves()
    for _ in range(2):
        enter(lobby, "carrier", 0)
    assert enter(lobby, "stranger 1", 1)[1] is None


def test_there_is_a_place_beyond_all_for_who_signed() -> None:
    lobby = Lobby(per_address=16, most=100)
    lobby.vouch("carrier", 0)
    for number in range(125):
        place, _ = lobby.enter(f"stranger {number % 25}", lambda: None, 0)
        if place is not None:
            place.serves()
    assert len(lobby) == 125
    assert lobby.enter("new", lambda: None, 1) == (None, None)
    assert enter(lobby, "carrier", 1)[1] is None


def test_there_is_no_place_when_all_are_busy() -> None:
    """But for a few, which addresses get that have few: one of them may be the carrier's."""
    lobby = Lobby(per_address=3, most=4)
    for _ in range(4):
        enter(lobby, "a", 0)[0].serves()
    assert lobby.enter("a", lambda: None, LONG_S) == (None, None)
    enter(lobby, "b", LONG_S)[0].serves()
    assert lobby.enter("c", lambda: None, LONG_S) == (None, None)
    assert not lobby._places.get("c")


def test_an_address_is_served_few_requests_at_once() -> None:
    lobby = Lobby(per_address=2, most=100)
    places = [enter(lobby, "a", 0)[0] for _ in range(3)]
    assert lobby.may_serve("a", 0)
    for place in places[:2]:
        place.serves()
    assert not lobby.may_serve("a", 0)
    assert lobby.may_serve("b", 0)
    places[0].waits(0)
    assert lobby.may_serve("a", 0)


def test_requests_of_an_address_are_paced() -> None:
    """A burst is served at once, then twenty a second; who is vouched for, and who asks seldom, never waits."""
    lobby = Lobby(per_address=2, most=100)
    waits = [lobby.wait_s("a", 100.0) for _ in range(BURST + 3)]
    assert waits[:BURST] == [0.0] * BURST
    assert waits[BURST:] == pytest.approx([PACE_S, 2 * PACE_S, 3 * PACE_S])
    assert lobby.wait_s("b", 100.0) == 0
    assert lobby.wait_s("a", 110.0) == 0
    lobby.vouch("a", 110.0)
    assert [lobby.wait_s("a", 110.0) for _ in range(100)] == [0.0] * 100


def test_what_is_known_of_addresses_is_bounded() -> None:
    lobby = Lobby(per_address=2, most=100)
    for number in range(20_000):
        lobby.wait_s(str(number), number / 100)
    assert len(lobby._due_s) < 5000


def test_an_address_that_was_vouched_for_has_room_for_a_while() -> None:
    lobby = Lobby(per_address=1, most=100)
    lobby.vouch("a", 0)
    assert [enter(lobby, "a", number * LONG_S)[1] for number in range(20)] == [None] * 20
    assert enter(lobby, "a", VOUCHED_S + 1)[1] is not None


def test_nothing_is_left_of_those_who_have_left() -> None:
    lobby = Lobby(per_address=1, most=100)
    place, _ = enter(lobby, "a", 0)
    lobby.left(place)
    lobby.left(place)
    assert lobby.may_serve("c", 0)
    assert (len(lobby), lobby._places) == (0, {})


def test_an_address_is_counted_as_whoever_has_it_could_change_it() -> None:
    assert lobby_key("127.0.0.1") == lobby_key("::ffff:127.0.0.1") == "127.0.0.1"
    assert lobby_key("2001:db8::1") == lobby_key("2001:db8::ffff:1") != lobby_key("2001:db8:0:1::1")
    assert lobby_key("") == lobby_key("nonsense") == ""


# Who is at the other end

OURS = TrustedProxies(parse_networks("10.0.0.0/8, 2001:db8::1"))


def test_the_client_is_the_last_hop_that_is_no_proxy_of_ours() -> None:
    def client(peer: str, hops: str) -> str:
        return OURS.client_of(peer, {"x-forwarded-for": hops})

    assert client("192.0.2.1", "203.0.113.7") == "192.0.2.1", "a stranger's word"
    assert client("10.0.0.1", "") == "10.0.0.1"
    assert client("10.0.0.1", "203.0.113.7") == "203.0.113.7"
    assert client("10.0.0.1", "198.51.100.9, 203.0.113.7, 10.2.2.2") == "203.0.113.7", "what it wrote itself"
    assert client("10.0.0.1", "nonsense") == "10.0.0.1"
    assert client("::ffff:10.0.0.1", "203.0.113.7") == "203.0.113.7"
    assert client("2001:db8::1", "2001:db8::1, 203.0.113.7") == "203.0.113.7"
    assert TrustedProxies().client_of("10.0.0.1", {"x-forwarded-for": "203.0.113.7"}) == "10.0.0.1"


def test_the_url_is_what_a_trusted_proxy_says_of_it_and_nobody_else() -> None:
    own, said = "http://127.0.0.1:8080", {"host": "h:1", "x-forwarded-proto": "https", "x-forwarded-host": "a, b"}
    assert OURS.base_of("192.0.2.1", own, said) == own
    assert OURS.base_of("", own, said) == own
    assert OURS.base_of("10.0.0.1", own, said) == "https://b"
    assert OURS.base_of("10.0.0.1", own, {"host": "h:1"}) == "http://h:1"


def test_what_only_a_proxy_may_say_is_left_out() -> None:
    said = {
        "host": "a",
        "forwarded": "for=1",
        "x-forwarded-for": "1",
        "x-forwarded-client-cert": "",
        "x-real-ip": "",
    }
    assert without_forwarded(said) == {"host": "a"}
