"""The transcript of one call, in memory: who said what, and what of it was heard (PL-8, NB-5). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs

from agent.audio.generation import Generation, heard_text
from agent.core.records import Turn
from agent.core.units import ItemId


@attrs.define(eq=False)
class _CallerTurn:
    item_id: ItemId
    started_s: float
    ended_s: float | None = None
    text: str = ""
    transcribed: bool = False


@attrs.define(eq=False)
class _AgentTurn:
    generation: Generation
    heard_ms: int
    heard: list[str]


@attrs.define(eq=False)
class Transcript:
    """Turns in the order they began; times are seconds since ``answered_s`` on the monotonic clock."""

    answered_s: float
    live: bool = True
    """Whether the session writes down the caller's words. If not, a turn is over when it was committed."""
    listener: Callable[[Turn], None] | None = None
    """Told of each turn when it is over and its words, if they will be, are known."""
    _caller: list[_CallerTurn] = attrs.field(factory=list)
    _by_item: dict[ItemId, _CallerTurn] = attrs.field(factory=dict)
    """The turns of the present session by its ids; those of the next one are its own."""
    _uses: Counter[ItemId] = attrs.field(factory=Counter)
    """How many sessions used an id: a second turn under it gets one of its own."""
    _agent: list[_AgentTurn] = attrs.field(factory=list)

    def caller_started(self, item_id: ItemId, now: float) -> None:
        """The caller began to speak."""
        self._turn(item_id, now)

    def _turn(self, item_id: ItemId, now: float) -> _CallerTurn:
        turn = self._by_item.get(item_id)
        if turn is None:
            self._uses[item_id] += 1
            again = self._uses[item_id]
            turn = _CallerTurn(ItemId(f"{item_id}#{again}") if again > 1 else item_id, now)
            self._by_item[item_id] = turn
            self._caller.append(turn)
        return turn

    def session_lost(self) -> None:
        """The ids of the session mean nothing to the next one."""
        self._by_item.clear()

    def caller_stopped(self, item_id: ItemId, now: float) -> None:
        """The caller ended; also makes the turn if its start was missed."""
        self._turn(item_id, now).ended_s = now

    @property
    def any_caller_words(self) -> bool:
        """Whether the caller's words in any turn are known."""
        return any(turn.text for turn in self._caller)

    def caller_committed(self, item_id: ItemId, now: float) -> None:
        """The caller's turn is over."""
        self.caller_stopped(item_id, now)
        if not self.live:
            self._tell(self._caller_turn(self._by_item[item_id]))

    def caller_said(self, item_id: ItemId, text: str, now: float) -> None:
        """The text of a caller's turn, whenever it comes."""
        turn = self._turn(item_id, now)
        turn.text, turn.transcribed = text.strip(), True
        self._tell(self._caller_turn(turn))

    def agent_spoke(self, generation: Generation, heard_ms: int, *, complete: bool) -> None:
        """A generation ended, heard to ``heard_ms``; kept if it had any audio or text."""
        if not generation.parts:
            return
        heard = [heard_text(part, part.heard_of(heard_ms), complete=complete) for part in generation.parts]
        turn = _AgentTurn(generation, heard_ms, heard)
        self._agent.append(turn)
        self._tell(self._agent_turn(turn, generation.first_frame_s or generation.created_s))

    def listen(self, listener: Callable[[Turn], None]) -> None:
        """Tell ``listener`` of the turns that are over, and from now on of each that will be."""
        self.listener = listener
        for turn in self.turns():
            if turn.role == "agent" or turn.complete or (turn.audio_ms and not self.live):
                listener(turn)

    def turns(self) -> tuple[Turn, ...]:
        """The transcript so far; a caller's turn without words (noise, not transcribed yet) has empty text."""
        caller = [(turn.started_s, self._caller_turn(turn)) for turn in self._caller]
        agent = [(turn.generation.first_frame_s or turn.generation.created_s, turn) for turn in self._agent]
        every = caller + [(started, self._agent_turn(turn, started)) for started, turn in agent]
        return tuple(turn for _, turn in sorted(every, key=lambda entry: entry[0]))

    def _tell(self, turn: Turn) -> None:
        if self.listener is not None:
            self.listener(turn)

    def _caller_turn(self, turn: _CallerTurn) -> Turn:
        length_ms = self._ms(turn.ended_s) - self._ms(turn.started_s) if turn.ended_s is not None else 0
        return Turn(
            role="caller",
            item_id=turn.item_id,
            text=turn.text,
            heard_text=turn.text,
            started_ms=self._ms(turn.started_s),
            audio_ms=length_ms,
            heard_ms=length_ms,
            interrupted=False,
            complete=turn.transcribed,
        )

    def _agent_turn(self, turn: _AgentTurn, started_s: float) -> Turn:
        generation = turn.generation
        return Turn(
            role="agent",
            item_id=generation.parts[0].item_id,
            text=generation.text,
            heard_text=" ".join(text for text in turn.heard if text),
            started_ms=self._ms(started_s),
            audio_ms=generation.received_ms,
            heard_ms=min(turn.heard_ms, generation.received_ms),
            interrupted=generation.interrupted,
            complete=generation.response_done,
        )

    def _ms(self, at_s: float) -> int:
        return round((at_s - self.answered_s) * 1000)
