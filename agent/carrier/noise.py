"""What strangers can cause as often as they like: all is counted, of each kind one line a second is logged."""

import math
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from agent.core.event_log import EventLog, Level

SAID_EACH_S: Final = 1.0
_LONGEST: Final = 100


@attrs.define(eq=False)
class Noise:
    """Counts and logs; ``unsaid`` in a line is how often the same happened since the last one."""

    events: EventLog
    clock: Callable[[], float] = trio.current_time
    _said_s: dict[str, float] = attrs.field(factory=dict)
    _unsaid: dict[str, int] = attrs.field(factory=dict)

    def tell(self, event: str, level: Level = "info", **fields: Any) -> None:
        """Count ``event``, and log it unless it was within the last second; texts are cut."""
        if not self._may_say(event):
            self.events.count(event)
            return
        cut = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in fields.items()}
        self.events.emit(event, level, **cut, unsaid=self._unsaid.pop(event, 0))

    def exception(self, event: str, error: BaseException) -> None:
        """The same with a traceback, for what should not happen."""
        if self._may_say(event):
            self.events.exception(event, error)
        else:
            self.events.count(event)

    def _may_say(self, event: str) -> bool:
        now_s = self.clock()
        if now_s - self._said_s.get(event, -math.inf) < SAID_EACH_S:
            self._unsaid[event] = self._unsaid.get(event, 0) + 1
            return False
        self._said_s[event] = now_s
        return True
