"""A child: ``python -m agent.app.processes DESCRIPTOR``, started by the parent and by nobody else."""

import signal
import socket
import sys
from typing import Final

import trio

from agent.app.cli.errors import errors_in_one_sentence
from agent.app.processes.board import Board
from agent.app.processes.link import Link, close_all
from agent.app.processes.membership import Member
from agent.app.processes.messages import Birth
from agent.core.errors import AgentError
from agent.core.settings import Settings, load_settings
from agent.core.task_nursery import open_task_nursery
from agent.wire.connection import drop

LAST_WORD_S: Final = 2.0


async def run_child(descriptor: int) -> None:
    """Be what the parent says, until it is over. Errors are those of ``serve`` and ``work``."""
    link = Link.over(socket.socket(fileno=descriptor))
    received = await link.receive()
    if received is None or not isinstance(birth := received[0], Birth):
        raise AgentError("the parent is gone")
    board, *listeners = received[1]
    member = Member(
        birth,
        link,
        Board.over(board),
        [_listener(each) for each in listeners[: birth.listeners]],
        [_listener(each) for each in listeners[birth.listeners :]],
    )
    close_all([board])
    settings = load_settings(**birth.settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to hear
    try:
        if birth.role == "calls":
            # Here, because a worker does without the memory.
            from agent.app.server import serve  # noqa: PLC0415

            await serve(settings, member)
        else:
            await _work(settings, member)
    finally:
        with trio.move_on_after(LAST_WORD_S, shield=True):
            await member.report()


async def _work(settings: Settings, member: Member) -> None:
    from agent.pipeline.worker_process import work  # noqa: PLC0415 - likewise

    async def gets_none(stream: trio.SocketStream, _: bytes) -> None:
        await drop(stream)

    async with open_task_nursery() as nursery:
        nursery.start_soon(member.run, gets_none)
        await work(settings, member.telemetry, member.fields)


def _listener(descriptor: int) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    with errors_in_one_sentence():
        trio.run(run_child, int(sys.argv[1]))
