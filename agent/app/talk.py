"""``call-agent talk``: serve on this machine only, and open the page in a browser."""

import os
import sys
import webbrowser
from typing import Final

import trio

from agent.app.server import serve
from agent.core.settings import Settings

OPEN_S: Final = 5.0
"""How long opening a browser may take; some are programs that stay."""


async def talk(settings: Settings, *, opens: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C; the page opens when calls can be taken. Errors are those of ``serve``."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve, settings)
        page = url.replace("127.0.0.1", "localhost") + "/"
        print(f"Talk to the agent: {page}", flush=True)  # noqa: T201 - the command's output
        if opens and _has_a_screen():
            with trio.move_on_after(OPEN_S):
                await trio.to_thread.run_sync(webbrowser.open, page, abandon_on_cancel=True)


def _has_a_screen() -> bool:
    """Without one a browser of letters would take the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
