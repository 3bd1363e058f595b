"""What an error of the model means for the call: end it, repair something, or nothing. Pure.

Source: the error codes of the Realtime API's ``error`` events and failed responses; unknown ones are recoverable,
because a call that goes on can still be ended, and an ended one cannot be resumed.
"""

import enum
from typing import Final


class Severity(enum.Enum):
    """What to do about an error."""

    FATAL = "fatal"
    """No request of this call can succeed: apologise and hang up."""
    RECONNECT = "reconnect"
    """This session is over, a new one may work."""
    RECOVERABLE = "recoverable"
    """One request failed; the call goes on."""
    IGNORABLE = "ignorable"
    """A race that was lost or a repeat; nothing is to be done."""


_FATAL: Final = frozenset(
    {
        "invalid_api_key",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "account_deactivated",
        "model_not_found",
        "invalid_model",
        "model_not_available",
        "permission_denied",
        "unsupported_country_region_territory",
    }
)
_RECONNECT: Final = frozenset({"session_expired", "session_closed"})
_IGNORABLE: Final = frozenset(
    {
        "response_cancel_not_active",
        "conversation_already_has_active_response",
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
    }
)


def severity(kind: str, code: str) -> Severity:
    """Classify by the error's ``code``, or by its ``type`` (``kind``) where the provider gives no code."""
    for name in (code, kind):
        if name in _FATAL:
            return Severity.FATAL
        if name in _RECONNECT:
            return Severity.RECONNECT
        if name in _IGNORABLE:
            return Severity.IGNORABLE
    return Severity.RECOVERABLE


def handshake_is_fatal(status: int) -> bool:
    """Whether an HTTP answer to the model's handshake makes trying again pointless (429 and 5xx do not)."""
    too_many_requests, timeout = 429, 408
    server_errors = 500
    return status < server_errors and status not in (too_many_requests, timeout)
