"""The transcript of one call, in memory: who said what, and what of it was heard (PL-8, NB-5). Pure."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import attrs

from agent.audio.generation import Generation, Purpose, heard_text
from agent.call.memory.ordered import Key, Ordered
from agent.core.records import Turn
from agent.core.units import ItemId

UNSETTLED: Final = 8
"""The agent's turns that the model may still change: it gives one answer at a time, a barge-in cuts off a few."""


@attrs.define(eq=False)
class _CallerTurn:
    key: Key
    """Begins with when it started."""
    item_id: ItemId
    ended_s: float | None = None
    text: str = ""
    transcribed: bool = False


@attrs.define(eq=False)
class _AgentTurn:
    key: Key
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
    on_turn: Callable[[Key, Turn], None] | None = None
    """Told of each turn and of each change of one, with its place among the others."""
    _caller: dict[ItemId, _CallerTurn] = attrs.field(factory=dict)
    """The caller's turns of the present session, by its ids; those of the next one are its own."""
    _uses: Counter[ItemId] = attrs.field(factory=Counter)
    """How many sessions used an id: a second turn under it gets one of its own."""
    any_caller_words: bool = False
    """Whether the caller's words in any turn are known."""
    _agent: deque[_AgentTurn] = attrs.field(factory=lambda: deque(maxlen=UNSETTLED))
    """The last ones; those before them do not change any more."""
    _turns: Ordered[Turn] = attrs.field(factory=Ordered)
    _begun: int = 0

    def caller_started(self, item_id: ItemId, now: float) -> None:
        """The caller began to speak."""
        self._put(self._caller_turn(item_id, now))

    def session_lost(self) -> None:
        """The ids of the session mean nothing to the next one."""
        self._caller.clear()

    def caller_stopped(self, item_id: ItemId, now: float) -> None:
        """The caller ended; also makes the turn if its start was missed."""
        turn = self._caller_turn(item_id, now)
        turn.ended_s = now
        self._put(turn)

    def caller_committed(self, item_id: ItemId, now: float) -> None:
        """The caller's turn is over."""
        turn = self._caller_turn(item_id, now)
        turn.ended_s = now
        self._put(turn, over=not self.live)

    @property
    def awaits_words(self) -> bool:
        """Whether the caller's last turn is over, and what was said in it is not known yet."""
        last = next(reversed(self._caller.values()), None)
        return self.live and last is not None and last.ended_s is not None and not last.transcribed

    def caller_said(self, item_id: ItemId, text: str, now: float) -> None:
        """The text of a caller's turn, whenever it comes."""
        turn = self._caller_turn(item_id, now)
        turn.text, turn.transcribed = text.strip(), True
        self.any_caller_words = self.any_caller_words or bool(turn.text)
        self._put(turn, over=True)

    def agent_spoke(self, generation: Generation, heard_ms: int, *, complete: bool) -> None:
        """A generation ended, heard to ``heard_ms``; kept if it had any audio or text, and is no tone of ours."""
        if not generation.parts or (generation.purpose is Purpose.PROMPT and not generation.text):
            return
        self._begun += 1
        turn = _agent_turn(generation, heard_ms, self._begun, complete=complete)
        self._agent.append(turn)
        self._put(turn, over=True)

    def being_heard(self, generation: Generation, heard_ms: int) -> Turn | None:
        """The turn of a generation that goes on, as it is now; None: there is nothing of it yet."""
        if not generation.parts:
            return None
        return self._of_agent(_agent_turn(generation, heard_ms, 0, complete=generation.response_done))

    def listen(self, listener: Callable[[Turn], None]) -> None:
        """Tell ``listener`` of the turns that are over, and from now on of each that will be."""
        self.listener = listener
        for turn in self.turns():
            if turn.role == "agent" or turn.complete or (turn.audio_ms and not self.live):
                listener(turn)

    def turns(self) -> tuple[Turn, ...]:
        """The transcript so far; a caller's turn without words (noise, not transcribed yet) has empty text."""
        for turn in self._agent:
            self._turns.put(turn.key, self._of_agent(turn))
        return tuple(self._turns.values)

    def _caller_turn(self, item_id: ItemId, now: float) -> _CallerTurn:
        """The turn of an item, begun here if it is new."""
        turn = self._caller.get(item_id)
        if turn is None:
            self._begun += 1
            self._uses[item_id] += 1
            again = self._uses[item_id]
            name = ItemId(f"{item_id}#{again}") if again > 1 else item_id
            turn = self._caller[item_id] = _CallerTurn((now, 0, self._begun), name)
        return turn

    def _put(self, turn: _CallerTurn | _AgentTurn, *, over: bool = False) -> None:
        made = self._of_caller(turn) if isinstance(turn, _CallerTurn) else self._of_agent(turn)
        self._turns.put(turn.key, made)
        if self.on_turn is not None:
            self.on_turn(turn.key, made)
        if over and self.listener is not None:
            self.listener(made)

    def _of_caller(self, turn: _CallerTurn) -> Turn:
        started_ms = self._ms(turn.key[0])
        # A turn of noise may be shorter than the end-point silence that is taken off it.
        length_ms = max(self._ms(turn.ended_s) - started_ms, 0) if turn.ended_s is not None else 0
        return Turn(
            role="caller",
            item_id=turn.item_id,
            text=turn.text,
            heard_text=turn.text,
            started_ms=started_ms,
            audio_ms=length_ms,
            heard_ms=length_ms,
            interrupted=False,
            complete=turn.transcribed,
        )

    def _of_agent(self, turn: _AgentTurn) -> Turn:
        generation = turn.generation
        return Turn(
            role="agent",
            item_id=generation.parts[0].item_id,
            text=generation.text,
            heard_text=" ".join(text for text in turn.heard if text),
            started_ms=self._ms(turn.key[0]),
            audio_ms=generation.received_ms,
            heard_ms=min(turn.heard_ms, generation.received_ms),
            interrupted=generation.interrupted,
            complete=generation.response_done,
        )

    def _ms(self, at_s: float) -> int:
        return round((at_s - self.answered_s) * 1000)


def _agent_turn(generation: Generation, heard_ms: int, begun: int, *, complete: bool) -> _AgentTurn:
    heard = [heard_text(part, part.heard_of(heard_ms), complete=complete) for part in generation.parts]
    began_s = generation.first_frame_s or generation.created_s
    return _AgentTurn((began_s, 1, begun), generation, heard_ms, heard)
