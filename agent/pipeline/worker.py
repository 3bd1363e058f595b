"""The worker: claims ended calls and does what is due for them, in order, several calls at a time (DESIGN D10).

Postgres is the queue: any number of workers on any number of machines share it. A worker holds two connections of
its own. One listens; on the other it holds its claims, so that its death frees them at once. When either is lost
the worker lets go of everything, for somebody else may have it already, and begins again.
"""

import os
import random
import secrets
import socket
import time
from math import inf
from typing import Final

import attrs
import psycopg
import trio
from psycopg.rows import TupleRow

from agent.core.errors import ModelGoneError, NotReadyError, StepDeadError
from agent.core.event_log import EventLog
from agent.core.steps import MOST_INTERRUPTIONS, RETRY_POLICIES, look_again_s, next_step
from agent.pipeline.backends import Backends
from agent.pipeline.call_context import read_context
from agent.pipeline.maintenance import run_chores
from agent.pipeline.steps import STEP_FUNCTIONS, Found
from agent.store import AWAY, Database, open_listener
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import CHANNEL
from agent.store.sql.claims import (
    Claim,
    ClaimLostError,
    claim_call,
    due_calls,
    next_due_s,
    release_call,
    settle_due,
)
from agent.store.sql.ledger import Begun, fail_step, finish_step, hold_step, postpone_step, start_step, states_of

POLL_S: Final = 5.0
"""How often a worker looks for work that it was not notified of."""
RECONNECT_S: Final = 1.0
CLAIM_S: Final = 15.0
"""How long looking for work may take; a server that does not answer for longer counts as lost."""
RELEASE_S: Final = 2.0
"""How long each part of giving back a call may take."""
MAX_ERROR: Final = 500


def worker_name() -> str:
    """A name for this worker: host, process id, and random digits, as process ids are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"


@attrs.define(eq=False)
class Worker:
    """One worker. ``run`` works until ``stop`` is asked for, or until cancelled."""

    database: Database
    backends: Backends
    events: EventLog
    max_calls: int = 8
    name: str = attrs.field(factory=worker_name)
    _working: set[int] = attrs.field(factory=set)
    _wakeup: trio.Event = attrs.field(factory=trio.Event)
    _stopping: bool = False
    _away: bool = False
    """The database is, and that was said."""

    def stop(self) -> None:
        """Claim nothing more, finish the steps under way, and return from ``run``."""
        self._stopping = True
        self._wakeup.set()

    async def run(self) -> None:
        """Work until ``stop``. Outlives the absences of the database.

        A cancel ends the steps under way at once; they are begun again by whoever claims their calls next.
        """
        await self.database.ready.wait()
        while not self._stopping:
            try:
                await self._session()
            except* (*AWAY, psycopg.Error) as group:
                self._lost(group.exceptions[0])
            # The boundary of the worker: a mistake in it must not stop the calls of the server it may be in.
            except* Exception as group:  # noqa: BLE001
                self.events.exception("WORKER_ERROR", group)
                await trio.sleep(POLL_S)
            if not self._stopping:
                await trio.sleep(RECONNECT_S)

    def _lost(self, error: BaseException) -> None:
        """The database is away: said once, and counted until it is back, which WORKER_READY says."""
        if self._away:
            self.events.count("WORKER_RECONNECTS")
        else:
            self.events.emit("WORKER_RECONNECTS", "warning", error=_told(error))
        self._away = True

    async def _session(self) -> None:
        """Work for as long as both connections last."""
        async with (
            open_listener(self.database, CHANNEL) as listener,
            open_connection(self.database.conninfo) as claims,
        ):
            self._away = False
            self.events.emit("WORKER_READY", worker=self.name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, listener)
                nursery.start_soon(run_chores, self.database, self.backends, self.events)
                async with trio.open_nursery() as calls:
                    await self._dispatch(claims, calls)
                nursery.cancel_scope.cancel(reason="the worker stops")

    async def _listen(self, listener: Connection[TupleRow]) -> None:
        while True:
            await listener.notification()
            self._wakeup.set()

    async def _dispatch(self, claims: Connection[TupleRow], calls: trio.Nursery) -> None:
        """Claim what is due as far as there is room; sleep until something is, or somebody tells."""
        while not self._stopping:
            self._wakeup = trio.Event()
            with trio.move_on_after(CLAIM_S) as looking:
                due_s = await self._claim_due(claims, calls)
            if looking.cancelled_caught or claims.closed:
                raise psycopg.OperationalError("the connection that holds the claims was lost")
            with trio.move_on_after(min(POLL_S, inf if due_s is None else max(0.05, due_s))):
                await self._wakeup.wait()

    async def _claim_due(self, claims: Connection[TupleRow], calls: trio.Nursery) -> float | None:
        """Begin with what is due, as far as there is room; in how many seconds there will be more.

        Asked also if there is no room: it shows that the claims' connection lives.
        """
        room = self.max_calls - len(self._working)
        found = await due_calls(claims, self.max_calls * 2, self.backends.models)
        for call_id in [call_id for call_id in found if call_id not in self._working][:room]:
            claim = await claim_call(claims, call_id, self.name)
            if claim is not None:
                self._working.add(call_id)
                calls.start_soon(self._work, claims, claim)
        return await next_due_s(claims)

    async def _work(self, claims: Connection[TupleRow], claim: Claim) -> None:
        """Do what is due for one call, and give it back. Whatever goes wrong is this call's alone."""
        try:
            while not self._stopping and await self._next(claim):
                pass
        except ClaimLostError as error:
            self.events.emit("CLAIM_LOST", call_id=claim.call_id, error=str(error))
        except AWAY as error:
            self.events.emit("POSTCALL_INTERRUPTED", "warning", call_id=claim.call_id, error=_told(error))
            await trio.sleep(RECONNECT_S)
        # The boundary of a call's work: a mistake in it must not stop the others.
        except Exception as error:  # noqa: BLE001
            self.events.exception("POSTCALL_ERROR", error, call_id=claim.call_id)
            await trio.sleep(POLL_S)
        finally:
            try:
                with trio.move_on_after(RELEASE_S, shield=True):
                    await self._settle(claim)
                with trio.move_on_after(RELEASE_S, shield=True) as unlocking:
                    await self._unlock(claims, claim)
                if unlocking.cancelled_caught:
                    claims.close_now()
            finally:
                self._working.discard(claim.call_id)
                self._wakeup.set()

    async def _settle(self, claim: Claim) -> None:
        """Write down when the call is due next. If that fails it stays due, and whoever claims it next writes it.

        Not on the claims' connection: all calls share that, and a transaction belongs to one task.
        """
        try:
            async with self.database.connection() as connection:
                await settle_due(connection, claim)
        except ClaimLostError:
            pass  # somebody had it done again; the lock is still ours to give back
        except (*AWAY, psycopg.Error) as error:
            self.events.emit("NOT_SETTLED", "warning", call_id=claim.call_id, error=_told(error))

    async def _unlock(self, claims: Connection[TupleRow], claim: Claim) -> None:
        """Release the claim. If that fails the connection is closed, which releases it, and the session ends."""
        if claims.closed:
            return
        try:
            await release_call(claims, claim)
        except psycopg.Error as error:
            self.events.emit("NOT_RELEASED", "warning", call_id=claim.call_id, error=_told(error))
            claims.close_now()

    async def _next(self, claim: Claim) -> bool:
        """Do the next step; False if none is left, or it has to rest.

        When the call is due says when the next step is: what is told of a recording makes it due before its time.
        """
        async with self.database.connection() as connection:
            states = await states_of(connection, claim.call_id)
            step = next_step({name: row["state"] for name, row in states.items()})
            if step is None:
                return False
        began_s = trio.current_time()
        try:
            async with self.database.connection() as connection:
                begun = await start_step(connection, claim, step, self.name)
            outcome = await self._do(claim, step, begun)
        except BaseException as interruption:
            # Not `except Cancelled`: that may come in a group.
            if not isinstance(interruption, Exception):
                with trio.move_on_after(RELEASE_S, shield=True):
                    await self._put_back(claim, step)
            raise
        took_s = trio.current_time() - began_s
        telemetry = self.events.telemetry
        telemetry.postcall_steps.labels(step=step, outcome=outcome).inc()
        telemetry.postcall_seconds.labels(step=step).observe(took_s)
        self.events.emit(
            "POSTCALL_STEP",
            "warning" if outcome in ("failed", "waiting", "dead") else "info",
            call=claim.call_sid,
            step=step,
            outcome=outcome,
            attempt=begun.attempt,
            took_ms=round(took_s * 1000),
        )
        return outcome in ("done", "dead")

    async def _do(self, claim: Claim, step: str, begun: Begun) -> str:
        """One attempt at a step, and its result in the ledger; what became of it."""
        ended_at_s = 0.0
        try:
            if begun.interruptions >= MOST_INTERRUPTIONS:
                raise StepDeadError(f"its worker died {begun.interruptions} times under it")  # noqa: TRY301
            with trio.fail_after(RETRY_POLICIES[step].limit_s):
                async with self.database.connection() as connection:
                    facts = await read_context(connection, claim)
                ended_at_s = facts.call.ended_at.timestamp()
                found = await STEP_FUNCTIONS[step](facts, self.backends, self.database)
            await self._finish(claim, step, found)
        except ClaimLostError:
            raise
        except NotReadyError as error:
            return await self._postponed(claim, step, str(error), time.time() - ended_at_s)
        except ModelGoneError as error:
            async with self.database.connection() as connection:
                await hold_step(connection, claim, step, _told(error), error.model)
            return "waiting"
        # The boundary of a step: whatever it raises is a failed attempt, with its reason in the ledger.
        except Exception as error:  # noqa: BLE001
            return await self._failed(claim, step, begun.attempt, error)
        return "done"

    async def _finish(self, claim: Claim, step: str, found: Found) -> None:
        """Apply the effect of a step and write its result, in one transaction."""
        async with self.database.connection() as connection, connection.transaction():
            more = await found.effect(connection) if found.effect is not None else None
            await finish_step(connection, claim, step, {**found.result, **(more or {})})

    async def _put_back(self, claim: Claim, step: str) -> None:
        """Give a step back undone, since this worker stops or lost its claims. No attempt is counted."""
        try:
            async with self.database.connection() as connection:
                await postpone_step(connection, claim, step, "its worker was stopped", 0.0)
        except (*AWAY, psycopg.Error, ClaimLostError) as error:
            self.events.emit("NOT_PUT_BACK", "warning", call_id=claim.call_id, step=step, error=_told(error))

    async def _postponed(self, claim: Claim, step: str, why: str, since_end_s: float) -> str:
        """Put off a step that lacks something, for some hours at most. No attempt is counted."""
        rest_s = look_again_s(since_end_s)
        if rest_s is None:
            await self._fail(claim, step, f"{why}; it was waited for long enough", None)
            return "dead"
        async with self.database.connection() as connection:
            await postpone_step(connection, claim, step, why[:MAX_ERROR], rest_s)
        return "postponed"

    async def _failed(self, claim: Claim, step: str, attempt: int, error: Exception) -> str:
        retry = RETRY_POLICIES[step]
        jitter = random.random()  # noqa: S311 - spreads retries, hides nothing
        rest_s = None if isinstance(error, StepDeadError) else retry.rest_s(attempt, jitter)
        slow = isinstance(error, trio.TooSlowError)
        told = f"it took longer than {retry.limit_s:.0f} s" if slow else _told(error)
        await self._fail(claim, step, told, rest_s)
        return "dead" if rest_s is None else "failed"

    async def _fail(self, claim: Claim, step: str, error: str, rest_s: float | None) -> None:
        async with self.database.connection() as connection:
            await fail_step(connection, claim, step, error[:MAX_ERROR], rest_s)


def _told(error: BaseException) -> str:
    """An error in one line, for the ledger."""
    text = " ".join(str(error).split())
    return (text if text and not isinstance(error, (KeyError, ValueError)) else repr(error))[:MAX_ERROR]
