"""Importing tenants: three forms, all right or none taken, a second time changes nothing."""

import json
from pathlib import PurePath

import pytest

from agent.app.cli.tenants.files import Form, form_of, read_tenants
from agent.app.cli.tenants.view import as_json
from agent.core.errors import TenantError
from agent.core.tenant import Tenant, make_tenant

CSV = """name,id,numbers,services,language
Harbour Dental,,+15552223333;+15552224444,"implants; crowns, bridges",en
מרפאת שיניים,kfar-saba,+97297654321,,he
"""
JSON = """{"tenants": [
  {"name": "Harbour Dental", "numbers": ["+15552223333", "+15552224444"],
   "services": ["implants", "crowns, bridges"], "language": "en"},
  {"name": "מרפאת שיניים", "id": "kfar-saba", "numbers": "+97297654321", "language": "he"}]}"""
TOML = """
[[tenants]]
name = "Harbour Dental"
numbers = ["+15552223333", "+15552224444"]
services = ["implants", "crowns, bridges"]
language = "en"
[[tenants]]
name = "מרפאת שיניים"
id = "kfar-saba"
numbers = ["+97297654321"]
language = "he"
"""
EXPECTED = [
    Tenant(
        id="harbour-dental",
        name="Harbour Dental",
        numbers=("+15552223333", "+15552224444"),
        services=("implants", "crowns, bridges"),
        language="en",
    ),
    Tenant(id="kfar-saba", name="מרפאת שיניים", numbers=("+97297654321",), language="he"),
]


def faults(text: str, form: Form = "json", known: dict[str, Tenant] | None = None) -> list[str]:
    with pytest.raises(TenantError) as caught:
        read_tenants(text, form, known=known)
    assert str(caught.value).startswith("nothing was imported")
    return list(caught.value.faults) or [str(caught.value)]


@pytest.mark.parametrize(
    ("text", "form"), [(CSV, "csv"), (CSV.replace("\n", "\r\n"), "csv"), (JSON, "json"), (TOML, "toml")]
)
def test_three_forms_say_the_same(text: str, form: Form) -> None:
    assert read_tenants(text, form) == EXPECTED


def test_other_dividers_and_empty_lines() -> None:
    """As spreadsheets of other countries write them."""
    text = "name;numbers;services\nHarbour Dental;052-1234567;implants, crowns\n;;\n"
    [tenant] = read_tenants(text, "csv", default_region="IL")
    assert (tenant.numbers, tenant.services) == (("+972521234567",), ("implants", "crowns"))


def test_a_second_import_changes_nothing() -> None:
    """The generated secret stays too, whose receiver knows it."""
    text = '[{"name": "Harbour Dental", "webhook_url": "https://example.com/"}]'
    [first] = read_tenants(text)
    assert read_tenants(text, known={first.id: first}) == [first]


def test_a_row_changes_only_what_it_names() -> None:
    """In JSON null puts a field back; an empty cell of a CSV names nothing."""
    before = make_tenant(name="Harbour Dental", greeting="Hi", voice="cedar")
    known = {before.id: before}
    [after] = read_tenants('[{"id": "harbour-dental", "greeting": null, "language": "en"}]', known=known)
    assert (after.name, after.greeting, after.voice, after.language) == ("Harbour Dental", None, "cedar", "en")
    [same] = read_tenants("id,greeting\nharbour-dental,\n", "csv", known=known)
    assert same == before


def test_what_list_prints_is_imported_as_it_was() -> None:
    tenants = [make_tenant(name="A", webhook_url="https://example.com/", tools=[]), *EXPECTED]
    known = {tenant.id: tenant for tenant in tenants}
    for with_secret in (True, False):
        text = json.dumps([as_json(tenant, with_secret=with_secret) for tenant in tenants])
        assert read_tenants(text, known=known) == tenants


def test_every_wrong_row_is_named() -> None:
    rows = [
        {"name": "A", "numbers": "1"},
        {"name": "B"},
        {"name": 3},
        {"name": "B"},
        {"name": "C", "language": "xx"},
    ]
    found = faults(json.dumps(rows))
    assert [fault.split(": ")[:2] for fault in found] == [
        ["tenant 1 (A)", "numbers"],
        ["tenant 3", "name"],
        ["tenant 4 (B)", "id"],
        ["tenant 5 (C)", "language"],
    ]
    assert faults("name,numbers\nA,+15552223333\n\nB,x\n", "csv") == [
        "line 4: numbers: 'x' is not a number with + and country code, +15551234567"
    ]


def test_a_number_of_another_tenant() -> None:
    other = make_tenant(name="Other", numbers="+15552223333")
    known = {other.id: other}
    [fault] = faults(CSV, "csv", known)
    assert fault == "numbers: +15552223333 can belong to one tenant only, not to other and harbour-dental"
    moved = '[{"id": "other", "numbers": []}, {"name": "Harbour Dental", "numbers": "+15552223333"}]'
    assert [tenant.numbers for tenant in read_tenants(moved, known=known)] == [(), ("+15552223333",)]


@pytest.mark.parametrize(
    ("text", "form", "why"),
    [
        ("", "csv", "there is no tenant"),
        ("", "json", "not JSON"),
        ("[]", "json", "there is no tenant"),
        ("[" * 100_000, "json", "not JSON"),
        ('"x"', "json", "a list of tenants is expected"),
        ("[1]", "json", "a list of tenants is expected"),
        ("a = ", "toml", "not TOML"),
        ("tenants = 3", "toml", "a list of tenants is expected"),
        ("name,nums\nA,1", "csv", "'nums'; these do: id, name,"),
        ("name\nA,B", "csv", "line 2 has more cells"),
        ('name\n"A', "csv", "not CSV"),
    ],
)
def test_what_is_no_list_of_tenants(text: str, form: Form, why: str) -> None:
    [fault] = faults(text, form)
    assert why in fault


def test_the_form_is_in_the_name() -> None:
    assert form_of(PurePath("a/Clinics.CSV")) == "csv"
    with pytest.raises(TenantError, match=r"a\.xlsx is none of \.json, \.toml, \.csv"):
        form_of(PurePath("a.xlsx"))
