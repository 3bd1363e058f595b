"""What comes after the demo's call: its tenant, the receiver of its webhook, and the wait for every step.

The database is the embedded Postgres in the agent's data directory, shared by the agent's process and this one.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from agent.app.cli.database import open_warnings
from agent.app.demo.checks import Received
from agent.app.demo.progress import Progress
from agent.app.demo.script import GREETING, INSTRUCTIONS
from agent.core.errors import AgentError
from agent.core.records import CallRecord
from agent.core.settings import Settings
from agent.core.tenant import Tenant, make_secret, make_tenant
from agent.core.units import CallSid
from agent.pipeline.webhook.call_completed import event_id
from agent.sim.serving import serve_app
from agent.sim.webhook_receiver import WebhookReceiver
from agent.store import Database, open_database
from agent.store.sql.tenants import put_tenant
from agent.store.sql.values import CallView, StepRow
from agent.store.sql.views import find_calls, record_of, show_call

AFTER_S: Final = 120.0
"""How long all steps together may take; most of the usual time is the transcription by the embedded Whisper."""
_POLL_S: Final = 0.25
_SETTLED: Final = ("done", "dead")


class AfterCallError(AgentError):
    """What comes after the call did not come to its end."""


@attrs.define(eq=False)
class AfterCall:
    """The demo's side of it."""

    database: Database
    receiver: WebhookReceiver
    tenant: Tenant

    async def follow(self, call_sid: CallSid, progress: Progress) -> CallView:
        """Tell of each step as it settles; the call when all have. Raises AfterCallError after AFTER_S."""
        told: dict[str, str] = {}
        view = None
        with trio.move_on_after(AFTER_S):
            while True:
                view = await self._view(call_sid)
                if view is not None:
                    _tell(view.steps, told, progress)
                    if view.line.postcall in _SETTLED:
                        return view
                await trio.sleep(_POLL_S)
        raise AfterCallError(f"what comes after the call was not done within {AFTER_S:.0f} s: {_left(view)}")

    async def record(self, view: CallView) -> CallRecord:
        """What the agent recorded of the call. Raises AfterCallError when the call did not end in order."""
        async with self.database.connection() as connection:
            record = await record_of(connection, view.line.id)
        if record is None:
            raise AfterCallError(f"the agent kept no record of the call, which ended as {view.line.outcome}")
        return record

    def received(self, call_sid: CallSid) -> Received:
        """What the receiver saw of the call's webhook."""
        return Received(self.receiver.times(event_id(call_sid)), self.receiver.unsigned)

    async def _view(self, call_sid: CallSid) -> CallView | None:
        async with self.database.connection() as connection:
            lines = await find_calls(connection, call_sid)
            return await show_call(connection, lines[0].id) if lines else None


@asynccontextmanager
async def open_after_call(data_dir: Path, number: str) -> AsyncIterator[AfterCall]:
    """Start the database and the receiver, and make ``number`` that of Harbour Dental. Raises DatabaseError."""
    # Not load_settings: nothing of the user's environment is meant for the demo.
    settings = Settings.model_construct(data_dir=data_dir, database_url=None)
    receiver = WebhookReceiver(make_secret())
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_app, receiver.make_app())
        tenant = harbour_dental(number, f"{url}/calls", receiver.secret)
        with open_warnings() as events:
            async with open_database(settings, events) as database:
                async with database.connection() as connection:
                    await put_tenant(connection, tenant)
                yield AfterCall(database, receiver, tenant)
        nursery.cancel_scope.cancel(reason="the demo is over")


def harbour_dental(number: str, webhook_url: str, secret: str) -> Tenant:
    """The business that is phoned."""
    return make_tenant(
        name="Harbour Dental",
        numbers=[number],
        language="en",
        time_zone="America/New_York",
        greeting=GREETING,
        instructions=INSTRUCTIONS,
        services=["check-up", "cleaning", "filling", "whitening"],
        webhook_url=webhook_url,
        webhook_secret=secret,
    )


def _tell(steps: Sequence[StepRow], told: dict[str, str], progress: Progress) -> None:
    for row in steps:
        if told.get(row.step) == row.state:
            continue
        told[row.step] = row.state
        if row.state == "running":
            progress.now(f"after the call: {row.step}")
        elif row.state != "pending":
            why = f": {row.error}" if row.error and row.state != "done" else ""
            progress.step(f"after the call: {row.step} {row.state}{why}")


def _left(view: CallView | None) -> str:
    if view is None:
        return "the call is not in the database"
    left = [f"{row.step} is {row.state}" for row in view.steps if row.state not in _SETTLED]
    return ", ".join(left) or f"the call is {view.line.postcall}"
