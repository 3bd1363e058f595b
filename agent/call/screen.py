"""What a caller with a screen sees of the call: each turn as it is heard, and what each answer took."""

from typing import Final

import trio

from agent.call.conversation import Conversation
from agent.call.memory.transcript import Transcript
from agent.core.caller_leg import Screen
from agent.core.records import Turn
from agent.playout import PlayoutClock

EVERY_S: Final = 0.1
"""How often it is looked at what was heard meanwhile: about half a word."""
LAST_TURNS: Final = 12
"""Turns that may still change."""


async def run_screen(conversation: Conversation, screen: Screen) -> None:
    """Show what has changed, until cancelled."""
    shown: dict[str, Turn] = {}
    while True:
        await trio.sleep(EVERY_S)
        for turn in _turns(conversation, trio.current_time()):
            if shown.get(turn.item_id) != turn:
                shown[turn.item_id] = turn
                screen.turn(turn)


def _turns(conversation: Conversation, now: float) -> list[Turn]:
    """The last turns, those that are being heard behind them."""
    transcript: Transcript = conversation.transcript
    playout: PlayoutClock = conversation.playout
    turns = list(transcript.turns()[-LAST_TURNS:])
    for generation in conversation.live:
        turn = transcript.being_heard(generation, playout.heard_ms(generation.id, now))
        if turn is not None and generation.sent_frames:
            turns.append(turn)
    return turns
