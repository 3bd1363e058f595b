"""Did Twilio send this? Signatures of webhooks and of WebSocket handshakes, over the URL as Twilio saw it.

Twilio signs the URL it was given (for a media stream the ``wss://`` one) and, of a webhook, the posted fields,
with the account's auth token; or, when ``X-Twilio-Webhooks-Signature-Settings`` names an algorithm, with the
secret of a shared key. Behind a proxy our own address is not that URL, so it is put together again from
``AGENT_PUBLIC_URL``, or else from what a trusted proxy says (``agent/web/peer.py``), or our own address.
Source: https://www.twilio.com/docs/usage/security#validating-requests, and the ``twilio`` package's validator.
"""

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs
from twilio.request_validator import RequestValidator, get_signature_algorithm

from agent.core.errors import AdmissionError

SIGNATURE_HEADER: Final = "x-twilio-signature"
SETTINGS_HEADER: Final = "x-twilio-webhooks-signature-settings"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}

_DEVELOPMENT: Final = "For development on your own machine AGENT_ALLOW_UNSIGNED=1 accepts unsigned requests."
NOTHING_TO_CHECK_WITH: Final = (
    "TWILIO_AUTH_TOKEN is not set, so nobody can prove to be Twilio and every request is refused: set it. "
    + _DEVELOPMENT
)
NOT_SIGNED: Final = f"the request has no X-Twilio-Signature header: only Twilio may call this. {_DEVELOPMENT}"
WRONG_SIGNATURE: Final = (
    "X-Twilio-Signature does not fit this request: check that TWILIO_AUTH_TOKEN is the token of the calling "
    "account and that AGENT_PUBLIC_URL is the URL Twilio was given. Where a shared key signs, TWILIO_WEBHOOK_KEY "
    "must have its secret."
)
UNKNOWN_ALGORITHM: Final = (
    "X-Twilio-Webhooks-Signature-Settings names an algorithm that the installed twilio package does not know."
)


def path_prefix(public_url: str) -> str:
    """The path in front of ours in ``public_url``, without a slash at the end: some proxies keep it."""
    return urlsplit(public_url).path.rstrip("/")


def stream_url(base: str, path: str) -> str:
    """The WebSocket form of a public URL: ``https://host`` becomes ``wss://host`` and ``path`` is appended."""
    scheme, _, rest = base.partition("://")
    return f"{_SOCKET_SCHEMES[scheme]}://{rest}{path}"


@attrs.frozen
class SignatureCheck:
    """Lets requests of Twilio pass; fails closed without an auth token."""

    auth_token: str | None = attrs.field(repr=False)
    public_url: str
    allow_unsigned: bool
    shared_key: str | None = attrs.field(default=None, repr=False)
    """What requests are signed with that name an algorithm; None: the auth token."""

    def base(self, reached: str) -> str:
        """Scheme, host and path prefix by which Twilio reaches us, without a slash at the end.

        ``reached`` is the URL this request was sent to, for a server without a public one.
        """
        return self.public_url or reached

    def looks_signed(self, headers: Mapping[str, str]) -> bool:
        """Whether a request may pass, before its fields are known."""
        return self.allow_unsigned or SIGNATURE_HEADER in headers

    def check_webhook(
        self, reached: str, target: str, headers: Mapping[str, str], fields: Mapping[str, str]
    ) -> None:
        """Check a POST with ``fields`` to ``target`` (path and query as sent) of the server at ``reached``.

        ``fields`` may be a multi-dict with ``getlist``. Raises AdmissionError of kind unsigned or
        signature_wrong.
        """
        self._check("webhook", reached, target, headers, fields)

    def check_stream(self, reached: str, target: str, headers: Mapping[str, str]) -> None:
        """Check the WebSocket handshake of a media stream. Raises as check_webhook."""
        self._check("stream", reached, target, headers, {})

    def _check(
        self,
        kind: Literal["webhook", "stream"],
        reached: str,
        target: str,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
    ) -> None:
        signature, settings = headers.get(SIGNATURE_HEADER, ""), headers.get(SETTINGS_HEADER, "")
        secret = (self.shared_key if settings else None) or self.auth_token
        if not secret or not signature:
            if not self.allow_unsigned:
                raise AdmissionError("unsigned", NOT_SIGNED if secret else NOTHING_TO_CHECK_WITH)
            return
        validator, algorithm = RequestValidator(secret), get_signature_algorithm(settings)
        given = signature.encode(errors="replace")
        for url in _signed_urls(kind, self.base(reached), target, headers):
            try:
                expected = validator.compute_signature(url, fields, algorithm)
            except ValueError:
                raise AdmissionError("signature_wrong", UNKNOWN_ALGORITHM) from None
            if hmac.compare_digest(expected.encode(), given):
                return
        raise AdmissionError("signature_wrong", WRONG_SIGNATURE)


def _signed_urls(
    kind: Literal["webhook", "stream"], base: str, target: str, headers: Mapping[str, str]
) -> Iterator[str]:
    """The forms in which Twilio may have written the URL of ``target``: it adds or leaves out what others do.

    A proxy that ends TLS without saying so makes us believe in plain HTTP, so both are tried: the signature
    covers the host and the path in any case.
    """
    scheme, _, rest = base.partition("://")
    netloc, _, prefix = rest.partition("/")
    user, _, netloc = netloc.rpartition("@")
    plain = ("http", "https") if scheme == "http" else ("https",)
    schemes = plain if kind == "webhook" else (*(_SOCKET_SCHEMES[name] for name in plain), *plain)
    hosts = dict.fromkeys((netloc, netloc.lower(), *_same_host(netloc, headers.get("host", ""))))
    users = dict.fromkeys((f"{user}@" if user else "", "", *_credentials(headers.get("authorization", ""))))
    paths = tuple(_paths(kind, prefix, target))
    for name, login, whole in product(schemes, users, hosts):
        host, colon, port = whole.rpartition(":")
        if not (colon and port.isdigit()):
            host = whole
        authorities = dict.fromkeys((whole, host, f"{host}:{_DEFAULT_PORTS[name]}"))
        for authority, path in product(authorities, paths):
            yield f"{name}://{login}{authority}{path}"


def _paths(kind: Literal["webhook", "stream"], prefix: str, target: str) -> Iterator[str]:
    """Behind the public URL's prefix, which a proxy may have kept; a stream's with and without a last slash."""
    kept = bool(prefix) and target.startswith(f"/{prefix}/")
    for path in (f"/{prefix}{target}" if prefix else target, *((target,) if kept else ())):
        yield path
        if kind == "stream":
            yield path.removesuffix("/") if path.endswith("/") else f"{path}/"


def _same_host(netloc: str, host: str) -> Iterable[str]:
    """The Host header, if it only writes the host in other letters."""
    return (host,) if host.lower() == netloc.lower() else ()


def _credentials(authorization: str) -> Iterable[str]:
    """The user and password of the URL Twilio was given, as it used them to log in (RFC 7617)."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return ()
    try:
        return (b64decode(encoded, validate=True).decode() + "@",)
    except (Base64Error, ValueError):
        return ()
