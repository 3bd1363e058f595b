"""Tenants (PC-5): what people write becomes what is kept, and everything wrong is named at once."""

from typing import Any

import attrs
import pytest

from agent.core.errors import TenantError
from agent.core.tenant import FIELDS, Tenant, change_tenant, make_tenant, shared_numbers

NUMBER = "+15552223333"
GREETING = "שלום\nאבא"
KEY = "whsec_0123456789abcdef"


def faults(**raw: Any) -> dict[str, str]:
    """What is wrong, by field."""
    with pytest.raises(TenantError) as caught:
        make_tenant(**{"name": "Harbour Dental", **raw})
    return dict(fault.split(": ", 1) for fault in caught.value.faults)


def test_a_name_is_enough() -> None:
    tenant = make_tenant(name="  Harbour Dental ")
    assert tenant == Tenant(id="harbour-dental", name="Harbour Dental")


def test_all_fields() -> None:
    tenant = make_tenant(
        id="kfar-saba",
        name="מרפאת שיניים",
        numbers=["+1 (555) 222-3333", "09-7654321"],
        default_region="il",
        language="he_il",
        time_zone="Asia/Jerusalem",
        greeting=GREETING,
        instructions="",
        voice="cedar",
        tools="end_call, book_table",
        transfer_numbers="tel:+972-9-7654322",
        services="implants; crowns, bridges",
        webhook_url="https://example.com:8443/calls?x=1",
        webhook_secret=KEY,
        delete_recordings="yes",
        lookup="Open",
        origins="https://Shop.example/, https://shop.example:8443, http://localhost:3000",
    )
    assert tenant == Tenant(
        id="kfar-saba",
        name="מרפאת שיניים",
        numbers=(NUMBER, "+97297654321"),
        language="he-IL",
        time_zone="Asia/Jerusalem",
        greeting=GREETING,
        instructions="",
        voice="cedar",
        tools=("end_call", "book_table"),
        transfer_numbers=("+97297654322",),
        services=("implants", "crowns, bridges"),
        webhook_url="https://example.com:8443/calls?x=1",
        webhook_secret=KEY,
        delete_recordings=True,
        lookup="open",
        origins=("https://shop.example", "https://shop.example:8443", "http://localhost:3000"),
    )


def test_everything_wrong_is_named_at_once() -> None:
    found = faults(
        id="Harbour Dental",
        numbers=["+1555222333", "hello", NUMBER],
        language="hebrew",
        time_zone="Mars/Olympus",
        greeting="a\x00b",
        voice="a\nb",
        tools=["book a table"],
        transfer_numbers=[15552223333],
        services={"implants": 1},
        webhook_url="ftp://example.com",
        webhook_secret=KEY[:9],
        delete_recordings="perhaps",
        lookup="yes",
        origins=["shop.example"],
        default_region="Israel",
        timezone="UTC",
    )
    assert set(found) == {*FIELDS, "default_region", "timezone"} - {"name", "instructions"}
    assert found["id"].endswith("such as harbour-dental")
    assert "'+1555222333' has the wrong length" in found["numbers"]
    assert "'hello' is not a number with + and country code" in found["numbers"]
    assert found["timezone"] == "there is no such field; did you mean time_zone?"


def test_the_message_has_a_line_for_each_fault() -> None:
    with pytest.raises(TenantError) as caught:
        make_tenant(language="xx")
    first, *rest = str(caught.value).splitlines()
    assert first == "the tenant cannot be used:"
    assert [line.split(":")[0] for line in rest] == ["  language", "  name"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("Jerusalem", "Asia/Jerusalem"),
        ("new york", "America/New_York"),
        ("Europe/Londn", "Europe/London"),
        ("america/new york", "America/New_York"),
    ],
)
def test_the_time_zone_that_was_meant(wrong: str, meant: str) -> None:
    assert faults(time_zone=wrong)["time_zone"].endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("zone", ["../../etc/passwd", "/etc/localtime", "localtime", "America", ""])
def test_a_time_zone_is_no_path(zone: str) -> None:
    assert "is not an IANA time zone" in faults(time_zone=zone)["time_zone"]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("+1 222 3333", "wrong length"),  # a local number: possible only for those who are there
        ("052-1234567", "not a number with +"),
        ("+1 555 222 3333 ext. 12", "extension"),
        ("+999 12345678", "not a number"),
        ("", "not a number"),
    ],
)
def test_numbers_that_cannot_be_called(number: str, why: str) -> None:
    assert why in faults(numbers=[number])["numbers"]


def test_the_same_number_twice() -> None:
    assert "there twice" in faults(numbers=[NUMBER, "+1 555 222 3333"])["numbers"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/calls", "is not encrypted"),
        ("https://user:word@example.com/calls", "user or password"),
        ("https:///calls", "not a URL of a web server"),
        ("https://example.com:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://example.com/a b", "not a URL of a web server"),
        ("example.com", "not a URL of a web server"),
    ],
)
def test_webhooks_that_cannot_be(url: str, why: str) -> None:
    assert why in faults(webhook_url=url)["webhook_url"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/", "http://localhost/x", "http://10.0.0.7", "http://hooks:80"]
)
def test_http_is_for_development(url: str) -> None:
    assert make_tenant(name="x", webhook_url=url).webhook_url == url


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ("https://shop.example/phone", "is not a site"),
        ("https://a.example;script-src *", "is not a site"),
        ("https://*.example", "is not a site"),
        ("null", "is not a site"),
        ("https://user@shop.example", "is not a site"),
        ("http://shop.example", "https is expected"),
    ],
)
def test_sites_that_may_not_phone(site: str, why: str) -> None:
    """What is taken goes into a Content-Security-Policy as it stands."""
    assert why in faults(origins=[site])["origins"]


def test_a_site_is_written_as_browsers_do() -> None:
    assert make_tenant(name="x", origins="https://Shop.example:443/").origins == ("https://shop.example",)


def test_a_webhook_has_a_secret_that_is_not_shown() -> None:
    one, two = (make_tenant(name="x", webhook_url="https://example.com/") for _ in range(2))
    assert one.webhook_secret is not None
    assert one.webhook_secret.startswith("whsec_")
    assert len(one.webhook_secret) > 40
    assert one.webhook_secret != two.webhook_secret
    assert one.webhook_secret not in repr(one)
    assert make_tenant(name="x").webhook_secret is None


def test_a_name_without_latin_letters_needs_an_id() -> None:
    with pytest.raises(TenantError, match="id: none can be made of the name"):
        make_tenant(name="מרפאה")


def test_no_tool_is_not_all_tools() -> None:
    assert make_tenant(name="x", tools=[]).tools == ()
    assert make_tenant(name="x").tools is None


def test_changing_keeps_what_is_not_named() -> None:
    before = make_tenant(name="x", numbers=NUMBER, webhook_url="https://example.com/", greeting="Hi")
    after = change_tenant(before, greeting=None, time_zone="Europe/London", numbers=["+1 555 222 4444"])
    assert after == attrs.evolve(before, greeting=None, time_zone="Europe/London", numbers=("+15552224444",))
    assert change_tenant(before, webhook_secret=None).webhook_secret not in (None, before.webhook_secret)


def test_what_is_kept_can_be_made_again() -> None:
    """Normalising twice changes nothing."""
    tenant = make_tenant(name="Ünïcode & Sons", numbers=NUMBER, language="PT_br", services=["a, b", "c"])
    assert change_tenant(tenant) == tenant


def test_numbers_of_two_tenants() -> None:
    one, two = make_tenant(name="one", numbers=NUMBER), make_tenant(name="two", numbers=NUMBER)
    [fault] = shared_numbers([one, two])
    assert fault == f"numbers: {NUMBER} can belong to one tenant only, not to one and two"
    assert not shared_numbers([one])
