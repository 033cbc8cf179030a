"""The rules by which a command is answered, refused, run or made to wait."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.ids import Direction
from orchestrator.model.messages import Outcome
from orchestrator.participant.rules import (
    EXPIRED,
    OVERDUE,
    RUN,
    RUN_UNSURE,
    UNDONE,
    WAIT,
    Answer,
    Entry,
    Recorded,
    Refuse,
    decide,
    record,
    soften,
)
from orchestrator.wire.commands import CommandMessage, ReplyMessage

DONE = ReplyMessage(Outcome.SUCCESS, b"1")
NO = ReplyMessage(Outcome.FAILURE, error_type="No")
LATER = ReplyMessage(Outcome.RETRY, error_type="Later")
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def command(direction: Direction = "do", attempt: int = 1, **fields: Any) -> CommandMessage:
    values: dict[str, Any] = {"sent_at_ms": NOW_MS, "deadline_ms": None} | fields
    return CommandMessage(
        "order-7",
        "1-10-0",
        "Order",
        "charge",
        1,
        direction,
        attempt,
        f"order-7/1-10-0/1/{direction}",
        b"",
        "saga.replies",
        0,
        **values,
    )


def test_what_is_unknown_runs() -> None:
    assert decide(command(), None) is RUN
    assert decide(command("undo"), None) is RUN
    assert decide(command("undo"), Entry(Recorded(1, DONE))) is RUN


def test_a_busy_unit_makes_everything_wait() -> None:
    for entry in (None, Entry(Recorded(1, DONE)), Entry(undone=True)):
        assert decide(command(), entry, busy=True) is WAIT
        assert decide(command("undo"), entry, busy=True) is WAIT


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_success_answers_every_attempt(attempt: int) -> None:
    assert decide(command(attempt=attempt), Entry(Recorded(2, DONE))) == Answer(DONE)
    assert decide(command("undo", attempt), Entry(None, Recorded(2, DONE), True)) == Answer(DONE)


@pytest.mark.parametrize("reply", [NO, LATER])
def test_a_failure_or_retry_answers_up_to_its_attempt(reply: ReplyMessage) -> None:
    for attempt in (1, 2):
        assert decide(command(attempt=attempt), Entry(Recorded(2, reply))) == Answer(reply)
        assert decide(command("undo", attempt), Entry(None, Recorded(2, reply), True)) == Answer(reply)
    expected = RUN if reply is NO else RUN_UNSURE
    assert decide(command(attempt=3), Entry(Recorded(2, reply))) is expected
    assert decide(command("undo", 3), Entry(None, Recorded(2, reply), True)) is expected


def test_after_an_undo_no_do_runs() -> None:
    for undo in (DONE, NO, LATER):
        assert decide(command(attempt=9), record(None, True, 1, undo)) is UNDONE
    assert decide(command(attempt=3), Entry(Recorded(2, NO), Recorded(1, LATER), True)) is UNDONE
    assert decide(command(attempt=2), Entry(Recorded(2, NO), Recorded(1, LATER), True)) == Answer(NO)
    assert decide(command(attempt=3), Entry(Recorded(2, DONE), Recorded(1, DONE), True)) == Answer(DONE)


def test_a_refusal_asserts_nothing() -> None:
    for refusal in (UNDONE, EXPIRED, OVERDUE):
        assert refusal.reply.outcome is Outcome.RETRY


def test_what_the_memory_cannot_judge_any_more_is_refused() -> None:
    def judged(age_ms: int, late_ms: int = 0, **fields: Any) -> Any:
        sent = command(sent_at_ms=NOW_MS - age_ms, **fields)
        return decide(sent, None, appended_ms=NOW_MS, now_ms=NOW_MS + late_ms, retention_ms=30 * DAY_MS)

    assert judged(15 * DAY_MS) is RUN
    assert judged(15 * DAY_MS + 1) is EXPIRED
    assert judged(15 * DAY_MS + 1, direction="undo") is EXPIRED
    # Appended in time and read much later: by then the memory is as old.
    assert judged(0, late_ms=15 * DAY_MS + 1) is EXPIRED
    # A sender that says nothing is taken to have sent when it appended.
    assert judged(NOW_MS) is RUN
    old = command(sent_at_ms=1)
    assert decide(old, None, appended_ms=NOW_MS, now_ms=NOW_MS) is RUN
    known = Entry(Recorded(1, DONE))
    assert decide(old, known, appended_ms=NOW_MS, now_ms=NOW_MS, retention_ms=1) == Answer(DONE)


def test_a_do_past_its_deadline_is_refused_an_undo_never() -> None:
    assert decide(command(deadline_ms=NOW_MS), None, now_ms=NOW_MS) is RUN
    assert decide(command(deadline_ms=NOW_MS), None, now_ms=NOW_MS + 1) is OVERDUE
    assert decide(command("undo", deadline_ms=NOW_MS), None, now_ms=NOW_MS + 1) is RUN
    assert decide(command(deadline_ms=NOW_MS), Entry(Recorded(1, NO)), now_ms=NOW_MS + 1) == Answer(NO)


def test_a_success_stays_recorded_else_the_highest_attempt_counts() -> None:
    entry = record(None, False, 2, LATER)
    assert entry == Entry(Recorded(2, LATER))
    assert record(entry, False, 1, NO) == entry
    assert record(entry, False, 2, NO).do == Recorded(2, NO)
    assert record(entry, False, 3, NO).do == Recorded(3, NO)
    # A lower attempt that did succeed is worth more than a higher one that did not.
    done = record(entry, False, 1, DONE)
    assert done.do == Recorded(1, DONE)
    assert record(done, False, 5, NO) == done
    other = ReplyMessage(Outcome.SUCCESS, b"2")
    assert record(done, False, 5, other) == done


def test_recording_an_undo_marks_the_unit_and_leaves_the_do() -> None:
    entry = record(Entry(Recorded(1, DONE)), True, 1, LATER)
    assert entry == Entry(Recorded(1, DONE), Recorded(1, LATER), True)
    assert record(entry, True, 2, DONE).undo == Recorded(2, DONE)
    assert record(entry, False, 2, NO).undone


def test_recording_twice_is_recording_once() -> None:
    for undo in (False, True):
        for reply in (DONE, NO, LATER):
            once = record(None, undo, 1, reply)
            assert record(once, undo, 1, reply) == once


def test_softening_turns_failures_only() -> None:
    assert soften(DONE) is DONE
    assert soften(LATER) is LATER
    assert soften(NO) == ReplyMessage(Outcome.RETRY, error_type="No")


def test_every_decision_is_one_of_four() -> None:
    for direction in ("do", "undo"):
        for attempt in (1, 2, 3):
            for do in (None, Recorded(2, DONE), Recorded(2, NO), Recorded(2, LATER)):
                for undo in (None, Recorded(2, DONE), Recorded(2, NO), Recorded(2, LATER)):
                    entry = Entry(do, undo, undo is not None)
                    found = decide(command("undo" if direction == "undo" else "do", attempt), entry)
                    recorded = undo if direction == "undo" else do
                    covered = recorded is not None and (recorded.reply is DONE or attempt <= 2)
                    if covered:
                        assert isinstance(found, Answer)
                    elif direction == "do" and undo is not None:
                        assert isinstance(found, Refuse)
                    else:
                        assert found in (RUN, RUN_UNSURE)
