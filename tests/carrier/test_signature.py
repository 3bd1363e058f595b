"""Twilio's signatures, made by Twilio's own package, over the URL as Twilio saw it."""

from base64 import b64encode
from typing import Any

import pytest
from starlette.datastructures import ImmutableMultiDict
from twilio.request_validator import RequestValidator

from agent.carrier.signature import SignatureCheck, stream_url
from agent.core.errors import AdmissionError
from agent.web.peer import TrustedProxies, parse_networks

TOKEN = "12345"  # noqa: S105 - the one of Twilio's documentation
FIELDS = {"CallSid": "CA1234567890ABCDE", "From": "+14158675309", "To": "+18005551212", "Digits": "1234"}


OWN = "http://127.0.0.1:8080"
PROXY = TrustedProxies(parse_networks("10.0.0.1"))


def reached(headers: dict[str, str]) -> str:
    """The URL of a server without a public one, by what a trusted proxy says."""
    return PROXY.base_of("10.0.0.1", OWN, headers)


def signed(url: str, fields: dict[str, str] | None = None, token: str = TOKEN, **headers: str) -> dict[str, str]:
    signature = RequestValidator(token).compute_signature(url, fields or {})
    return {"x-twilio-signature": signature} | {name.replace("_", "-"): value for name, value in headers.items()}


def check(public_url: str = "", *, token: str | None = TOKEN, allow_unsigned: bool = False) -> SignatureCheck:
    return SignatureCheck(token, public_url, allow_unsigned)


def refusal(
    checker: SignatureCheck, target: str, headers: dict[str, str], fields: dict[str, str]
) -> AdmissionError:
    with pytest.raises(AdmissionError) as caught:
        checker.check_webhook(OWN, target, headers, fields)
    return caught.value


def test_the_example_of_twilio_s_documentation() -> None:
    """https://www.twilio.com/docs/usage/security: the one signature not made by the code under test's package."""
    fields = {**FIELDS, "Caller": "+14158675309"}
    headers = {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}
    check("https://mycompany.com").check_webhook(OWN, "/myapp.php?foo=1&bar=2", headers, fields)


@pytest.mark.parametrize(
    ("signed_url", "headers"),
    [
        ("https://agent.example.com/voice/incoming", {"x_forwarded_proto": "https", "host": "agent.example.com"}),
        (
            "https://agent.example.com/voice/incoming",
            {
                "x_forwarded_proto": "http, https",
                "x_forwarded_host": "liar.example, agent.example.com",
                "host": "inner:80",
            },
        ),
        (
            "https://agent.example.com:443/voice/incoming",
            {"x_forwarded_proto": "https", "host": "agent.example.com"},
        ),
        (
            "https://agent.example.com/voice/incoming",
            {"x_forwarded_proto": "https", "host": "agent.example.com:443"},
        ),
        (
            "https://agent.example.com:8443/voice/incoming",
            {"x_forwarded_proto": "https", "host": "agent.example.com:8443"},
        ),
        (
            "https://agent.example.com/voice/incoming",
            {"x_forwarded_proto": "https", "host": "agent.example.com:8443"},
        ),
        ("https://agent.example.com/voice/incoming", {"host": "agent.example.com"}),
        ("http://127.0.0.1:8080/voice/incoming", {"host": "127.0.0.1:8080"}),
        ("http://[::1]:8080/voice/incoming", {"host": "[::1]:8080"}),
        ("http://[::1]/voice/incoming", {"host": "[::1]"}),
    ],
)
def test_the_url_is_found_behind_proxies_and_with_odd_ports(signed_url: str, headers: dict[str, str]) -> None:
    """Also behind a proxy that ends TLS and does not say so, and with the port written or left out."""
    said = signed(signed_url, FIELDS, **headers)
    check().check_webhook(reached(said), "/voice/incoming", said, FIELDS)


def test_a_configured_public_url_beats_what_the_request_says() -> None:
    url = "https://agent.example.com/prefix/voice/incoming?tenant=1"
    headers = signed(url, FIELDS, host="10.0.0.1:8080", x_forwarded_host="liar", x_forwarded_proto="http")
    check("https://agent.example.com/prefix").check_webhook(OWN, "/voice/incoming?tenant=1", headers, FIELDS)
    assert refusal(check("https://other.example.com"), "/voice/incoming?tenant=1", headers, FIELDS)


@pytest.mark.parametrize(
    "signed_url",
    [
        "wss://agent.example.com/media-stream",
        "https://agent.example.com/media-stream",
        "wss://agent.example.com:443/media-stream",
    ],
)
def test_a_handshake_is_signed_with_either_scheme(signed_url: str) -> None:
    checker = check("https://agent.example.com")
    checker.check_stream(OWN, "/media-stream", signed(signed_url, host="inner:8080"))
    for path in ("/media-streams", "/media-stream//", "/voice/incoming", "/"):
        with pytest.raises(AdmissionError):
            checker.check_stream(OWN, path, signed(signed_url, host="inner:8080"))


@pytest.mark.parametrize("signed_path", ["/media-stream", "/media-stream/"])
@pytest.mark.parametrize("path", ["/media-stream", "/media-stream/"])
def test_a_slash_at_the_end_of_a_stream_s_path_may_come_and_go(signed_path: str, path: str) -> None:
    """Proxies add it and take it off; a webhook's path counts as it was sent."""
    check("https://agent.example.com").check_stream(OWN, path, signed(f"wss://agent.example.com{signed_path}"))
    headers = signed("https://agent.example.com/voice/incoming/", FIELDS)
    assert refusal(check("https://agent.example.com"), "/voice/incoming", headers, FIELDS)


@pytest.mark.parametrize(
    ("public_url", "host", "signed_host"),
    [
        ("https://Agent.Example.com", "inner", "agent.example.com"),
        ("https://Agent.Example.com", "inner", "Agent.Example.com"),
        ("https://agent.example.com", "Agent.Example.com", "Agent.Example.com"),
        ("", "Agent.Example.com", "agent.example.com"),
        ("", "AGENT.example.com:8443", "agent.example.com:8443"),
    ],
)
def test_a_host_may_be_written_in_other_letters(public_url: str, host: str, signed_host: str) -> None:
    headers = signed(f"https://{signed_host}/voice/incoming", FIELDS, host=host, x_forwarded_proto="https")
    check(public_url).check_webhook(reached(headers), "/voice/incoming", headers, FIELDS)
    headers = signed("https://agent.example.org/voice/incoming", FIELDS, host=host, x_forwarded_proto="https")
    assert refusal(check(public_url), "/voice/incoming", headers, FIELDS)


@pytest.mark.parametrize("prefix", ["/agent", "/voice", "/a/b"])
def test_a_proxy_may_keep_the_prefix_of_the_public_url(prefix: str) -> None:
    """Also one that our own paths begin with."""
    base = f"https://a.example{prefix}"
    for kept in ("", prefix):
        target = f"{kept}/voice/incoming"
        check(base).check_webhook(OWN, target, signed(f"{base}/voice/incoming", FIELDS), FIELDS)
        assert refusal(check(base), target, signed(f"https://a.example/other{target}", FIELDS), FIELDS)
        check(base).check_stream(OWN, f"{kept}/media-stream", signed(f"wss://a.example{prefix}/media-stream"))


@pytest.mark.parametrize("public_url", ["https://user:secret@a.example", "https://a.example"])
@pytest.mark.parametrize("login", ["", "user:secret@"])
def test_the_url_may_have_been_signed_with_or_without_its_credentials(public_url: str, login: str) -> None:
    """They are in the public URL, or in the Authorization header that Twilio makes of them."""
    headers = {"authorization": f"Basic {b64encode(b'user:secret').decode()}"}
    headers |= signed(f"https://{login}a.example/voice/incoming", FIELDS)
    check(public_url).check_webhook(OWN, "/voice/incoming", headers, FIELDS)
    headers |= signed("https://user:other@a.example/voice/incoming", FIELDS)
    assert refusal(check(public_url), "/voice/incoming", headers, FIELDS).kind == "signature_wrong"


@pytest.mark.parametrize("authorization", ["Basic", "Basic \xff", "Basic ////", "Bearer YQ==", "basic YQ", ""])
def test_no_authorization_header_breaks_the_check(authorization: str) -> None:
    headers = signed("https://a.example/voice/incoming", FIELDS) | {"authorization": authorization}
    check("https://a.example").check_webhook(OWN, "/voice/incoming", headers, FIELDS)
    assert refusal(check("https://a.example"), "/voice/status", headers, FIELDS)


SHARED = "secret of a shared key"
SHA256 = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"


def signed_by_key(url: str, settings: str = SHA256, secret: str = SHARED, algorithm: str = "HMAC_SHA256") -> Any:
    signature = RequestValidator(secret).compute_signature(url, FIELDS, algorithm)
    return {"x-twilio-signature": signature, "x-twilio-webhooks-signature-settings": settings}


def test_a_shared_key_signs_with_the_algorithm_it_names() -> None:
    url = "https://a.example/voice/incoming"
    checker = SignatureCheck(TOKEN, "https://a.example", allow_unsigned=False, shared_key=SHARED)
    checker.check_webhook(OWN, "/voice/incoming", signed_by_key(url), FIELDS)
    checker.check_webhook(OWN, "/voice/incoming", signed(url, FIELDS), FIELDS)
    SignatureCheck(None, "https://a.example", allow_unsigned=False, shared_key=SHARED).check_webhook(
        OWN, "/voice/incoming", signed_by_key(url), FIELDS
    )
    for wrong in (
        signed_by_key(url, secret=TOKEN),
        signed_by_key(url, algorithm="HMAC_SHA1"),
        signed_by_key(url, settings=""),
        signed_by_key("https://a.example/voice/status"),
        signed_by_key(url, settings="key=k,algorithm=HMAC_MD5"),
    ):
        assert refusal(checker, "/voice/incoming", wrong, FIELDS).kind == "signature_wrong"


def test_without_a_shared_key_s_secret_the_auth_token_is_tried() -> None:
    url = "https://a.example/voice/incoming"
    check("https://a.example").check_webhook(OWN, "/voice/incoming", signed_by_key(url, secret=TOKEN), FIELDS)
    assert (
        "TWILIO_WEBHOOK_KEY"
        in refusal(check("https://a.example"), "/voice/incoming", signed_by_key(url), FIELDS).detail
    )


def test_a_handshake_without_tls_on_loopback() -> None:
    check().check_stream(OWN, "/media-stream", signed("ws://127.0.0.1:8080/media-stream", host="127.0.0.1:8080"))


def test_fields_sent_twice_are_both_signed() -> None:
    fields = ImmutableMultiDict([("CallSid", "CA1"), ("Tag", "b"), ("Tag", "a")])
    signature = RequestValidator(TOKEN).compute_signature("https://a.example/voice/status", fields)
    check("https://a.example").check_webhook(OWN, "/voice/status", {"x-twilio-signature": signature}, fields)


@pytest.mark.parametrize(
    ("change", "target"),
    [({"From": "+1666"}, "/voice/incoming"), ({"Extra": "1"}, "/voice/incoming"), ({}, "/voice/status")],
)
def test_a_changed_request_is_refused(change: dict[str, str], target: str) -> None:
    headers = signed("https://a.example/voice/incoming", FIELDS)
    assert refusal(check("https://a.example"), target, headers, FIELDS | change).kind == "signature_wrong"


def test_a_signature_of_another_account_is_refused_even_when_unsigned_requests_are_allowed() -> None:
    headers = signed("https://a.example/voice/incoming", FIELDS, token="another")  # noqa: S106
    for allow in (False, True):
        checker = check("https://a.example", allow_unsigned=allow)
        assert refusal(checker, "/voice/incoming", headers, FIELDS).kind == "signature_wrong"


def test_without_an_auth_token_everything_is_refused_with_what_to_set() -> None:
    error = refusal(
        check(token=None), "/voice/incoming", signed("https://a.example/voice/incoming", FIELDS), FIELDS
    )
    assert error.kind == "unsigned"
    assert "TWILIO_AUTH_TOKEN" in error.detail
    assert "AGENT_ALLOW_UNSIGNED" in error.detail


def test_unsigned_requests_pass_only_when_allowed() -> None:
    assert refusal(check(), "/voice/incoming", {"host": "a.example"}, FIELDS).kind == "unsigned"
    check(allow_unsigned=True).check_webhook(OWN, "/voice/incoming", {"host": "a.example"}, FIELDS)
    check(token=None, allow_unsigned=True).check_webhook(OWN, "/voice/incoming", {"host": "a.example"}, FIELDS)


@pytest.mark.parametrize("host", ["", "a:b", "[::1", "a b", "ü.example", "a:99999999999", "@", "x" * 5000])
@pytest.mark.parametrize("signature", ["x", "", "\N{HEBREW LETTER SHIN}", "RSOYDt4T1cUTdK1PDd93/VVr8B8="])
def test_no_host_header_or_signature_breaks_the_check(host: str, signature: str) -> None:
    assert refusal(check(), "/voice/incoming", {"host": host, "x-twilio-signature": signature}, FIELDS)


def test_nothing_a_stranger_says_decides_which_url_was_signed() -> None:
    """DO-2. A signature for another server of the account does not fit here because Host names that one."""
    headers = signed("https://other.example.com/voice/incoming", FIELDS, host="other.example.com")
    assert refusal(check(), "/voice/incoming", headers, FIELDS).kind == "signature_wrong"
    check().check_webhook(OWN, "/voice/incoming", signed(f"{OWN}/voice/incoming", FIELDS), FIELDS)


def test_stream_url() -> None:
    assert stream_url("https://a.example/p", "/media-stream") == "wss://a.example/p/media-stream"
    assert stream_url("http://127.0.0.1:1", "/media-stream") == "ws://127.0.0.1:1/media-stream"
