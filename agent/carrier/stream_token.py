"""What the webhook knew about a call, and the token that carries it to the call's media stream.

The webhook that answers a call and the WebSocket that carries its audio are two connections. The token says,
signed, which call the stream may serve; Twilio hands it back in ``start.customParameters``. It lives for a
minute and works once.

Times are Unix seconds, not monotonic ones: behind a balancer one machine may answer the webhook and another
the stream.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, Literal, TypeVar

import attrs
import msgspec

from agent.core.errors import AdmissionError
from agent.core.units import CallSid

TOKEN_LIFE_S: Final = 60.0
"""Twilio opens the stream within a second or two of reading the TwiML; a slow network gets a minute."""
PROMISE_S: Final = 10.0
"""How long a line is kept for a call whose stream has not come; its caller may have hung up meanwhile."""
MAX_PARTY_BYTES: Final = 100
"""Longest caller or called kept in a token. Twilio allows 500 characters for a parameter's name and value;
numbers are far shorter, SIP addresses can be longer and are cut."""


@attrs.frozen
class CallTicket:
    """What the webhook knew about the call; ``caller`` (From) and ``called`` (To) are E.164 numbers or empty."""

    call_sid: CallSid
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str


class _TokenClaims(msgspec.Struct, array_like=True):
    nonce: str
    expires_s: float
    call_sid: str
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str


_Name = TypeVar("_Name", bound=str)
_decoder: Final = msgspec.msgpack.Decoder(_TokenClaims)


def stream_secret(auth_token: str | None) -> bytes:
    """The key of the tokens: derived from Twilio's auth token, so that all processes of an account agree.

    Without one it is random: then the process that answers the webhook must also get the stream.
    """
    if not auth_token:
        return secrets.token_bytes(32)
    return hmac.digest(auth_token.encode(), b"stream-token", "sha256")


@attrs.define(eq=False)
class StreamTokens:
    """Issues stream tokens and admits each of them once.

    Used tokens are remembered until they expire, in this process; for all processes they are in ``Replays``.
    """

    _secret: bytes = attrs.field(repr=False)
    _used: dict[str, float] = attrs.field(factory=dict, repr=False)
    _promised: dict[CallSid, float] = attrs.field(factory=dict, repr=False)

    def promised(self, now_s: float) -> int:
        """How many calls were given a token lately whose streams have not come yet."""
        self._promised = _after(now_s, self._promised)
        return len(self._promised)

    def withdraw(self, call_sid: CallSid) -> None:
        """No line is kept for this call any more."""
        self._promised.pop(call_sid, None)

    def issue(self, ticket: CallTicket, now_s: float) -> str:
        """A token for the stream of this call, of URL-safe characters, at most 450 of them."""
        claims = _TokenClaims(
            secrets.token_urlsafe(9),
            now_s + TOKEN_LIFE_S,
            ticket.call_sid,
            ticket.direction,
            _cut(ticket.caller),
            _cut(ticket.called),
        )
        self._promised[ticket.call_sid] = now_s + PROMISE_S
        body = urlsafe_b64encode(msgspec.msgpack.encode(claims)).rstrip(b"=")
        return f"{body.decode()}.{self._sign(body).decode()}"

    def admit(self, token: str, call_sid: CallSid, now_s: float) -> CallTicket:
        """The ticket in ``token``; from now on the token is used.

        Raises AdmissionError of kind token_missing, token_forged, token_expired, token_wrong_call or
        token_reused. A refused token is not used up: only its own call can do that.
        """
        if not token:
            raise AdmissionError("token_missing", "the stream has no token parameter")
        body, _, signature = token.encode(errors="replace").partition(b".")
        if not hmac.compare_digest(signature, self._sign(body)):
            raise AdmissionError("token_forged", "this server did not sign the stream's token")
        claims = _decoder.decode(urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        if claims.expires_s <= now_s:
            raise AdmissionError(
                "token_expired", f"the stream's token expired {now_s - claims.expires_s:.0f} s ago"
            )
        if claims.call_sid != call_sid:
            raise AdmissionError("token_wrong_call", "the stream's token belongs to another call")
        self._used = _after(now_s, self._used)
        if claims.nonce in self._used:
            raise AdmissionError("token_reused", "the stream's token was used before")
        self._used[claims.nonce] = claims.expires_s
        self.withdraw(call_sid)
        return CallTicket(call_sid, claims.direction, claims.caller, claims.called)

    def _sign(self, body: bytes) -> bytes:
        return urlsafe_b64encode(hmac.digest(self._secret, body, "sha256")).rstrip(b"=")


def _after(now_s: float, times: dict[_Name, float]) -> dict[_Name, float]:
    """What of ``times`` lies in the future."""
    return {name: time_s for name, time_s in times.items() if time_s > now_s}


def _cut(party: str) -> str:
    return party.encode(errors="replace")[:MAX_PARTY_BYTES].decode(errors="ignore")
