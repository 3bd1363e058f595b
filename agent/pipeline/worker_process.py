"""A process that does post-call work and nothing else: any number of them share one Postgres."""

import signal
from typing import Any, Final

import trio

from agent.core.event_log import EventLog, open_logging
from agent.core.settings import Settings
from agent.core.telemetry import Telemetry
from agent.pipeline.backends import open_backends
from agent.pipeline.worker import Worker
from agent.store import open_database

GRACE_S: Final = 20.0
"""How long the steps under way may take after the first signal; what is left is begun again by another worker."""


async def work(
    settings: Settings,
    telemetry: Telemetry | None = None,
    fields: dict[str, Any] | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Work until SIGTERM or SIGINT; started once the database is there. The second signal ends it at once.

    ``fields`` are in all events. Runs in the main thread (signals). Raises DatabaseError.
    """
    telemetry = telemetry or Telemetry()
    with (
        open_logging(settings.log_level, settings.log_format, telemetry, show_numbers=settings.log_numbers),
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
    ):
        events = EventLog(telemetry, fields or {})
        async with (
            open_database(settings, events, max_size=settings.worker_calls + 2) as database,
            open_backends(settings) as backends,
        ):
            worker = Worker(database, backends, events, settings.worker_calls)
            print(f"call-agent works on post-call steps as {worker.name}", flush=True)  # noqa: T201 - its output
            task_status.started()
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    async for number in signals:
                        events.emit("SIGNAL", signal=signal.Signals(number).name)
                        nursery.cancel_scope.deadline = trio.current_time() + GRACE_S
                        worker.stop()
                        break
                    async for _ in signals:
                        nursery.cancel_scope.cancel(reason="a second signal")

                nursery.start_soon(watch)
                await worker.run()
                nursery.cancel_scope.cancel(reason="the worker has stopped")
