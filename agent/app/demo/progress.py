"""What happens, while it happens: a line for each step, and on a terminal one live line below them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio
from rich.console import Console
from rich.status import Status
from rich.text import Text

from agent.sim.carrier.stream import SimulatedStream

_REFRESH_HZ: Final = 4.0
"""Drawing takes a millisecond in a thread, and the simulated carrier is in this process too."""


@attrs.define(eq=False)
class Progress:
    """Steps as lines; ``live`` is None where there is no terminal."""

    console: Console
    live: Status | None
    began_s: float

    def step(self, text: str) -> None:
        """Something happened."""
        passed_s = trio.current_time() - self.began_s
        self.console.print(Text(f"{passed_s:6.1f} s  ", "dim").append(Text(text)), soft_wrap=True)

    def now(self, text: str) -> None:
        """Something goes on; shown on terminals only."""
        if self.live is not None:
            self.live.update(Text(text))

    async def follow(self, stream: SimulatedStream) -> None:
        """Show who speaks on ``stream`` until cancelled."""
        while True:
            now = trio.current_time()
            speakers = {"caller": bool(stream.voice), "agent": stream.playback.audible(now)}
            speaking = " and ".join(who for who, speaks in speakers.items() if speaks)
            heard_s = stream.heard_ms() / 1000
            what = f"{speaking} speaking" if speaking else "silence"
            self.now(f"call {now - stream.started_s:4.1f} s  {what}, {heard_s:.1f} s of the agent heard")
            await trio.sleep(1 / _REFRESH_HZ)


@contextmanager
def open_progress(console: Console) -> Iterator[Progress]:
    """Show progress until left; must be entered under Trio."""
    if not console.is_terminal:
        yield Progress(console, None, trio.current_time())
        return
    with console.status("", refresh_per_second=_REFRESH_HZ) as live:
        yield Progress(console, live, trio.current_time())
