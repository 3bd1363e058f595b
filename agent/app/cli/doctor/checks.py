"""The doctor: looks at everything a working phone agent needs and says what to do about what is missing.

Every check is bounded and reads only; all run at once. Secrets are used, never shown.
"""

import errno
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime
from typing import Final

import attrs
import httpx
import openai
import trio

from agent.app.cli.doctor.database import examine_database
from agent.app.cli.doctor.findings import Finding, State
from agent.app.cli.readiness import ask_readiness
from agent.app.descriptors import MOST_ON_A_CORE, needed_for, raise_limit
from agent.carrier.rest import TwilioRest, open_twilio_rest
from agent.core.errors import CarrierError, LocalModelMissingError
from agent.core.settings import Settings
from agent.local.process import check_installed
from agent.pipeline.openai_client import open_openai_client

CHECK_S: Final = 10.0
SHORT_DAYS: Final = 60
"""Days before the end of a model from which on the doctor warns."""
FREE_BYTES: Final = 1_000_000_000
"""The doctor warns when less is free on the disk of the records."""
_MODELS: Final = ("model", "transcription_model", "summary_model", "recording_model")
"""The settings that name a model of the provider."""


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks at once; the findings come in a fixed order. Takes at most CHECK_S; raises nothing."""
    with open_twilio_rest(settings) as rest:
        checks: list[tuple[str, Callable[[], Awaitable[Finding | list[Finding]]]]] = [
            ("model", lambda: check_models(settings)),
            ("embedded model", lambda: check_local_extra(settings)),
            ("port", lambda: check_port(settings)),
            ("descriptors", lambda: check_descriptors(settings)),
            ("data directory", lambda: check_data_dir(settings)),
            ("database", lambda: examine_database(settings)),
            ("public URL", lambda: check_public_url(settings)),
            ("Twilio account", lambda: check_account(settings, rest)),
            ("Twilio number", lambda: check_number(settings, rest)),
        ]
        findings: dict[str, list[Finding]] = {}

        async def run(subject: str, check: Callable[[], Awaitable[Finding | list[Finding]]]) -> None:
            found: Finding | list[Finding] = Finding(
                "problem", f"no answer within {CHECK_S:.0f} s", "check the network"
            )
            with trio.move_on_after(CHECK_S):
                found = await check()
            listed = found if isinstance(found, list) else [found]
            findings[subject] = [attrs.evolve(one, subject=one.subject or subject) for one in listed]

        async with trio.open_nursery() as nursery:
            for subject, check in checks:
                nursery.start_soon(run, subject, check)
        return [finding for subject, _ in checks for finding in findings[subject]]


async def check_models(settings: Settings) -> list[Finding]:
    """Is the key good, and is every model in use there to stay? By the lightest request there is: their list."""
    url = settings.openai_base_url
    if settings.openai_api_key is None:
        return [Finding("ok", "no OPENAI_API_KEY: the embedded model answers")]
    async with open_openai_client(settings, request_s=CHECK_S) as client:
        try:
            models = await client.models.list()
        except openai.AuthenticationError:
            return [
                Finding("problem", f"{url} refuses the key", "set OPENAI_API_KEY to a valid key of the project")
            ]
        except openai.APIStatusError as error:
            detail = f"{url} answers HTTP {error.status_code}"
            return [Finding("problem", detail, "check OPENAI_BASE_URL and the account's limits")]
        except openai.APIError as error:
            detail = f"{url} cannot be reached: {error.message}"
            return [Finding("problem", detail, "check the network and OPENAI_BASE_URL")]
    # Older versions of the package know no such field, and servers like OpenAI's need not send it.
    listed = {model.id: getattr(model, "shutdown_date", None) for model in models.data}
    return judge_models(settings, listed, datetime.now(UTC).date())


def judge_models(settings: Settings, listed: Mapping[str, str | None], today: date) -> list[Finding]:
    """How long each model in use will be there; ``listed`` has the date each one ends, if one was announced.

    A server that lists nothing is believed to have them all.
    """
    in_use = [(name, model) for name in _MODELS if (model := getattr(settings, name))]
    found = [
        attrs.evolve(
            _judge_model(f"AGENT_{name.upper()}", model, listed or {model: None}, today),
            subject=name.replace("_", " "),
        )
        for name, model in in_use
    ]
    if not (settings.transcription_model or settings.record_calls):
        found.append(
            Finding(
                "todo",
                "none, and calls are not recorded: nobody writes down what callers say",
                "set AGENT_TRANSCRIPTION_MODEL, or AGENT_RECORD=1",
                "transcription model",
            )
        )
    return found


def _judge_model(setting: str, model: str, listed: Mapping[str, str | None], today: date) -> Finding:
    if model not in listed:
        detail = f"the key works, but its project has no {model}"
        return Finding("problem", detail, f"set {setting} to a model of the key's project")
    end = listed[model]
    if not end:
        return Finding("ok", f"{model}; no end of it is announced")
    advice = f"set {setting} to what https://developers.openai.com/api/docs/deprecations recommends instead"
    try:
        days = (date.fromisoformat(end) - today).days
    except ValueError:
        return Finding("todo", f"{model} ends on {end}, which is not a date", advice)
    if days < 0:
        return Finding("problem", f"{model} ended on {end}", advice)
    detail = f"{model} ends on {end}, in {days} days"
    return Finding("ok", detail) if days > SHORT_DAYS else Finding("todo", detail, advice)


async def check_local_extra(settings: Settings) -> Finding:
    """Are the embedded model's packages there? Looked up, not imported."""
    try:
        await trio.to_thread.run_sync(check_installed, abandon_on_cancel=True)
    except LocalModelMissingError as error:
        state: State = "problem" if settings.uses_embedded_model else "todo"
        return Finding(state, str(error), "run make setup, or set OPENAI_API_KEY")
    return Finding("ok", "the [local] extra is installed")


async def check_port(settings: Settings) -> Finding:
    """Can we listen, or do we already?"""
    where = f"{settings.host}:{settings.port}"
    try:
        listeners = await trio.open_tcp_listeners(settings.port, host=settings.host)
    except OSError as error:
        # trio raises one error for all addresses, each one's own in its cause.
        if errno.EADDRINUSE not in _errnos(error):
            return Finding("problem", f"cannot listen on {where}: {error}", "set AGENT_PORT or AGENT_HOST")
        local = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104
        if await _is_ours(f"http://{local}:{settings.port}") == "":
            return Finding("ok", f"a call-agent is serving on {where}")
        taken = f"{where} is taken by another program"
        return Finding("problem", taken, "stop what listens there, or set AGENT_PORT")
    for listener in listeners:
        await listener.aclose()
    return Finding("ok", f"{where} is free")


async def check_descriptors(settings: Settings) -> Finding:
    """May the server open as many files and sockets as its calls need?"""
    await trio.lowlevel.checkpoint()
    limit, needed = raise_limit(), needed_for(settings.max_calls)
    calls = settings.max_calls or MOST_ON_A_CORE
    if limit < needed:
        return Finding(
            "problem",
            f"{limit} files may be open at once, and {calls} calls need {needed}",
            f"raise the hard limit (ulimit -Hn, LimitNOFILE of systemd) to {needed}, or lower AGENT_MAX_CALLS",
        )
    return Finding("ok", f"{limit} files may be open at once; {calls} calls need {needed}")


async def check_data_dir(settings: Settings) -> Finding:
    """Can call records be written? A directory that does not exist yet is not made, only its place tried."""
    wanted = settings.data_dir.absolute()

    def write() -> int:
        place = next(path for path in (wanted, *wanted.parents) if path.exists())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"written by the doctor")
        return shutil.disk_usage(place).free

    try:
        free = await trio.to_thread.run_sync(write, abandon_on_cancel=True)
    except OSError as error:
        detail = f"{wanted} cannot be written: {error.strerror or error}"
        return Finding("problem", detail, "make it writable, or set AGENT_DATA_DIR")
    if free < FREE_BYTES:
        advice = "make room: a minute of a recording takes 2 MB"
        return Finding("todo", f"{wanted} is writable, but only {free // 1_000_000} MB are free", advice)
    return Finding("ok", f"{wanted} is writable")


async def check_public_url(settings: Settings) -> Finding:
    """Does the public URL lead to a running server of ours?"""
    url = settings.public_url
    if not url:
        await trio.lowlevel.checkpoint()
        return Finding(
            "todo",
            "AGENT_PUBLIC_URL is not set",
            "to be called by Twilio, set AGENT_PUBLIC_URL to the https URL that leads here (a tunnel will do)",
        )
    if trouble := await _is_ours(url):
        advice = "start call-agent serve, and point the proxy or tunnel at its port"
        return Finding("problem", f"{url}: {trouble}", advice)
    if not url.startswith("https:"):
        return Finding("todo", f"{url} leads here, but not encrypted", "Twilio's streams need https")
    return Finding("ok", f"{url} leads to a call-agent")


async def check_account(settings: Settings, rest: TwilioRest | None) -> Finding:
    """Are the Twilio credentials good?"""
    if rest is None:
        advice = "for real calls, set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
        await trio.lowlevel.checkpoint()
        if settings.allow_unsigned:
            return Finding("todo", "not set; unsigned requests are accepted", advice)
        refused = "not set; every webhook and stream will be refused"
        return Finding("todo", refused, f"{advice}; for development, AGENT_ALLOW_UNSIGNED=1")
    try:
        name = await rest.account_name()
    except CarrierError as error:
        return Finding("problem", str(error), "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
    if settings.allow_unsigned:
        accepted = f"{name}; but unsigned requests are accepted as well"
        return Finding("todo", accepted, "unset AGENT_ALLOW_UNSIGNED in production")
    return Finding("ok", name)


async def check_number(settings: Settings, rest: TwilioRest | None) -> Finding:
    """Does a call to our number come to us?"""
    number, wanted = settings.twilio_number, f"{settings.public_url}/voice/incoming"
    if rest is None or not number or not settings.public_url:
        advice = "set TWILIO_NUMBER and AGENT_PUBLIC_URL to have the number's webhook checked, and to dial out"
        await trio.lowlevel.checkpoint()
        return Finding("todo", "not checked", advice)
    try:
        webhook = await rest.incoming_number_webhook(number)
    except CarrierError as error:
        return Finding("problem", str(error), "check TWILIO_NUMBER")
    if webhook is None:
        return Finding("problem", f"{number} is not a number of this account", "check TWILIO_NUMBER")
    if webhook.url.rstrip("/") != wanted or webhook.method != "POST":
        found = f"{webhook.method} {webhook.url}" if webhook.url else "nothing"
        advice = f"in Twilio's console, set the number's 'A call comes in' to POST {wanted}"
        return Finding("problem", f"a call to {number} goes to {found}", advice)
    return Finding("ok", f"a call to {number} comes to us")


async def _is_ours(base: str) -> str:
    """Why ``base`` does not lead to a server of ours; empty when it does."""
    try:
        status, body = await ask_readiness(base, within_s=CHECK_S / 2)
    except (httpx.HTTPError, trio.TooSlowError) as error:
        return f"cannot be reached ({type(error).__name__})"
    except ValueError:
        return "is not a usable URL"
    try:
        is_ours = set(json.loads(body)) == {"ready"}
    except (ValueError, TypeError):
        is_ours = False
    return "" if is_ours else f"something else answers there (HTTP {status})"


def _errnos(error: BaseException | None) -> set[int]:
    """The error numbers of an OSError, of what caused it, and of all members of a group."""
    if error is None:
        return set()
    found = {error.errno} if isinstance(error, OSError) and error.errno else set()
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return found.union(*(_errnos(inner) for inner in (*members, error.__cause__)))
