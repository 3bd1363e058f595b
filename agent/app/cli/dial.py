"""An outbound call: Twilio phones the number and asks our running server what to do when it is answered."""

import re
from typing import Final

import httpx
import trio

from agent.app.cli.readiness import ask_readiness
from agent.carrier.rest import open_twilio_rest
from agent.core.errors import AgentError, SettingsError
from agent.core.settings import Settings
from agent.core.units import CallSid

REACH_S: Final = 10.0
E164: Final = re.compile(r"\+[1-9]\d{6,14}")
"""ITU-T E.164: at most 15 digits; the shortest international numbers have seven."""


class ServerUnreachableError(AgentError):
    """No server of ours answers at the public URL, so the called person would hear nothing."""


async def dial(settings: Settings, number: str, *, machine_detection: bool) -> CallSid:
    """Have Twilio call ``number``; returns when the call is queued, not when it is answered.

    Raises SettingsError (all that is missing at once), ServerUnreachableError, CarrierError.
    """
    _check_settings(settings, number)
    await _check_server(settings.public_url)
    with open_twilio_rest(settings) as rest:
        if rest is None:
            raise SettingsError("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are needed to dial")
        return await rest.create_call(
            number,
            url=f"{settings.public_url}/voice/outgoing",
            status_callback=f"{settings.public_url}/voice/status",
            machine_detection=machine_detection,
        )


def _check_settings(settings: Settings, number: str) -> None:
    wrong = []
    if not E164.fullmatch(number):
        wrong.append(f"NUMBER: {number!r} is not in E.164 form, such as +15551234567")
    for name, value, purpose in (
        ("TWILIO_ACCOUNT_SID", settings.twilio_account_sid, "the account that calls"),
        ("TWILIO_AUTH_TOKEN", settings.twilio_auth_token, "its token"),
        ("TWILIO_NUMBER", settings.twilio_number, "the number to call from"),
        ("AGENT_PUBLIC_URL", settings.public_url, "where Twilio reaches the running server"),
    ):
        if not value:
            wrong.append(f"{name}: not set ({purpose})")
    if wrong:
        raise SettingsError("cannot dial:\n  " + "\n  ".join(wrong))


async def _check_server(public_url: str) -> None:
    try:
        status, body = await ask_readiness(public_url, within_s=REACH_S)
    except (httpx.HTTPError, trio.TooSlowError) as error:
        raise ServerUnreachableError(
            f"no server answers at {public_url} ({type(error).__name__}): start `call-agent serve` and check "
            "the tunnel or proxy in front of it"
        ) from None
    if status != httpx.codes.OK:
        said = body.decode(errors="replace")[:200]
        raise ServerUnreachableError(
            f"the server at {public_url} takes no calls now: /readyz answers {status} {said}"
        )
