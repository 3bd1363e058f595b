"""What the caller heard of each answer: the transcript has it, and the model is told (PL-8). Pure.

An answer that is cut off waits here for its ``clear``: what was heard is computed at the instant that is written
(docs/decisions.md, 7). The model is then told of each of its items where it ended; one of which nothing was heard
is deleted, because the provider refuses to truncate at 0.
"""

from collections.abc import Iterable

import attrs

from agent.audio.generation import Generation, Part, heard_text
from agent.call.answers.response_requests import ResponseRequests
from agent.call.memory.transcript import Transcript
from agent.core.units import ItemId
from agent.model import requests
from agent.playout import PlayoutClock


@attrs.define(eq=False)
class TruncationLedger:
    """The end of every answer of one call."""

    playout: PlayoutClock
    transcript: Transcript
    requests: ResponseRequests
    _cut: list[Generation] = attrs.field(factory=list)

    def cut_off(self, generations: Iterable[Generation]) -> None:
        """They were interrupted; ``cleared`` follows."""
        self._cut.extend(generations)

    def cleared(self, now: float) -> None:
        """The carrier was told to clear: tell the model what was heard, and keep it."""
        cut, self._cut = self._cut, []
        for generation in cut:
            heard_ms = min(self.playout.heard_ms(generation.id, now), generation.received_ms)
            # Spoken into after its last word: a barge-in, but nothing of it was cut off.
            generation.interrupted = heard_ms < generation.received_ms or not generation.response_done
            self.transcript.agent_spoke(generation, heard_ms, complete=generation.response_done)
            for part in generation.parts:
                self._end(generation, part, part.heard_of(heard_ms))
            self._correct_retold(generation, heard_ms)
            self.playout.forget(generation.id)

    def withdrawn(self, generation: Generation) -> None:
        """Nothing of it was or will be heard: the model is told so, and the transcript has none of it."""
        for part in generation.parts:
            self._end(generation, part, 0)
        self.playout.forget(generation.id)

    def _correct_retold(self, generation: Generation, heard_ms: int) -> None:
        """A session was told of an answer that still played, and then it was cut off: tell it what was heard."""
        item_id = self.requests.turns.session.retold.pop(generation.id, None)
        if item_id is not None and generation.interrupted:
            heard = [heard_text(part, part.heard_of(heard_ms), complete=True) for part in generation.parts]
            self.requests.tell(requests.encode_item_delete(item_id, self.requests.next_event_id()))
            words = " ".join(text for text in heard if text)
            if words:
                self.requests.tell(requests.encode_text_item("assistant", words, self.requests.next_event_id()))

    def heard_to_end(self, generation: Generation) -> None:
        """The caller heard the last frame."""
        self.transcript.agent_spoke(generation, generation.received_ms, complete=generation.response_done)
        if generation.overflowed and generation.parts:
            last = generation.parts[-1]
            self._end(generation, last, last.length_ms)
        self.playout.forget(generation.id)

    def ended_with_call(self, generation: Generation, now: float) -> None:
        """The call is over: it ends as heard up to now, and nobody is told any more."""
        heard_ms = min(self.playout.heard_ms(generation.id, now), generation.received_ms)
        generation.interrupted = heard_ms < generation.received_ms
        self.transcript.agent_spoke(generation, heard_ms, complete=generation.response_done)

    def came_late(self, generation: Generation, item_id: ItemId, content_index: int) -> None:
        """Audio of an answer that was cut off; if it begins an item that was not ended yet, none was heard."""
        if all(part.item_id != item_id for part in generation.parts):
            self._end(generation, generation.part_of(item_id, content_index), 0)

    def _end(self, generation: Generation, part: Part, heard_ms: int) -> None:
        """Tell the model that no more of an item was heard."""
        whole = generation.response_done and not generation.overflowed and heard_ms >= part.length_ms
        response = self.requests.turns.session.responses.get(generation.response_id)
        if whole or response is None or response.generation is not generation:
            return  # all of it was heard, or its items went with their session
        event_id = self.requests.next_event_id()
        self.requests.tell(
            requests.encode_truncate(part.item_id, part.content_index, heard_ms, event_id)
            if heard_ms
            else requests.encode_item_delete(part.item_id, event_id)
        )
