"""One child as its parent sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from agent.app.processes.link import Link, open_pair
from agent.app.processes.messages import Birth

MODULE: Final = "agent.app.processes"
"""What a child runs."""
REAP_S: Final = 2.0
"""How long a killed process may take to be gone."""


@attrs.define(eq=False)
class Child:
    """A running process. Made by ``open_child``."""

    birth: Birth
    process: trio.Process
    link: Link
    ready: trio.Event = attrs.field(factory=trio.Event)
    figures: str = ""
    """What it last said."""
    reported: trio.Event = attrs.field(factory=trio.Event)
    """Set when it has said them since they were asked for."""

    @property
    def lives(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.process.returncode is None

    def ask_to_stop(self) -> None:
        """As a signal of the operator's does; again: hurry."""
        if self.lives:
            self.process.terminate()


@asynccontextmanager
async def open_child(birth: Birth, descriptors: Sequence[int]) -> AsyncIterator[Child]:
    """Start one, which is killed if it still runs when this is left. Raises OSError, NoSeveralError."""
    ours, theirs = open_pair()
    link = Link.over(ours)
    try:
        with theirs:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's signals are the parent's
            )
        try:
            await link.send(birth, descriptors)
            yield Child(birth, process, link)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(REAP_S, shield=True):
                await process.wait()
    finally:
        link.close()
