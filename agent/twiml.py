"""What we tell Twilio to do with a call, in TwiML.

After ``<Connect>`` nothing follows: when our socket closes, Twilio would run it, and a ``<Pause>`` there
leaves the caller on a dead line.
"""

from __future__ import annotations

from typing import Final

from twilio.twiml.voice_response import Connect, VoiceResponse

TOKEN_PARAMETER: Final = "token"  # noqa: S105 - the parameter's name, not a token
BUSY_WORDS: Final = "All our lines are busy right now. Please call again in a few minutes. Goodbye."

NOBODYS_WORDS: Final = "The number you have called is not in use. Goodbye."


def connect_stream(url: str, token: str) -> str:
    """Connect the call's audio, both ways, to the WebSocket at ``url``; ``token`` comes back in ``start``."""
    connect = Connect()
    connect.stream(url=url).parameter(name=TOKEN_PARAMETER, value=token)
    return str(VoiceResponse().append(connect))


def refuse_politely(words: str = BUSY_WORDS) -> str:
    """Say why nobody can take the call, and hang up: the caller would take silence for a broken line."""
    response = VoiceResponse()
    response.say(words)
    response.hangup()
    return str(response)


def dial(number: str) -> str:
    """Connect the caller to ``number`` (E.164); the call ends with that conversation."""
    response = VoiceResponse()
    response.dial(number)
    return str(response)


def hang_up() -> str:
    """End the call at once: for an answering machine that was called."""
    response = VoiceResponse()
    response.hangup()
    return str(response)
