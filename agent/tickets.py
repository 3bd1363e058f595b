"""What the webhook knew about a call, and the token that carries it to the call's media stream.

The webhook that answers a call and the WebSocket that carries its audio are two connections. The token says,
signed, which call the stream may serve; Twilio hands it back in ``start.customParameters``. It lives for a
minute and works once.
"""

from __future__ import annotations

from typing import Literal

import attrs

from agent.units import CallSid


@attrs.frozen
class CallTicket:
    """What the webhook knew about the call; ``caller`` and ``called`` are E.164 numbers or empty."""

    call_sid: CallSid
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
