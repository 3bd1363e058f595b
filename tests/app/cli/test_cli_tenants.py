"""``call-agent tenants`` as a user types it, on a real Postgres."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.app.cli.app import app as cli

pytestmark = pytest.mark.sockets
NUMBER, OTHER = "+15552223333", "+15552224444"
URL = "https://example.com/calls"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("AGENT_", "OPENAI_", "TWILIO_", "DATABASE_URL", "DEBUG_TX")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATABASE_URL", postgres)
    return postgres


def tenants(*arguments: str, typed: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["tenants", *arguments], input=typed)
    return result.exit_code, result.output


def listed(*options: str) -> list[dict[str, object]]:
    status, text = tenants("list", "--json", *options)
    assert status == 0
    found: list[dict[str, object]] = json.loads(text)
    return found


def test_a_business_from_its_first_day(database: str) -> None:
    """Added with a generated secret that is shown once, listed, shown, edited."""
    status, text = tenants(
        "add", "Harbour Dental", "-n", "+1 (555) 222-3333", "--webhook-url", URL, "--tool", "none"
    )
    assert status == 0
    secret = next(word for word in text.split() if word.startswith("whsec_"))
    status, text = tenants("list")
    assert status == 0
    assert all(word in text for word in ("harbour-dental", NUMBER, URL, "default"))
    status, text = tenants("show", "harbour-dental")
    assert status == 0
    assert secret not in text
    assert secret[-4:] in text
    assert "tools              (none)" in text
    assert secret in tenants("show", "harbour-dental", "--secret")[1]
    status, text = tenants("edit", "harbour-dental", "--greeting", "שלום", "--number", OTHER, "--clear", "tools")
    assert status == 0
    for changed in ("(AGENT_GREETING) → ", "שלום", f"{NUMBER} → {OTHER}", "(none) → (all built in ones)"):
        assert changed in text
    [tenant] = [tenant for tenant in listed("--secret") if tenant["id"] == "harbour-dental"]
    assert (tenant["greeting"], tenant["numbers"], tenant["tools"]) == ("שלום", [OTHER], None)
    assert tenant["webhook_secret"] == secret
    assert "unchanged" in tenants("edit", "harbour-dental", "--greeting", "שלום")[1]


def test_a_new_secret(database: str) -> None:
    tenants("add", "A", "--webhook-url", URL, "--webhook-secret", "whsec_0123456789abcdef")
    status, text = tenants("edit", "a", "--clear", "webhook-secret")
    assert status == 0
    shown = next(line for line in text.splitlines() if line.startswith("The new webhook_secret: "))
    assert shown.endswith(str(listed("--secret")[0]["webhook_secret"]))


def test_a_tool_that_is_not_built_in_is_noted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = tenants("add", "A", "--tool", "end_call", "--tool", "book_table")
    assert (status, "call-agent: book_table: not built in" in text) == (0, True)
    assert "not built in" not in tenants("edit", "a", "--tool", "lookup_caller")[1]
    monkeypatch.setenv("AGENT_TOOLS", "tables")
    assert "not built in" not in tenants("edit", "a", "--tool", "book_table")[1]


def test_do_4_a_tenant_may_be_open(database: str) -> None:
    tenants("add", "A")
    status, text = tenants("edit", "a", "--lookup", "open")
    assert (status, "guarded \N{RIGHTWARDS ARROW} open" in text) == (0, True)
    assert "neither guarded nor open" in tenants("edit", "a", "--lookup", "closed")[1]
    assert tenants("edit", "a", "--clear", "lookup", "--origin", "https://A.example/")[0] == 0
    assert [tenant["origins"] for tenant in listed()] == [["https://a.example"], []]
    assert "is not a site" in tenants("edit", "a", "--origin", "a.example")[1]
    assert [tenant["lookup"] for tenant in listed()] == ["guarded", "guarded"]


def test_the_default_tenant_can_be_edited(database: str) -> None:
    assert tenants("edit", "default", "--greeting", "")[0] == 0
    assert "(empty: the caller begins)" in tenants("show", "default")[1]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["add"], 2, "name: is missing"),
        (["add", "B", "-n", "1", "--time-zone", "Jerusalem"], 2, "did you mean Asia/Jerusalem?"),
        (["add", "A"], 2, "there is a tenant a already (A): change it with call-agent tenants edit a"),
        (["add", "B", "-n", NUMBER], 2, f"{NUMBER} can belong to one tenant only, not to a and b"),
        (["show", "b"], 2, "there is no tenant b; there are: a, default"),
        (["edit", "b", "--voice", "cedar"], 2, "there is no tenant b"),
        (["edit", "a"], 2, "say what to change"),
        (["edit", "a", "--clear", "name"], 2, "--clear name: one of numbers, language"),
        (["edit", "a", "--voice", "x", "--clear", "voice"], 2, "voice: is both given and cleared"),
        (["edit", "default", "--number", NUMBER], 2, "can belong to one tenant only"),
        (["import", "missing.csv"], 2, "missing.csv"),
        (["import", "clinics.xls"], 2, "is none of .json, .toml, .csv"),
        (["import", "bytes.csv"], 2, "is not UTF-8 text"),
        (["edit", "a", "--instructions", "x", "--instructions-file", "bytes.csv"], 2, "not both"),
        (["edit", "a", "--instructions-file", "bytes.csv"], 2, "is not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_said(database: str, arguments: list[str], status: int, expected: str) -> None:
    """In words, with what is expected; and nothing is changed."""
    Path("clinics.xls").write_text("x")
    Path("bytes.csv").write_bytes(b"name\n\xff\xfe")
    tenants("add", "A", "-n", NUMBER)
    before = listed()
    found, text = tenants(*arguments)
    assert (found, expected in " ".join(text.replace("│", "").split())) == (status, True), text
    assert listed() == before


def test_import_says_what_it_changes_and_changes_nothing_in_a_dry_run(database: str) -> None:
    tenants("add", "Harbour Dental", "-n", NUMBER)
    tenants("add", "Other", "-n", OTHER)
    before = listed()
    Path("clinics.csv").write_text(
        "name,id,numbers\nמרפאת שיניים,kfar-saba,09-7654321\n"
        f"Harbour Dental,,{OTHER}\nOther,,{NUMBER}\n",  # two exchange their numbers
        encoding="utf-8-sig",
    )
    status, text = tenants("import", "clinics.csv", "--region", "IL", "--dry-run")
    assert status == 0
    assert "nothing was changed; it would be 1 new, 2 changed, 0 unchanged" in text
    assert f"{NUMBER} → {OTHER}" in text
    assert listed() == before
    status, text = tenants("import", "clinics.csv", "--region", "IL")
    assert (status, "imported: 1 new, 2 changed, 0 unchanged" in text) == (0, True)
    numbers = {tenant["id"]: tenant["numbers"] for tenant in listed()}
    expected = {"default": [], "harbour-dental": [OTHER], "kfar-saba": ["+97297654321"], "other": [NUMBER]}
    assert numbers == expected
    assert "0 new, 0 changed, 3 unchanged" in tenants("import", "clinics.csv", "--region", "IL")[1]


def test_a_file_with_one_wrong_row_imports_nothing(database: str) -> None:
    Path("clinics.json").write_text('[{"name": "A"}, {"name": "B", "language": "xx"}]')
    status, text = tenants("import", "clinics.json")
    assert (status, "tenant 2 (B): language: 'xx'" in text) == (2, True)
    assert [tenant["id"] for tenant in listed()] == ["default"]


def test_on_a_terminal_the_missing_is_asked_for(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then, and only what was not given."""
    monkeypatch.setattr("agent.app.cli.tenants.commands.is_terminal", lambda: True)
    status, text = tenants("add", "--language", "en", typed=f"Harbour Dental\n{NUMBER}\nEurope/London\n\n")
    assert status == 0
    assert "Language" not in text.partition("added")[0]
    [tenant] = [tenant for tenant in listed() if tenant["id"] != "default"]
    assert (tenant["name"], tenant["numbers"]) == ("Harbour Dental", [NUMBER])
    assert (tenant["language"], tenant["time_zone"], tenant["webhook_url"]) == ("en", "Europe/London", None)


def test_without_a_database_it_is_said_how_to_make_one() -> None:
    status, text = tenants("list")
    assert status == 1
    assert "there is no database in" in text
    assert "call-agent tenants add" in text
    assert list(Path().iterdir()) == []


def test_a_database_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.database.FIRST_TRIES_S", ())
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:very-secret@127.0.0.1:1/calls")
    status, text = tenants("list")
    assert (status, "no database at 127.0.0.1:1/calls" in text, "very-secret" in text) == (1, True, False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["tenants", "--help"], ["tenants", "add", "--help"], ["calls", "show", "--help"]]
)
def test_help_is_answered_without_the_heavy_half(arguments: list[str]) -> None:
    """No database driver, no numbering plans, no web server, no audio: --help is instant."""
    heavy = {"psycopg", "phonenumbers", "prometheus_client", "structlog", "httpx", "openai", "twilio", "fastapi"}
    program = (
        "import sys\nfrom agent.app.cli.app import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('imported:', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("imported: []\n")
