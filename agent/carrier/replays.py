"""The same request gets the same answer: signatures carry no time, so a captured one could be sent again (DO-2).

Twilio repeats requests too, when an answer was slow. Postgres remembers for all processes; the cache in front
decides alone while Postgres is away: a call is taken in any case.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import attrs
import msgspec
import psycopg
import trio

from agent.core.errors import AgentError
from agent.core.event_log import EventLog

KEEP_S: Final = 1.0
"""How long Postgres may take; Twilio's caller waits meanwhile."""
CACHED: Final = 10_000
"""Answers in the cache, about 1 KB each; Postgres has them all."""

FirstAnswer = Callable[[bytes, str], Awaitable[str]]
"""Keeps an answer for a key, unless there is one; returns the one that is kept. Raises AgentError, OSError,
psycopg.Error."""


def request_key(target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """What makes a request the same: its target (path and query) and all its fields, CallSid among them."""
    return hashlib.sha256(msgspec.json.encode([target, sorted(fields)])).digest()


def token_key(token: str) -> bytes:
    """The key of a stream token's use."""
    return hashlib.sha256(b"token " + token.encode()).digest()


@attrs.define(eq=False)
class Replays:
    """Remembers first answers."""

    events: EventLog
    life_s: float = 2 * 3600.0
    """How long: the longest call and an hour."""
    keep: FirstAnswer | None = None
    _cache: OrderedDict[bytes, tuple[float, str]] = attrs.field(factory=OrderedDict, repr=False)

    def known(self, key: bytes) -> str | None:
        """The first answer, as far as this process knows."""
        until_s, answer = self._cache.get(key, (0.0, ""))
        return answer if until_s > trio.current_time() else None

    async def first(self, key: bytes, answer: str) -> str:
        """The first answer to ``key``: an earlier one, or ``answer``, which is it from now on.

        Of two that ask at the same time one is first. A cancel may keep ``answer``.
        """
        known = self.known(key)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return known
        self._remember(key, answer)
        if self.keep is None:
            await trio.lowlevel.checkpoint()
            return answer
        try:
            with trio.fail_after(KEEP_S):
                answer = await self.keep(key, answer)
        except (AgentError, OSError, psycopg.Error, trio.TooSlowError) as error:
            self.events.emit_first("REPLAYS_IN_MEMORY", error=repr(error)[:200])
        self._remember(key, answer)
        return answer

    def _remember(self, key: bytes, answer: str) -> None:
        self._cache[key] = (trio.current_time() + self.life_s, answer)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
