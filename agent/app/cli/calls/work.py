"""What ``call-agent calls`` does: looks at the database, and asks workers to do work again."""

from datetime import UTC, datetime

from psycopg.rows import TupleRow
from rich.text import Text

from agent.app.cli.calls.view import call_as_json, line_as_json, other_party, tell_call, tell_list
from agent.app.cli.database import run_with_database
from agent.app.cli.output import open_console, print_json
from agent.app.cli.terminal_text import moment, read_since
from agent.core.errors import AgentError, SettingsError
from agent.core.records import Outcome
from agent.core.settings import Settings
from agent.core.steps import STEPS
from agent.store import Database
from agent.store.pg import Connection
from agent.store.sql.ledger import retry as retry_steps
from agent.store.sql.tenants import list_tenants
from agent.store.sql.values import CallLine, CallView
from agent.store.sql.views import find_calls, list_calls, show_call

CRASHED = "crashed"
"""The outcome of a call whose server did not live to say how it ended."""


class CallError(AgentError):
    """There is no such call, or more than one, or nothing to be done; the message says what to do."""


def list_all(
    *,
    tenant: str | None,
    since: str | None,
    outcome: str | None,
    open_: bool,
    dead: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Print the latest calls."""
    after = _since(since)
    outcomes = sorted([*(known.value for known in Outcome), CRASHED])
    if outcome is not None and outcome not in outcomes:
        raise SettingsError(f"there is no outcome {outcome}; there are: {', '.join(outcomes)}")
    states = [*(("active", "open", "waiting") if open_ else ()), *(("dead",) if dead else ())]

    async def work(_: Settings, database: Database) -> list[CallLine]:
        async with database.connection() as connection:
            if tenant is not None:
                await _check_tenant(connection, tenant)
            return await list_calls(
                connection, tenant_id=tenant, since=after, outcome=outcome, postcall=states, limit=limit
            )

    calls = run_with_database(work)
    if as_json:
        print_json([line_as_json(call) for call in calls])
    elif calls:
        open_console().print(tell_list(calls))
    else:
        narrowed = any((tenant, since, outcome, open_, dead))
        print("no call is like that" if narrowed else "there were no calls yet")  # noqa: T201


def show(call: str, *, as_json: bool) -> None:
    """Print everything about one call. Raises CallError."""

    async def work(_: Settings, database: Database) -> CallView:
        async with database.connection() as connection:
            line = await find_one(connection, call)
            view = await show_call(connection, line.id)
        if view is None:
            raise _unknown(call)
        return view

    view = run_with_database(work)
    if as_json:
        print_json(call_as_json(view))
        return
    open_console().print(tell_call(view, datetime.now(UTC)))


def retry(call: str, step: str | None) -> None:
    """Have failed, waiting and dead steps, or one whatever its state, done again. Raises CallError."""
    if step is not None and step not in STEPS:
        raise SettingsError(f"there is no step {step}; there are: {', '.join(STEPS)}")

    async def work(_: Settings, database: Database) -> tuple[CallLine, list[str]]:
        async with database.connection() as connection, connection.transaction():
            line = await find_one(connection, call)
            if line.postcall == "active":
                raise CallError(f"call {line.id} goes on: what comes after it begins when it has ended")
            reopened = await retry_steps(connection, line.call_sid, step)
            return line, sorted(reopened, key=STEPS.index)

    line, steps = run_with_database(work)
    if not steps:
        raise CallError(f"no step of call {line.id} has failed: name one with --step to have it done again")
    open_console().print(
        Text(f"call {line.id}: {', '.join(steps)} will be done again by a running serve or worker")
    )


async def find_one(connection: Connection[TupleRow], call: str) -> CallLine:
    """The call that is meant. Raises CallError, listing those that may be meant."""
    found = await find_calls(connection, call) if call else []
    if not found:
        raise _unknown(call)
    if len(found) > 1:
        candidates = [
            f"{line.id}  {line.call_sid}  {moment(line.answered_at, None)}  {other_party(line)}" for line in found
        ]
        raise CallError("\n  ".join([f"{call} may be any of these calls, be more exact:", *candidates]))
    return found[0]


async def _check_tenant(connection: Connection[TupleRow], tenant: str) -> None:
    known = [known.id for known in await list_tenants(connection)]
    if tenant not in known:
        raise CallError(f"there is no tenant {tenant}; there are: {', '.join(known)}")


def _unknown(call: str) -> CallError:
    return CallError(f"there is no call {call}: call-agent calls lists the latest, with their numbers")


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return read_since(text, datetime.now(UTC))
    except ValueError as error:
        raise SettingsError(f"--since: {error}") from None
