"""Settings: where they come from, what is refused, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import AliasChoices, ValidationError

from agent.core.errors import SettingsError
from agent.core.settings import Settings, load_settings

SECRET = "sk-very-secret"  # noqa: S105 - not one


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours is set, and there is no ``.env``."""
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        for name in field.validation_alias.choices:
            monkeypatch.delenv(str(name), raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.port == 8080
    assert settings.lead_ms == 100
    assert settings.uses_embedded_model


def test_every_wrong_setting_is_named_at_once_as_a_user_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "AGENT_PORT": "http",
        "AGENT_PUBLIC_URL": "agent.example.com",
        "AGENT_TRUSTED_PROXIES": "127.0.0.1, proxy.example",
        "OPENAI_REALTIME_URL": "https://api.openai.com",
        "AGENT_TURN_DETECTION": "magic",
        "AGENT_VAD_THRESHOLD": "1.5",
        "AGENT_LEAD_MS": "-1",
        "AGENT_MAX_CALLS": "0",
        "AGENT_LOG_LEVEL": "loud",
        "TWILIO_ACCOUNT_SID": "SK123",
        "TWILIO_NUMBER": "555-1234",
        "DEBUG_TX": "perhaps",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    named = {line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]}
    assert named == set(wrong)
    assert "https://agent.example.com" in str(caught.value), "it says what would be right"


def test_calls_have_no_number_unless_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """NB-6: the processor says how many there may be."""
    monkeypatch.setenv("AGENT_MAX_CALLS", "")
    assert load_settings().max_calls is None
    monkeypatch.setenv("AGENT_MAX_CALLS", "7")
    assert load_settings().max_calls == 7


def test_the_operators_port_is_on_loopback_or_has_a_token() -> None:
    with pytest.raises(SettingsError, match="AGENT_ADMIN_TOKEN"):
        load_settings(admin_host="0.0.0.0")  # noqa: S104 - that is what is refused
    assert load_settings(admin_host="0.0.0.0", admin_token="a secret").admin_token  # noqa: S104, S106
    assert load_settings(admin_host="0.0.0.0", admin_port=0).admin_token is None  # noqa: S104


def test_a_wrong_override_is_named_like_the_variable() -> None:
    with pytest.raises(SettingsError, match="AGENT_PORT: "):
        load_settings(port=70_000)


def test_a_setting_that_is_wrong_does_not_betray_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("AGENT_PORT", "no")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", SECRET)
    settings = load_settings()
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == SECRET
    assert not settings.uses_embedded_model
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        assert SECRET not in shown


def test_an_empty_secret_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """``OPENAI_API_KEY=`` in a ``.env`` means there is no key."""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "")
    settings = load_settings()
    assert settings.openai_api_key is None
    assert settings.twilio_auth_token is None
    assert settings.uses_embedded_model


def test_overrides_beat_the_environment_which_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``.env`` is read from the directory the command is started in; None as an override means not given."""
    (tmp_path / ".env").write_text(
        'AGENT_PORT=1001\nAGENT_VOICE=cedar\nAGENT_GREETING="שלום"\nOTHER=1\n', "utf-8"
    )
    assert load_settings().port == 1001
    monkeypatch.setenv("AGENT_PORT", "1002")
    assert load_settings().port == 1002
    assert load_settings(port=None).port == 1002
    assert load_settings(port=1003).port == 1003
    assert load_settings().voice == "cedar"
    assert load_settings().greeting == "שלום"


def test_a_public_url_has_no_slash_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_PUBLIC_URL", "https://agent.example.com/")
    assert load_settings().public_url == "https://agent.example.com"


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1


def test_every_setting_says_what_it_is() -> None:
    """The table in the README is made from these."""
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
