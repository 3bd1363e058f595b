"""The embedded model's own process: ``python -m agent.local --port N``.

Prints one line, ``ready ws://127.0.0.1:PORT/v1/realtime``, when the networks are loaded and the port is open, or
``failed REASON``. It listens on loopback only and ends when its standard input closes, so that it never outlives
the process that started it; run by hand, Ctrl-D ends it.
"""

import argparse
import logging
import os
import sys
from functools import partial
from typing import Final

import trio

from agent.core.errors import SocketClosedError, WeightsError
from agent.local.session import run_session
from agent.local.speech.engines import Engines, LoadedEngines
from agent.wire.websocket import CLOSE_GRACE_S, MessageSocket, open_server_over

PATH: Final = "/v1/realtime"
MAX_SESSIONS: Final = 32
"""More than this one core cannot serve in time; the next client is answered 503."""
NICE: Final = 5
"""Lower priority than the agent's server: the pacing of calls comes before thinking."""
_log: Final = logging.getLogger(__name__)


async def serve(
    engines: Engines, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve sessions on 127.0.0.1:``port`` until cancelled; started with the port in use (0: any).

    An error in a session is logged and ends that session alone. Raises OSError if the port cannot be had.
    """
    sessions = trio.CapacityLimiter(MAX_SESSIONS)
    [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(partial(_run_connection, engines, sessions), [listener])


async def _run_connection(engines: Engines, sessions: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    """One client, behind a boundary: whatever goes wrong here, the other sessions go on."""
    await trio.lowlevel.checkpoint()
    try:
        async with open_server_over(stream) as handshake:
            if handshake.target.partition("?")[0] != PATH:
                await handshake.reject(404, f"The only path here is {PATH}.")
                return
            try:
                sessions.acquire_nowait()
            except trio.WouldBlock:
                await handshake.reject(503, f"All {MAX_SESSIONS} sessions are in use.")
                return
            try:
                await _run_accepted(engines, await handshake.accept())
            finally:
                sessions.release()
    except* (SocketClosedError, trio.BrokenResourceError, trio.TooSlowError):
        _log.debug("a client left during the handshake")
    except* Exception:  # noqa: BLE001  (the boundary of a session; the error is logged with its trace)
        _log.exception("a session failed")


async def _run_accepted(engines: Engines, socket: MessageSocket) -> None:
    """A session, and the close code that tells the client how it ended: 1000, or 1011 for our error."""
    code = 1011
    try:
        await run_session(socket, engines)
        code = 1000
    finally:
        with trio.move_on_after(2 * CLOSE_GRACE_S, shield=True):
            await socket.aclose(code)


async def run(port: int) -> int:
    """Load, serve, and end with standard input. The exit status."""
    status = 0
    await trio.lowlevel.checkpoint()
    try:
        engines = await trio.to_thread.run_sync(LoadedEngines.load)
        async with trio.open_nursery() as nursery:
            used = await nursery.start(serve, engines, port)
            _tell(f"ready ws://127.0.0.1:{used}{PATH}")
            while await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 4096, abandon_on_cancel=True):
                pass
            nursery.cancel_scope.cancel(reason="standard input closed")
    except* (ImportError, OSError, WeightsError) as group:
        _tell(f"failed {group.exceptions[0]}")
        status = 1
    return status


def _tell(line: str) -> None:
    """One line to the process that started this one."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """The command line of ``python -m agent.local``."""
    parser = argparse.ArgumentParser(prog="python -m agent.local", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.nice(NICE)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="embedded model: %(message)s")
    sys.exit(trio.run(run, arguments.port))
