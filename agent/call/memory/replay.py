"""What tells a new session all that was said and heard so far, encoded when it happens and never again. Pure."""

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from agent.call.memory.ordered import Key, Ordered
from agent.core.records import Turn
from agent.core.units import ItemId
from agent.model import requests

WORDS_LOST: Final = "(The caller said something here that was lost with the connection.)"
"""Stands for a caller's turn that was not transcribed when its session ended."""
WORDS_UNKNOWN: Final = "(The caller said something here that was not transcribed.)"
"""Stands for any of the caller's turns where nobody writes down what they say."""


@attrs.define(eq=False)
class Replay:
    """The messages for a new session, in the order of what they tell."""

    transcribed: bool
    """Whether the sessions write down the caller's words."""
    next_event_id: Callable[[], str]
    _messages: Ordered[str] = attrs.field(factory=Ordered)
    _told: int = 0

    def turn(self, key: Key, turn: Turn) -> None:
        """A turn of the transcript, or what it is now: the words of it that were heard."""
        if turn.role == "agent":
            role, text = "assistant", turn.heard_text
        else:
            wordless = "" if turn.complete else WORDS_LOST if self.transcribed else WORDS_UNKNOWN
            role, text = "user", turn.text or wordless
        self._messages.put(key, self._message(role, text))

    def told(self, text: str, now: float) -> str:
        """The message that tells what the caller did without words."""
        message = self._message("user", text)
        self._told += 1
        self._messages.put((now, 2, self._told), message)
        return message

    def messages(self, live: Iterable[tuple[float, str, ItemId]]) -> list[str]:
        """All of it; ``live``: answers still to be heard, when each began, its words, and its item's id."""
        every = Ordered(self._messages.keys.copy(), self._messages.values.copy())
        for number, (began_s, text, item_id) in enumerate(live):
            every.put((began_s, 3, number), self._message("assistant", text, item_id))
        return [message for message in every.values if message]

    def _message(self, role: str, text: str, item_id: ItemId | None = None) -> str:
        """Empty: there is nothing to tell."""
        return requests.encode_text_item(role, text, self.next_event_id(), item_id) if text else ""
