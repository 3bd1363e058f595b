"""Did Twilio send this? Signatures of webhooks and of WebSocket handshakes, over the URL as Twilio saw it.

Twilio signs the URL it was given (for a media stream the ``wss://`` one) and, of a webhook, the posted fields,
with the account's auth token. Behind a proxy our own address is not that URL, so it is put together again from
``AGENT_PUBLIC_URL`` or from what the proxy forwards.
Source: https://www.twilio.com/docs/usage/security#validating-requests.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import attrs
from twilio.request_validator import RequestValidator

from agent.core.errors import AdmissionError

SIGNATURE_HEADER: Final = "x-twilio-signature"
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
    "account and that AGENT_PUBLIC_URL is the URL Twilio was given."
)


def public_base(public_url: str, headers: Mapping[str, str]) -> str:
    """Scheme, host and path prefix by which Twilio reached us, without a slash at the end.

    ``public_url`` when set, else what the proxy forwarded (the first value of each: the outermost proxy's),
    else the Host header, over plain HTTP. ``headers`` have lower-case names.
    """
    if public_url:
        return public_url
    scheme = _first(headers.get("x-forwarded-proto", "")).lower()
    host = _first(headers.get("x-forwarded-host", "")) or headers.get("host", "")
    return f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}"


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
    _validator: RequestValidator | None = attrs.field(init=False, repr=False)

    @_validator.default
    def _make_validator(self) -> RequestValidator | None:
        return RequestValidator(self.auth_token) if self.auth_token else None

    def check_webhook(self, target: str, headers: Mapping[str, str], fields: Mapping[str, str]) -> None:
        """Check a POST with ``fields`` to ``target`` (path and query as sent).

        ``fields`` may be a multi-dict with ``getlist``. Raises AdmissionError of kind unsigned or
        signature_wrong.
        """
        self._check("webhook", target, headers, fields)

    def check_stream(self, target: str, headers: Mapping[str, str]) -> None:
        """Check the WebSocket handshake of a media stream. Raises as check_webhook."""
        self._check("stream", target, headers, {})

    def _check(
        self,
        kind: Literal["webhook", "stream"],
        target: str,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
    ) -> None:
        signature = headers.get(SIGNATURE_HEADER, "")
        if self._validator is None:
            if not self.allow_unsigned:
                raise AdmissionError("unsigned", NOTHING_TO_CHECK_WITH)
            return
        if not signature:
            if not self.allow_unsigned:
                raise AdmissionError("unsigned", NOT_SIGNED)
            return
        given = signature.encode(errors="replace")
        for url in _signed_urls(kind, public_base(self.public_url, headers) + target):
            expected = self._validator.compute_signature(url, fields)
            if hmac.compare_digest(expected.encode(), given):
                return
        raise AdmissionError("signature_wrong", WRONG_SIGNATURE)


def _signed_urls(kind: Literal["webhook", "stream"], url: str) -> Iterator[str]:
    """The forms in which Twilio may have written ``url``: it adds or leaves out the port, as others do.

    A proxy that ends TLS without saying so makes us believe in plain HTTP, so both are tried: the signature
    covers the host and the path in any case.
    """
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    host, colon, port = netloc.rpartition(":")
    if not (colon and port.isdigit()):
        host = netloc
    plain = ("http", "https") if scheme == "http" else ("https",)
    schemes = plain if kind == "webhook" else (*(_SOCKET_SCHEMES[name] for name in plain), *plain)
    for name in schemes:
        for authority in dict.fromkeys((netloc, host, f"{host}:{_DEFAULT_PORTS[name]}")):
            yield f"{name}://{authority}{slash}{path}"


def _first(values: str) -> str:
    return values.split(",", 1)[0].strip()
