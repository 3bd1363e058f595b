"""Errors that a user can do something about are said in one sentence."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.core.errors import AgentError, SettingsError, TenantError, first_error

USAGE_ERROR: Final = 2
FAILED: Final = 1


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Wrong settings, tenants and usage exit with 2, other errors raised on purpose and the system's with 1.

    Programming mistakes keep their traceback.
    """
    failed: BaseException | None = None
    status = 0
    try:
        yield
    except* (SettingsError, TenantError) as group:
        failed, status = group, USAGE_ERROR
    except* (AgentError, OSError) as group:
        failed, status = group, FAILED
    # Behind the clauses: Python 3.11.2 wraps what is raised in one of them in a group.
    if failed is not None:
        print(f"call-agent: {first_error(failed)}", file=sys.stderr, flush=True)  # noqa: T201 - the command's output
        sys.exit(status)
