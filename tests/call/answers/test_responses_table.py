"""The table of the states of a response: printed in docs/, and sound."""

from __future__ import annotations

from pathlib import Path

from agent.call.answers.responses import STEPS, Stage, Step
from agent.core.state_table import as_markdown

DOCS = Path(__file__).parents[3] / "docs" / "responses.md"


def test_the_documents_show_the_table_in_force() -> None:
    assert as_markdown("stage", STEPS, Step) in DOCS.read_text(encoding="utf-8")


def test_bi_3_a_cancel_is_sent_once_and_only_while_generating() -> None:
    """What leads to CANCELLED is a barge-in into an active answer, or the birth of one nobody wants any more."""
    every = [(stage, step, to) for stage, steps in STEPS.items() for step, to in steps.items()]
    into = {(stage, step) for stage, step, to in every if to is Stage.CANCELLED}
    assert into == {(Stage.GENERATING, Step.CUT), (Stage.UNWANTED, Step.CREATED)}
    assert set(STEPS[Stage.CANCELLED]) == {Step.DONE}


def test_every_stage_is_left_for_good_and_over_is_the_end() -> None:
    assert set(STEPS) == set(Stage)
    assert STEPS[Stage.OVER] == {}
    for stage in set(Stage) - {Stage.OVER}:
        reached, todo = set(), [stage]
        while todo:
            at = todo.pop()
            reached.add(at)
            todo += [to for to in STEPS[at].values() if to not in reached]
        assert Stage.OVER in reached
