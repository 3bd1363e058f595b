"""Stream tokens: genuine ones are admitted once, everything else is refused by kind."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.carrier.stream_token import PROMISE_S, TOKEN_LIFE_S, CallTicket, StreamTokens, stream_secret
from agent.core.errors import AdmissionError
from agent.core.units import CallSid

NOW_S = 1_700_000_000.0
TICKET = CallTicket(CallSid("CA" + "0" * 32), "inbound", "+15550001111", "+15552223333")


def refusal(book: StreamTokens, token: str, call_sid: CallSid = TICKET.call_sid, now_s: float = NOW_S) -> str:
    with pytest.raises(AdmissionError) as caught:
        book.admit(token, call_sid, now_s)
    return caught.value.kind


@given(
    direction=st.sampled_from(["inbound", "outbound"]),
    caller=st.text(max_size=20),
    called=st.text(alphabet="+0123456789", max_size=16),
)
def test_what_the_webhook_knew_comes_back(direction: str, caller: str, called: str) -> None:
    """Any ticket survives the way through TwiML; only what UTF-8 cannot carry is replaced."""
    book = StreamTokens(stream_secret(None))
    ticket = CallTicket(TICKET.call_sid, direction, caller, called)  # type: ignore[arg-type]  # sampled strings
    admitted = book.admit(book.issue(ticket, NOW_S), ticket.call_sid, NOW_S + 1)
    assert admitted == CallTicket(ticket.call_sid, ticket.direction, caller, called)


@given(data=st.data())
def test_any_tampering_is_refused(data: st.DataObject) -> None:
    """Change, cut or add any character: forged. The genuine token still works afterwards."""
    book = StreamTokens(stream_secret("auth token"))
    token = book.issue(TICKET, NOW_S)
    position = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(position, min(position + 3, len(token))))
    other = token[:position] + data.draw(st.text(max_size=3)) + token[end:]
    if other != token:
        expected = "token_forged" if other else "token_missing"
        assert refusal(book, other) == expected
    assert book.admit(token, TICKET.call_sid, NOW_S) == TICKET


@given(st.text(max_size=500))
def test_garbage_is_refused(token: str) -> None:
    kind = refusal(StreamTokens(stream_secret(None)), token)
    assert kind == ("token_forged" if token else "token_missing")


def test_a_token_works_once() -> None:
    book = StreamTokens(stream_secret(None))
    token = book.issue(TICKET, NOW_S)
    book.admit(token, TICKET.call_sid, NOW_S)
    assert refusal(book, token) == "token_reused"


def test_a_token_lives_for_a_minute() -> None:
    book = StreamTokens(stream_secret(None))
    early, late = book.issue(TICKET, NOW_S), book.issue(TICKET, NOW_S)
    assert book.admit(early, TICKET.call_sid, NOW_S + TOKEN_LIFE_S - 0.1) == TICKET
    assert refusal(book, late, now_s=NOW_S + TOKEN_LIFE_S) == "token_expired"


def test_a_token_is_for_one_call_and_is_not_used_up_by_another() -> None:
    book = StreamTokens(stream_secret(None))
    token = book.issue(TICKET, NOW_S)
    assert refusal(book, token, call_sid=CallSid("CAother")) == "token_wrong_call"
    assert book.admit(token, TICKET.call_sid, NOW_S) == TICKET


def test_processes_agree_on_tokens_exactly_when_they_share_the_auth_token() -> None:
    token = StreamTokens(stream_secret("shared")).issue(TICKET, NOW_S)
    assert StreamTokens(stream_secret("shared")).admit(token, TICKET.call_sid, NOW_S) == TICKET
    assert refusal(StreamTokens(stream_secret("another")), token) == "token_forged"
    assert refusal(StreamTokens(stream_secret(None)), token) == "token_forged"


def test_used_tokens_are_forgotten_when_they_have_expired() -> None:
    """Memory is bounded by the tokens of one minute."""
    book = StreamTokens(stream_secret(None))
    for second in range(1000):
        now_s = NOW_S + second
        book.admit(book.issue(TICKET, now_s), TICKET.call_sid, now_s)
    assert len(book._used) <= TOKEN_LIFE_S + 1


def test_a_promise_ends_with_the_stream_or_after_a_while() -> None:
    book = StreamTokens(stream_secret(None))
    tickets = [attrs.evolve(TICKET, call_sid=CallSid(f"CA{number:032x}")) for number in range(4)]
    tokens = [book.issue(ticket, NOW_S) for ticket in tickets]
    assert book.promised(NOW_S) == 4
    book.admit(tokens[0], tickets[0].call_sid, NOW_S)
    book.withdraw(tickets[3].call_sid)
    assert book.promised(NOW_S) == 2
    assert book.promised(NOW_S + PROMISE_S) == 0
    assert book.admit(tokens[1], tickets[1].call_sid, NOW_S + PROMISE_S) == tickets[1]


def test_a_call_is_promised_one_line() -> None:
    """However often Twilio asks."""
    book = StreamTokens(stream_secret(None))
    for _ in range(3):
        book.issue(TICKET, NOW_S)
    assert book.promised(NOW_S) == 1


def test_a_token_fits_into_a_twiml_parameter_whatever_the_caller_is_called() -> None:
    """Twilio allows 500 characters for name and value; SIP addresses are cut at whole characters."""
    book = StreamTokens(stream_secret(None))
    ticket = CallTicket(TICKET.call_sid, "outbound", "sip:" + "ש" * 300, "sip:" + "\\" * 300)
    token = book.issue(ticket, NOW_S)
    assert len(token) <= 500 - len("token")
    assert ticket.caller.startswith(book.admit(token, TICKET.call_sid, NOW_S).caller)


def test_the_secret_is_not_shown() -> None:
    assert "hush" not in repr(StreamTokens(b"hush"))
