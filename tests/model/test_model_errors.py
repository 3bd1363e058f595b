"""What an error of the model means for the call."""

from __future__ import annotations

import pytest

from agent.model.errors import Severity, handshake_is_fatal, severity


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("invalid_request_error", "invalid_api_key", Severity.FATAL),
        ("insufficient_quota", "", Severity.FATAL),
        ("invalid_request_error", "model_not_found", Severity.FATAL),
        ("invalid_request_error", "session_expired", Severity.RECONNECT),
        ("invalid_request_error", "response_cancel_not_active", Severity.IGNORABLE),
        ("invalid_request_error", "conversation_already_has_active_response", Severity.IGNORABLE),
        ("invalid_request_error", "item_truncate_invalid_item_id", Severity.IGNORABLE),
        ("server_error", "", Severity.RECOVERABLE),
        ("invalid_request_error", "invalid_value", Severity.RECOVERABLE),
        ("", "", Severity.RECOVERABLE),
        ("never_seen_before", "neither", Severity.RECOVERABLE),
    ],
)
def test_errors_are_classified_by_code_and_else_by_type(kind: str, code: str, expected: Severity) -> None:
    assert severity(kind, code) is expected


def test_the_code_is_more_than_the_type() -> None:
    assert severity("insufficient_quota", "session_expired") is Severity.RECONNECT


@pytest.mark.parametrize(
    ("status", "fatal"), [(400, True), (401, True), (404, True), (408, False), (429, False), (500, False)]
)
def test_a_handshake_is_tried_again_where_that_may_help(status: int, *, fatal: bool) -> None:
    assert handshake_is_fatal(status) is fatal
