"""Who may phone from a browser: short-lived tokens, allowed origins, and how often. Pure; times come in.

By default only this machine may: whoever phones spends the owner's key. A page of another site may embed the
phone once its origin is in AGENT_BROWSER_ORIGINS, or is one of the tenant who is to answer; then everybody who
sees that page may phone.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import attrs
import msgspec

from agent.core.errors import AdmissionError

TOKEN_LIFE_S: Final = 60.0
"""A page asks for one when somebody presses Call."""
TOKENS_A_MINUTE: Final = 20
"""Tokens given to one address; more are refused."""
ADDRESSES: Final = 10_000
"""Addresses whose tokens are counted; the oldest are forgotten."""
_MINUTE_S: Final = 60.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """What a token says; ``tenant`` answers, the default one if it is empty."""

    nonce: str
    expires_s: float
    origin: str
    tenant: str


_decoder: Final = msgspec.msgpack.Decoder(Claims)


@attrs.define(eq=False)
class BrowserAdmission:
    """Gives tokens and takes each once. Times are Unix seconds."""

    origins: frozenset[str] = frozenset()
    """Sites whose pages may phone any tenant, as browsers write them."""
    origins_of: Callable[[str | None], frozenset[str] | None] = lambda _: frozenset()
    """Those of a tenant, by id or number; of all for None. The answer is None if there is no such tenant."""
    is_public: bool = False
    """The server is reached through a proxy or a tunnel: then an address of this machine proves nothing."""
    _secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)
    _used: dict[str, float] = attrs.field(factory=dict, repr=False)
    _given: dict[str, deque[float]] = attrs.field(factory=dict, repr=False)

    def allowed(self, tenant: str | None) -> frozenset[str]:
        """Sites whose pages may phone ``tenant`` (None: somebody); with any, callers may be anywhere.

        Raises AdmissionError of kind browser_tenant: there is no such tenant.
        """
        own = self.origins_of(tenant)
        if own is None:
            raise AdmissionError("browser_tenant", "nobody answers under this name")
        return self.origins | own

    def refusal(self, peer: str, headers: Mapping[str, str], tenant: str) -> str:
        """The sentence of ``check`` when it raises; empty when it does not."""
        try:
            self.check(peer, headers, tenant)
        except AdmissionError as error:
            return error.detail
        return ""

    def ancestors(self, tenant: str) -> str:
        """Whose pages may have the phone of ``tenant`` in a frame, in the words of a Content-Security-Policy."""
        try:
            return " ".join(("'self'", *sorted(self.allowed(tenant))))
        except AdmissionError:
            return "'self'"

    def check(self, peer: str, headers: Mapping[str, str], tenant: str | None = None) -> str:
        """The origin of a request that may phone ``tenant``, or somebody; names of ``headers`` are in lower case.

        Raises AdmissionError of kind browser_tenant, browser_remote (not from this machine, or through a proxy,
        and no origins are allowed) or browser_origin (a page of a site that is not allowed).
        """
        allowed = self.allowed(tenant)
        host = headers.get("host", "").lower()
        origin = headers.get("origin", "").lower()
        if not allowed and (self.is_public or not _is_local(peer, host, headers)):
            text = "only this machine may phone: set AGENT_BROWSER_ORIGINS to the sites whose visitors may"
            raise AdmissionError("browser_remote", text)
        own = urlsplit(origin).netloc == host
        if origin and not own and origin not in allowed:
            text = f"pages of {origin} may not phone: see AGENT_BROWSER_ORIGINS and the tenant's origins"
            raise AdmissionError("browser_origin", text)
        return origin

    def issue(self, peer: str, origin: str, tenant: str, now_s: float) -> str:
        """A token for one call. Raises AdmissionError of kind browser_rate."""
        given = self._given.pop(peer, None) or deque(maxlen=TOKENS_A_MINUTE)
        self._given[peer] = given
        if len(given) == TOKENS_A_MINUTE and now_s - given[0] < _MINUTE_S:
            raise AdmissionError("browser_rate", "too many calls from this address; wait a minute")
        given.append(now_s)
        if len(self._given) > ADDRESSES:
            del self._given[next(iter(self._given))]
        claims = Claims(secrets.token_urlsafe(9), now_s + TOKEN_LIFE_S, origin, tenant)
        body = urlsafe_b64encode(msgspec.msgpack.encode(claims))
        return f"{body.decode()}.{self._sign(body)}"

    def admit(self, token: str, origin: str, now_s: float) -> Claims:
        """What a token says; from now on it is used.

        Raises AdmissionError of kind token_forged, token_expired, token_origin or token_reused.
        """
        body, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._sign(body.encode()).encode()):
            raise AdmissionError("token_forged", "this server did not give the token")
        claims = _decoder.decode(urlsafe_b64decode(body))
        if claims.expires_s <= now_s:
            raise AdmissionError("token_expired", "the token is too old; press Call again")
        if claims.origin != origin:
            raise AdmissionError("token_origin", "the token was given to another site")
        self._used = {nonce: until_s for nonce, until_s in self._used.items() if until_s > now_s}
        if claims.nonce in self._used:
            raise AdmissionError("token_reused", "the token was used before")
        self._used[claims.nonce] = claims.expires_s
        return claims

    def _sign(self, body: bytes) -> str:
        return urlsafe_b64encode(hmac.digest(self._secret, body, "sha256")).decode()


def _is_local(peer: str, host: str, headers: Mapping[str, str]) -> bool:
    """Whether a request was made on this machine, for this machine: a proxy's, and a rebound name's, was not."""
    try:
        loopback = ip_address(peer).is_loopback
    except ValueError:
        loopback = False
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return loopback and name in _LOOPBACK and not any(field in headers for field in _FORWARDED)
