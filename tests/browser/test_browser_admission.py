"""Who may phone from a browser: by default this machine, and each token once."""

import pytest

from agent.browser.admission import TOKEN_LIFE_S, TOKENS_A_MINUTE, BrowserAdmission
from agent.core.errors import AdmissionError

SITE = "https://shop.example"
LOCAL = {"host": "localhost:8080", "origin": "http://localhost:8080"}


def kind(check: object, *arguments: object) -> str:
    """What kind of refusal it is."""
    assert callable(check)
    with pytest.raises(AdmissionError) as refused:
        check(*arguments)
    return refused.value.kind


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "127.0.0.9"])
def test_this_machine_may_phone(peer: str, host: str) -> None:
    assert BrowserAdmission().check(peer, {"host": host}) == ""


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.168.1.5", LOCAL),
        ("", LOCAL),
        ("127.0.0.1", {**LOCAL, "x-forwarded-for": "192.168.1.5"}),
        ("127.0.0.1", {"host": "agent.example.com"}),
        ("127.0.0.1", {"host": "rebound.example:8080", "origin": "http://rebound.example:8080"}),
        ("127.0.0.1", {}),
    ],
)
def test_nobody_else_may_unless_sites_are_named(peer: str, headers: dict[str, str]) -> None:
    """A proxy on this machine does not make a stranger local, nor does a name that leads here."""
    assert kind(BrowserAdmission().check, peer, headers) == "browser_remote"


def test_behind_a_public_url_an_address_of_this_machine_proves_nothing() -> None:
    assert kind(BrowserAdmission(is_public=True).check, "127.0.0.1", LOCAL) == "browser_remote"


def test_a_page_of_another_site_may_not_phone() -> None:
    """Not even on this machine: any site one visits could."""
    assert kind(BrowserAdmission().check, "127.0.0.1", {**LOCAL, "origin": SITE}) == "browser_origin"
    assert kind(BrowserAdmission().check, "127.0.0.1", {**LOCAL, "origin": "null"}) == "browser_origin"


def test_sites_that_are_named_may_from_anywhere() -> None:
    admission = BrowserAdmission(frozenset({SITE}))
    own = {"host": "agent.example.com", "origin": "https://agent.example.com"}
    assert admission.check("203.0.113.7", {**own, "origin": SITE}) == SITE
    assert admission.check("203.0.113.7", own) == own["origin"]
    assert kind(admission.check, "203.0.113.7", {**own, "origin": "https://evil.example"}) == "browser_origin"


def test_a_tenants_sites_phone_it_and_nobody_else() -> None:
    """The handshake, which names no tenant, takes the sites of all; the token is of one."""
    sites = {"clinic": frozenset({SITE}), "": frozenset[str](), None: frozenset({SITE})}
    admission = BrowserAdmission(frozenset({"https://operator.example"}), sites.get)
    asked = {"host": "agent.example.com", "origin": SITE}
    assert admission.check("203.0.113.7", asked, "clinic") == SITE
    assert admission.check("203.0.113.7", asked) == SITE
    assert kind(admission.check, "203.0.113.7", asked, "") == "browser_origin"
    assert kind(admission.check, "203.0.113.7", asked, "nobody") == "browser_tenant"
    operators = {**asked, "origin": "https://operator.example"}
    assert admission.check("203.0.113.7", operators, "clinic") == "https://operator.example"


def test_a_token_works_once_for_its_site_and_not_for_long() -> None:
    admission = BrowserAdmission()
    token = admission.issue("127.0.0.1", SITE, "acme", 100.0)
    assert kind(admission.admit, token, "http://localhost", 101.0) == "token_origin"
    assert kind(admission.admit, token + "x", SITE, 101.0) == "token_forged"
    assert kind(admission.admit, "", SITE, 101.0) == "token_forged"
    assert kind(admission.admit, "\u05d0.b", SITE, 101.0) == "token_forged"
    assert kind(admission.admit, token, SITE, 100.0 + TOKEN_LIFE_S) == "token_expired"
    assert admission.admit(token, SITE, 101.0).tenant == "acme"
    assert kind(admission.admit, token, SITE, 101.0) == "token_reused"
    assert kind(BrowserAdmission().admit, token, SITE, 101.0) == "token_forged"


def test_an_address_gets_so_many_tokens_a_minute() -> None:
    admission = BrowserAdmission()
    for number in range(TOKENS_A_MINUTE):
        admission.issue("203.0.113.7", SITE, "", float(number))
    assert kind(admission.issue, "203.0.113.7", SITE, "", 30.0) == "browser_rate"
    assert admission.issue("203.0.113.8", SITE, "", 30.0)
    assert admission.issue("203.0.113.7", SITE, "", 61.0)
