"""Settings: read from the environment and a ``.env`` file, validated once, every error named at once.

Names without the ``AGENT_`` prefix are those their owners use (OpenAI, Twilio). Secrets are ``SecretStr``: they
do not show up in logs, tracebacks or ``repr``.
"""

import os
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.core import provider_models
from agent.core.bounds import ModelBounds
from agent.core.errors import SettingsError

DEFAULT_REALTIME_URL: Final = "wss://api.openai.com/v1/realtime"
DEFAULT_GREETING: Final = "Hello, this is the assistant. How can I help you today?"
DEFAULT_INSTRUCTIONS: Final = (
    "You are a friendly receptionist on the phone. Answer in one or two short sentences. Ask for the caller's "
    "name and city, and what they need. When the caller says goodbye, say goodbye and call end_call."
)

_BOUNDS: Final = ModelBounds()
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def _is_url(value: str, *schemes: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in schemes and bool(parts.hostname)


_SHAPES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "public_url": (lambda value: _is_url(value, "https", "http"), "look like https://agent.example.com"),
    "realtime_url": (lambda value: _is_url(value, "wss", "ws"), "look like wss://host/v1/realtime"),
    "twilio_account_sid": (
        lambda value: value.startswith("AC") and value.isalnum(),
        "be an Account SID: AC and 32 hex digits",
    ),
    "twilio_number": (
        lambda value: value.startswith("+") and value[1:].isdigit(),
        "be a number in E.164 form, such as +15551234567",
    ),
}
"""What settings must be like, if they are not empty."""


def _named(default: Any, *names: str, description: str, **limits: Any) -> Any:
    """A field read from the first of ``names`` that is set."""
    return Field(default, validation_alias=AliasChoices(*names), description=description, **limits)


class Settings(BaseSettings):
    """Everything that can be set; the table in docs/settings.md is made from these descriptions."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True, frozen=True)

    # The server
    host: str = _named("0.0.0.0", "AGENT_HOST", description="Address to listen on")  # noqa: S104 - behind a proxy
    port: int = _named(8080, "AGENT_PORT", description="Port to listen on", ge=0, le=65535)
    browser: bool = _named(
        True,
        "AGENT_BROWSER",
        description="1: the page at / and browsers' calls; only this machine may phone unless origins are set",
    )
    browser_origins: str = _named(
        "",
        "AGENT_BROWSER_ORIGINS",
        description="Sites whose visitors may phone any tenant (https://shop.example), divided by commas; "
        "empty: only this machine, or with AGENT_PUBLIC_URL nobody, and the sites of each tenant",
    )
    public_url: str = _named("", "AGENT_PUBLIC_URL", description="Public https URL that Twilio reaches us by")
    trusted_proxies: str = _named(
        "",
        "AGENT_TRUSTED_PROXIES",
        description="Addresses and networks of proxies whose X-Forwarded-* is believed, divided by commas",
    )
    admin_host: str = _named(
        "127.0.0.1", "AGENT_ADMIN_HOST", description="Address of metrics and API description"
    )
    admin_port: int = _named(
        9090, "AGENT_ADMIN_PORT", description="Port of metrics and API description; 0: none", ge=0, le=65535
    )
    admin_token: SecretStr | None = _named(
        None,
        "AGENT_ADMIN_TOKEN",
        description="Bearer token for these, needed where AGENT_ADMIN_HOST is no loopback address",
    )
    data_dir: Path = _named(Path("data"), "AGENT_DATA_DIR", description="Directory of call records")
    last_resort_dir: Path | None = _named(
        None,
        "AGENT_LAST_RESORT_DIR",
        description="Where records go that no other place takes, best on another disk; empty: below /var/tmp",
    )
    allow_unsigned: bool = _named(
        False,
        "AGENT_ALLOW_UNSIGNED",
        description="1: accept requests without Twilio's signature (development and load tests only)",
    )
    max_calls: int | None = _named(
        None,
        "AGENT_MAX_CALLS",
        description="Calls at once, in all processes; more are refused. Empty: as many as the processor carries",
        ge=1,
    )
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=32)] = _named(
        1,
        "AGENT_PROCESSES",
        description="Processes that take calls, and share all else; auto: one for each core (docs/deploying.md)",
    )
    drain_s: float = _named(20.0, "AGENT_DRAIN_S", description="Seconds that calls may go on after SIGTERM", ge=0)
    log_level: Literal["debug", "info", "warning", "error"] = _named(
        "info", "AGENT_LOG_LEVEL", description="Least severe level that is logged"
    )
    log_format: Literal["auto", "console", "json"] = _named(
        "auto", "AGENT_LOG_FORMAT", description="auto: console on a terminal, JSON lines elsewhere"
    )
    log_numbers: bool = _named(
        False,
        "AGENT_LOG_NUMBERS",
        description="1: phone numbers are logged whole, not only their last two digits",
    )
    debug_tx: bool = _named(False, "DEBUG_TX", description="1: TX_METRICS and TX_HEARTBEAT always")

    # The model
    openai_api_key: SecretStr | None = _named(
        None, "OPENAI_API_KEY", description="Key of the OpenAI API; without one the embedded model answers"
    )
    openai_base_url: str = _named(
        "https://api.openai.com/v1", "OPENAI_BASE_URL", description="REST base URL of the OpenAI API"
    )
    realtime_url: str = _named(
        "", "OPENAI_REALTIME_URL", description=f"Realtime WebSocket (default {DEFAULT_REALTIME_URL})"
    )
    model: str = _named(provider_models.REALTIME, "AGENT_MODEL", description="Realtime model")
    voice: str = _named("marin", "AGENT_VOICE", description="Voice of the model")
    instructions: str = _named(DEFAULT_INSTRUCTIONS, "AGENT_INSTRUCTIONS", description="What the agent is told")
    greeting: str = _named(
        DEFAULT_GREETING, "AGENT_GREETING", description="First words of the agent; empty: the caller begins"
    )
    language: str = _named(
        "", "AGENT_LANGUAGE", description="Caller's language for the transcription, ISO 639-1 (empty: detect)"
    )
    turn_detection: Literal["server_vad", "semantic_vad"] = _named(
        "server_vad", "AGENT_TURN_DETECTION", description="How the end of the caller's turn is found"
    )
    vad_silence_ms: int = _named(
        400, "AGENT_VAD_SILENCE_MS", description="Silence that ends a turn (server_vad)", ge=100, le=5000
    )
    vad_threshold: float = _named(
        0.5, "AGENT_VAD_THRESHOLD", description="Sensitivity of server_vad, 0 to 1", ge=0, le=1
    )
    noise_reduction: Literal["near_field", "far_field", "off"] = _named(
        "near_field", "AGENT_NOISE_REDUCTION", description="Noise reduction of the model's input"
    )
    transcription_model: str = _named(
        provider_models.TRANSCRIPTION,
        "AGENT_TRANSCRIPTION_MODEL",
        description="Model that writes down the caller's words during the call; empty: the recording's are taken",
    )

    # The call
    lead_ms: int = _named(
        100,
        "AGENT_LEAD_MS",
        description="Audio the carrier holds ahead; 0: one frame per tick",
        ge=0,
        le=1000,
    )
    comfort_silence: bool = _named(
        False,
        "AGENT_COMFORT_SILENCE",
        description="1: send silence frames while the agent has nothing to say",
    )
    uplink_ms: int = _named(
        100,
        "AGENT_UPLINK_MS",
        description="Audio of a quiet line goes to the model in pieces of so much; 20: frame by frame, always",
        ge=20,
        le=200,
    )
    greeting_protect_ms: int = _named(
        500, "AGENT_GREETING_PROTECT_MS", description="Heard greeting that cannot be interrupted", ge=0
    )
    max_answer_s: float = _named(
        300.0, "AGENT_MAX_ANSWER_S", description="Most audio of a single answer, in seconds", gt=0
    )
    max_call_s: float = _named(
        3600.0, "AGENT_MAX_CALL_S", description="Longest call; a spoken goodbye ends it", gt=0
    )
    idle_prompt_s: float = _named(
        15.0, "AGENT_IDLE_PROMPT_S", description="Silence after which the agent asks; 0: never", ge=0
    )
    idle_prompts: int = _named(
        2, "AGENT_IDLE_PROMPTS", description="Questions into silence before the agent hangs up", ge=1
    )
    ping_s: float = _named(
        20.0, "AGENT_PING_S", description="Seconds between pings of the carrier; 0: none", ge=0
    )
    record_calls: bool = _named(
        True,
        "AGENT_RECORD",
        description="1: dual-channel recording by the carrier, started after the first frame",
    )

    # What the model may do (DO-4)
    max_tool_uses: int = _named(
        _BOUNDS.tool_uses, "AGENT_MAX_TOOL_USES", description="Uses of tools in one call, of all kinds", ge=0
    )
    max_appointments: int = _named(
        _BOUNDS.appointments, "AGENT_MAX_APPOINTMENTS", description="Appointments made in one call", ge=0
    )
    max_appointments_a_day: int = _named(
        _BOUNDS.appointments_a_day,
        "AGENT_MAX_APPOINTMENTS_A_DAY",
        description="Appointments made within 24 hours by calls from one number, or for one number",
        ge=0,
    )
    max_transfers: int = _named(
        _BOUNDS.transfers, "AGENT_MAX_TRANSFERS", description="Transfers tried in one call", ge=0
    )
    max_lookups: int = _named(
        _BOUNDS.lookups, "AGENT_MAX_LOOKUPS", description="Look-ups of the caller in one call", ge=0
    )
    other_numbers: Literal["confirmed", "any"] = _named(
        _BOUNDS.other_numbers,
        "AGENT_OTHER_NUMBERS",
        description="Numbers a tool may be given besides the caller's own: confirmed (said or keyed in), or any",
    )
    max_responses: int = _named(
        _BOUNDS.responses, "AGENT_MAX_RESPONSES", description="Responses of the model in one call", ge=1
    )
    max_text: int = _named(
        _BOUNDS.text, "AGENT_MAX_TEXT", description="Characters of transcript in one call, of both sides", ge=1000
    )

    # The carrier
    twilio_account_sid: str = _named("", "TWILIO_ACCOUNT_SID", description="Twilio account")
    twilio_auth_token: SecretStr | None = _named(
        None, "TWILIO_AUTH_TOKEN", description="Twilio auth token: REST calls and signature checks"
    )
    twilio_webhook_key: SecretStr | None = _named(
        None, "TWILIO_WEBHOOK_KEY", description="Secret of the shared key that signs webhooks, if one does"
    )
    twilio_number: str = _named("", "TWILIO_NUMBER", description="Number outbound calls come from (E.164)")
    twilio_api_url: str = _named(
        "https://api.twilio.com", "TWILIO_API_URL", description="REST base URL of the carrier"
    )

    # Who is called, and what happens after the call
    database_url: SecretStr | None = _named(
        None, "DATABASE_URL", description="Postgres, as libpq understands it; without one an embedded Postgres"
    )
    unknown_number: Literal["default", "refuse"] = _named(
        "default",
        "AGENT_UNKNOWN_NUMBER",
        description="A call to a number of no tenant: the default tenant takes it, or a polite refusal",
    )
    tools: str = _named(
        "", "AGENT_TOOLS", description="Python modules with tools of your own for the model, divided by commas"
    )
    worker: bool = _named(
        True, "AGENT_WORKER", description="1: serve does post-call work; 0: only call-agent worker does"
    )
    worker_calls: int = _named(
        8, "AGENT_WORKER_CALLS", description="Calls a worker works on at the same time", ge=1, le=100
    )
    summary_model: str = _named(
        provider_models.SUMMARY,
        "AGENT_SUMMARY_MODEL",
        description="Model that summarises calls and extracts particulars",
    )
    recording_model: str = _named(
        provider_models.RECORDING, "AGENT_RECORDING_MODEL", description="Model that transcribes recordings"
    )
    allow_inward_webhooks: bool = _named(
        False,
        "AGENT_ALLOW_INWARD_WEBHOOKS",
        description="1: tenants' webhooks may be on private and loopback addresses",
    )

    @field_validator("last_resort_dir", "max_calls", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("browser_origins")
    @classmethod
    def _origins_are_origins(cls, value: str) -> str:
        if not value:
            return value
        from agent.core.tenant_fields import read_origins  # noqa: PLC0415 - it takes 90 ms

        return ",".join(read_origins(value))

    @field_validator("public_url")
    @classmethod
    def _paths_come_behind_it(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator(*_SHAPES)
    @classmethod
    def _has_its_shape(cls, value: str, field: ValidationInfo) -> str:
        holds, expected = _SHAPES[str(field.field_name)]
        if value and not holds(value):
            raise ValueError(f"must {expected}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, value: str) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            ip_network(part)  # a ValueError says what is wrong
        return value

    @model_validator(mode="after")
    def _empty_secrets_are_none(self) -> Self:
        for name in ("openai_api_key", "twilio_auth_token", "twilio_webhook_key", "database_url", "admin_token"):
            secret = getattr(self, name)
            if secret is not None and not secret.get_secret_value():
                self.__dict__[name] = None
        return self

    @model_validator(mode="after")
    def _admin_needs_a_token_elsewhere(self) -> Self:
        if self.admin_port and self.admin_token is None and self.admin_host not in _LOOPBACK:
            raise ValueError(f"AGENT_ADMIN_HOST: {self.admin_host} is no loopback address; set AGENT_ADMIN_TOKEN")
        return self

    @property
    def bounds(self) -> ModelBounds:
        """What the model may do."""
        return ModelBounds(
            tool_uses=self.max_tool_uses,
            appointments=self.max_appointments,
            appointments_a_day=self.max_appointments_a_day,
            transfers=self.max_transfers,
            lookups=self.max_lookups,
            other_numbers=self.other_numbers,
            responses=self.max_responses,
            text=self.max_text,
        )

    @property
    def process_count(self) -> int:
        """How many processes take calls."""
        if self.processes != "auto":
            return self.processes
        return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 32)

    @property
    def uses_embedded_model(self) -> bool:
        """Whether the model on this machine answers: exactly when there is no key."""
        return self.openai_api_key is None

    @property
    def transcribes_calls(self) -> bool:
        """Whether the caller's words are written down during the call, as the embedded model always does."""
        return self.uses_embedded_model or bool(self.transcription_model)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (by field name) beat the environment, which beats ``.env``.

    Raises SettingsError naming every wrong setting at once, by the name a user would set.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        field = Settings.model_fields.get(name)
        alias = field.validation_alias if field else None
        shown = alias.choices[0] if isinstance(alias, AliasChoices) else name
        lines.append(f"{shown}: {problem['msg'].removeprefix('Value error, ')}")
    return "the settings cannot be used:\n  " + "\n  ".join(lines)
