"""The webhook's signature: fixed vectors, and everything that must not pass."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.webhook.signature import TOLERANCE_S, sign, verify

DOCUMENT = Path(__file__).parents[3] / "docs" / "webhook.md"
SECRET = "whsec_test"  # noqa: S105 - the documented one
AT = 1_772_359_200
VECTORS = re.findall(
    r"^\| `(\S+)` \| (\d+) \| `(.+)` \| `([0-9a-f]{64})` \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE
)


def documented_receiver() -> Any:
    """``is_genuine`` of docs/webhook.md."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own document
    return names["is_genuine"]


def test_the_documented_vectors() -> None:
    assert len(VECTORS) == 2
    for secret, at, body, expected in VECTORS:
        assert sign(body.encode(), secret, int(at)) == f"t={at},v1={expected}"
        assert verify(f"t={at},v1={expected}", body.encode(), secret, float(at))


def test_the_documented_receiver_agrees() -> None:
    is_genuine = documented_receiver()
    now = int(time.time())
    header = sign(b"body", SECRET, now)
    assert is_genuine(header, b"body", SECRET)
    assert not is_genuine(header, b"bodY", SECRET)
    assert not is_genuine(header, b"body", "whsec_other")
    assert not is_genuine(sign(b"body", SECRET, now - 400), b"body", SECRET)
    assert not is_genuine("", b"body", SECRET)
    assert not is_genuine("t=x,v1=é", b"body", SECRET)


@given(st.binary(), st.text(st.characters(codec="utf-8"), min_size=1), st.integers(0, 2**33))
def test_what_was_signed_is_taken(body: bytes, secret: str, at: int) -> None:
    assert verify(sign(body, secret, at), body, secret, at)


@given(st.binary(), st.binary())
def test_another_body_is_not(body: bytes, other: bytes) -> None:
    assert verify(sign(body, SECRET, AT), other, SECRET, AT) == (body == other)


def test_another_secret_or_time_is_not_taken() -> None:
    header = sign(b"x", SECRET, AT)
    assert not verify(header, b"x", "whsec_other", AT)
    assert not verify(header.replace(f"t={AT}", f"t={AT + 1}"), b"x", SECRET, AT)


@pytest.mark.parametrize("off_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1, 10**9])
def test_an_old_request_cannot_be_sent_again(off_s: int) -> None:
    header = sign(b"x", SECRET, AT)
    assert verify(header, b"x", SECRET, AT + TOLERANCE_S)
    assert not verify(header, b"x", SECRET, AT + off_s)


def test_while_a_secret_is_exchanged_one_of_two_must_fit() -> None:
    old, new = sign(b"x", "whsec_old", AT), sign(b"x", SECRET, AT)
    both = f"{old},{new.partition(',')[2]}"
    assert verify(both, b"x", SECRET, AT)
    assert verify(both, b"x", "whsec_old", AT)
    assert not verify(both, b"x", "whsec_third", AT)


@given(st.text())
def test_no_header_makes_it_raise(header: str) -> None:
    assert not verify(header, b"x", SECRET, AT)


@pytest.mark.parametrize(
    "header", ["", "t=,v1=", f"t={AT}", "v1=00", f"t={AT},t={AT},v1=00", "t=abc,v1=00", f"t={'9' * 64},v1=00"]
)
def test_headers_with_parts_missing_or_doubled(header: str) -> None:
    assert not verify(header, b"x", SECRET, AT)
