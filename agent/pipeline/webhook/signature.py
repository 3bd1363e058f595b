"""The signature of our webhooks: HMAC-SHA256 over time and body, so that nobody else can send or repeat one.

Header ``Call-Agent-Signature: t=<unix seconds>,v1=<hex>`` where the hex is
``HMAC-SHA256(secret, "<t>." + body)``. A receiver takes it when the digest fits and ``t`` is recent. Pure:
receivers may copy this file, it needs nothing but Python.
"""

import hashlib
import hmac
import re
from typing import Final

SIGNATURE_HEADER: Final = "Call-Agent-Signature"
IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
TOLERANCE_S: Final = 300
"""How far the sender's clock may be from the receiver's; an older request is someone's repetition."""
_PART: Final = re.compile(r"(t|v1)=([0-9a-f]{1,64})")


def sign(body: bytes, secret: str, at: int) -> str:
    """The value of the signature header for ``body``, sent ``at`` Unix seconds."""
    return f"t={at},v1={_digest(body, secret, at)}"


def verify(header: str, body: bytes, secret: str, now: float, *, tolerance_s: float = TOLERANCE_S) -> bool:
    """Whether ``body``, exactly as received, was signed with ``secret`` within ``tolerance_s`` of ``now``.

    More than one ``v1`` is fine (a secret being exchanged): one must fit. Takes the same time whichever digit is
    wrong. Never raises.
    """
    parts = [part.strip() for part in header.split(",")]
    found = [match.groups() for part in parts if (match := _PART.fullmatch(part))]
    times = [value for name, value in found if name == "t"]
    if len(times) != 1 or not times[0].isdecimal() or abs(now - int(times[0])) > tolerance_s:
        return False
    expected = _digest(body, secret, int(times[0]))
    return any(hmac.compare_digest(expected, value) for name, value in found if name == "v1")


def _digest(body: bytes, secret: str, at: int) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
