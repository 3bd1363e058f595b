"""What Twilio tells of a media stream from its own side, and what its errors mean for us. Pure.

A stream that fails before it reaches us leaves no trace here but this callback: the caller hears the call end.
Source: https://www.twilio.com/docs/voice/twiml/stream (statusCallback) and the pages of the errors.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_CODE: Final = re.compile(r"\b319\d\d\b")
_MOST_TEXT: Final = 200
_MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "31901": (
        "Twilio asked for the stream and got no answer at all",
        "check that AGENT_PUBLIC_URL leads here from the internet, through proxy and firewall, on port 443",
    ),
    "31902": (
        "nobody listens where Twilio asked for the stream",
        "check that the server runs, and that AGENT_PUBLIC_URL and the proxy name its host and port",
    ),
    "31920": (
        "Twilio asked for the stream and the answer was no WebSocket",
        "look for STREAM_REFUSED in this log; if there is none, the proxy must pass on WebSocket upgrades of wss",
    ),
    "31921": (
        "the stream was closed from our side before the call was over",
        "look for this call's CALL_ENDED or CALL_ERROR in this log, and at the proxy's limit for long streams",
    ),
    "31924": (
        "Twilio got a message that breaks the WebSocket protocol or is none of its own",
        "see that no proxy changes the stream; if none is there, this is an error of ours: please report it",
    ),
    "31931": (
        "more audio was sent than Twilio keeps, and some of it was thrown away",
        "this is an error of ours, since at most AGENT_LEAD_MS is sent ahead: please report it",
    ),
}
_UNKNOWN: Final = ("the stream failed at Twilio's side", "see the code at https://www.twilio.com/docs/api/errors")


def stream_trouble(error: str) -> dict[str, Any]:
    """The fields to log of a ``StreamError``: its code if it names one, what it means and what to do."""
    found = _CODE.search(error)
    code = found.group() if found else ""
    meaning, advice = _MEANINGS.get(code, _UNKNOWN)
    return {"code": code, "error": error[:_MOST_TEXT], "meaning": meaning, "advice": advice}
