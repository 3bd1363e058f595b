"""What post-call work talks to, simulated on loopback: carrier, OpenAI's REST API, a tenant's receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from ended_calls import change, make_record, rows

from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.settings import Settings, load_settings
from agent.core.steps import STEPS
from agent.core.telemetry import Telemetry
from agent.core.units import RecordingSid
from agent.pipeline.backends import open_backends
from agent.pipeline.webhook.call_completed import event_id
from agent.pipeline.worker import Worker
from agent.sim.carrier.rest.recordings import GeneratedSound
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.sim.model.rest import OpenAiRest
from agent.sim.serving import serve_app
from agent.sim.webhook_receiver import WebhookReceiver
from agent.store import open_database
from agent.store.pg import open_connection
from agent.store.sql.calls import keep_record

ACCOUNT_SID = "AC" + "0" * 32
TOKEN = "token"  # noqa: S105 - of an account that is not one
ALL_DONE = dict.fromkeys(STEPS, "done")
SECRET = "whsec_test"  # noqa: S105 - of a receiver that is not one


@attrs.define(eq=False)
class Outside:
    """The simulators, and the database that the work is in."""

    conninfo: str
    twilio: SimulatedTwilio
    openai: OpenAiRest
    receiver: WebhookReceiver
    environment: dict[str, str]
    """What a worker's process is set to."""

    def settings(self, data_dir: Path, **changes: Any) -> Settings:
        """The same for a worker in this process."""
        given = {name: value for name, value in self.environment.items() if name != "AGENT_DATA_DIR"}
        return load_settings(**{**given, "data_dir": data_dir, **changes})

    async def end_call(self, number: int = 1, *, recorded: bool = True, **changes: Any) -> CallRecord:
        """A call ends: its record is in the database, and its recording at the carrier."""
        record = make_record(number, **changes)
        if recorded:
            recording = self.twilio.recordings.made_up(record.call_sid, GeneratedSound(2.0))
            record = attrs.evolve(record, recording_sid=RecordingSid(recording.sid))
        async with open_connection(self.conninfo) as connection:
            await keep_record(connection, record)
            if recorded:
                await connection.execute("UPDATE calls SET due_at = now() WHERE call_sid = %s", [record.call_sid])
                await connection.execute("SELECT pg_notify('postcall', '')")
        return record

    def states(self, call_sid: str) -> dict[str, str]:
        """The state of each step of a call, in their order."""
        found = dict(
            rows(
                self.conninfo,
                "SELECT step, state FROM postcall_steps s JOIN calls c ON c.id = s.call_id WHERE call_sid = %s",
                call_sid,
            )
        )
        return {step: found[step] for step in STEPS}

    def open_calls(self) -> int:
        """How many calls have work left."""
        [(count,)] = rows(self.conninfo, "SELECT count(*) FROM calls WHERE due_at IS NOT NULL")
        return int(count)

    async def until_done(self, within_s: float = 30.0) -> None:
        """Wait until nothing is left to do for any call."""
        with trio.fail_after(within_s):
            while await trio.to_thread.run_sync(self.open_calls):  # noqa: ASYNC110 - asked from outside
                await trio.sleep(0.02)

    def taken(self, call_sid: Any) -> int:
        """How often the receiver took the webhook of a call."""
        return self.receiver.times(event_id(call_sid))


@asynccontextmanager
async def open_outside(conninfo: str) -> AsyncIterator[Outside]:
    """Start the simulators, and give the default tenant its webhook."""
    openai, receiver = OpenAiRest(record=False), WebhookReceiver(SECRET)
    async with (
        open_simulated_twilio(
            agent_url="http://127.0.0.1:1", auth_token=TOKEN, account_sid=ACCOUNT_SID
        ) as twilio,
        trio.open_nursery() as nursery,
    ):
        openai_url = await nursery.start(serve_app, openai.make_app())
        receiver_url = await nursery.start(serve_app, receiver.make_app())
        change(
            conninfo,
            "UPDATE tenants SET webhook_url = %s, webhook_secret = %s WHERE id = 'default'",
            f"{receiver_url}/calls",
            SECRET,
        )
        environment = {
            "DATABASE_URL": conninfo,
            "OPENAI_API_KEY": "test",
            "OPENAI_BASE_URL": f"{openai_url}/v1",
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_API_URL": twilio.api_url,
            "AGENT_ALLOW_INWARD_WEBHOOKS": "1",
        }
        yield Outside(conninfo, twilio, openai, receiver, environment)
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def open_worker(outside: Outside, data_dir: Path, **changes: Any) -> AsyncIterator[Worker]:
    """A worker at work; cancelled when left."""
    settings = outside.settings(data_dir, **changes)
    events = EventLog(Telemetry())
    async with (
        open_database(settings, events) as database,
        open_backends(settings) as backends,
        trio.open_nursery() as nursery,
    ):
        worker = Worker(database, backends, events, settings.worker_calls)
        nursery.start_soon(worker.run)
        yield worker
        nursery.cancel_scope.cancel(reason="the worker is left")


def check_all_once(outside: Outside, call_sids: list[Any]) -> None:
    """Every call completed, every effect there once, the webhook at least once."""
    for call_sid in call_sids:
        assert outside.states(call_sid) == ALL_DONE
        assert outside.taken(call_sid) >= 1
    count = len(call_sids)
    assert rows(outside.conninfo, "SELECT count(*), count(DISTINCT phone) FROM leads") == [(count, count)]
    assert set(outside.receiver.counts) == {event_id(call_sid) for call_sid in call_sids}
    assert not outside.receiver.changed, "the same facts are the same bytes"
    left = "SELECT count(*) FROM calls WHERE due_at IS NOT NULL OR claim IS NOT NULL"
    assert rows(outside.conninfo, left) == [(0,)]
