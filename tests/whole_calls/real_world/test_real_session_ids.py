"""Ids belong to the session that gave them: a later one may use the same again."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import trio
from conversation_driver import Talk
from fault_calls import open_faulty_call, record_of
from unkind_models import Desk, suppose
from virtual_call import counts, open_services

from agent.call.tools.declare import make_tool
from agent.model.server_shapes import Outbox
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone


def test_a_sentence_under_an_id_of_the_last_session_is_a_turn_of_its_own() -> None:
    """Whatever the second session calls the caller's item, both sentences are in the transcript."""
    talk = Talk()
    talk.starts("item_1")
    talk.commits("item_1", "Book Monday at nine.")
    talk.next_session()
    talk.pause(5.0)
    talk.starts("item_1")
    talk.commits("item_1", "Book Friday at noon.")
    said = [turn.text for turn in talk.conversation.transcript.turns() if turn.role == "caller"]
    assert said == ["Book Monday at nine.", "Book Friday at noon."]


def test_a_response_under_a_cancelled_id_of_the_last_session_can_be_cancelled() -> None:
    """A barge-in cancels the second session's answer, although its id was cancelled in the first."""
    talk = Talk()
    for session in (1, 2):
        talk.created("resp_1")
        talk.audio("resp_1", 2000)
        talk.play(400)
        talk.starts(f"caller {session}")
        talk.clears()
        assert len(talk.cancelled) == session
        talk.done("resp_1", "cancelled")
        talk.next_session()


def test_an_answer_lost_under_a_cancelled_id_of_the_last_session_is_owed() -> None:
    """An answer that is lost with the second session is owed, although its id was cancelled in the first."""
    talk = Talk()
    talk.created("resp_1")
    talk.audio("resp_1", 2000)
    talk.play(400)
    talk.starts()
    talk.clears()
    talk.done("resp_1", "cancelled")
    talk.commits()
    talk.answer("resp_2", 400)
    talk.play(600)
    talk.next_session()
    suppose(not talk.conversation.turns.owes_answer, "nothing is owed before")
    talk.starts("caller 2")
    talk.commits("caller 2")
    talk.created("resp_1")
    talk.next_session()
    assert talk.conversation.turns.owes_answer


async def test_a_tool_use_under_an_id_of_the_last_session_is_run_and_answered(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both uses run and both are answered, although each session calls its own ``call_1``."""
    numbers: defaultdict[Outbox, Counter[str]] = defaultdict(Counter)

    def number_by_kind(outbox: Outbox, kind: str) -> str:
        numbers[outbox][kind] += 1
        return f"{kind}_{numbers[outbox][kind]}"

    monkeypatch.setattr(Outbox, "new_id", number_by_kind)
    desk, book = Desk(), ScriptedToolCall("book")
    model = ScriptedRealtime(
        [
            Answer("Hello.", 1000),
            Answer("Sure.", 400, tool_call=book),
            Answer("Booked one.", 400),
            Answer("Sure.", 400, tool_call=book),
            Answer("Booked two.", 400),
        ]
    )
    tools = (make_tool(desk.book, writes=True),)
    async with (
        open_services(memory_realtime(lambda: model), tools=tools) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await stream.until_heard_ms(1000)
        stream.say(tone(300))
        await trio.sleep(4)
        model.disconnect(drop=True)
        await trio.sleep(1)
        stream.say(tone(300))
        await trio.sleep(4)
        await stream.hang_up()
    suppose(len(model.sessions) == 2, "the session was lost")
    assert desk.booked == ["call_1", "call_1"]
    assert len(model.session.conversation.tool_outputs) == 1
    assert not counts(record_of(services))["TOOL_REPEATED"]
