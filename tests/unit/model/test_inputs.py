"""Inputs that change nothing: late or repeated, for another run or for nobody, or what no honest sender sends."""

from __future__ import annotations

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shopping import Careful, Plain, started
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.messages import Outcome
from orchestrator.model.state import StepStatus
from orchestrator.saga import Saga


def test_a_reply_after_the_outcome_is_only_recorded() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.RETRY):
        assert play.reply(1, outcome, "x") == [ev.InputAbsorbed("Reply", "late: the step is DONE", 1, 1)]
    play.refuse(2)
    play.undo(1)
    assert play.do(1) == [ev.InputAbsorbed("Reply", "the saga has ended", 1, 1)]


def test_a_late_success_of_a_step_that_was_undone_is_only_recorded() -> None:
    play = started(Careful)
    for _ in range(3):
        play.fire(1)
        if play.step(1).status is StepStatus.BACKING_OFF:
            play.fire(1)
    assert play.do(1, "A")[0] == ev.InputAbsorbed("Reply", "late: the step is UNDOING", 1, 3)
    play.undo(1)
    assert play.do(1, "A")[0] == ev.InputAbsorbed("Reply", "late: the step is UNDONE", 1, 3)


def test_a_step_that_was_never_scheduled_cannot_be_answered() -> None:
    play = started(Plain, "tea")
    reply = msg.Reply(SAGA_ID, play.state.run, 9, False, 1, Outcome.SUCCESS)
    assert play.rejected(lambda: play.take(reply)) == "the saga has no step 9"


@pytest.mark.parametrize("attempt", [0, -1, 2])
def test_an_attempt_that_was_never_issued_cannot_be_answered(attempt: int) -> None:
    play = started(Plain, "tea")
    words = play.rejected(lambda: play.do(1, "A", attempt=attempt))
    assert words == f"attempt {attempt} of step 1 was never issued"


def test_an_undo_that_was_never_issued_cannot_be_answered() -> None:
    play = started(Plain, "tea")
    assert "never issued" in play.rejected(lambda: play.undo(1, attempt=1))


def test_a_sleep_cannot_be_answered() -> None:
    class Sleepy(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.sleep(5)

    play = started(Sleepy)
    assert play.rejected(lambda: play.do(1)) == "the saga has no step 1"


def test_a_reply_too_large_for_a_record_is_not_taken() -> None:
    play = started(Plain, "tea")
    assert "at most 262144" in play.rejected(lambda: play.do(1, "x" * 262_144))


def test_an_input_for_another_run_changes_nothing() -> None:
    play = started(Plain, "tea")
    other = msg.Reply(SAGA_ID, "1-3-0", 1, False, 1, Outcome.SUCCESS, b'"A"')
    assert "it is for run 1-3-0" in play.rejected(lambda: play.take(other))
    assert play.take(msg.Cancel(SAGA_ID, "m", "1-3-0")) == [ev.InputAbsorbed("Cancel", "it is for run 1-3-0")]
    assert play.take(msg.Terminate(SAGA_ID, "m", "1-3-0")) == [ev.InputAbsorbed("Terminate", "it is for run 1-3-0")]
    assert play.step(1).status is StepStatus.RUNNING


def test_an_input_for_a_saga_that_does_not_exist_is_rejected() -> None:
    play = Play(Plain)
    assert "there is no saga" in play.rejected(play.cancel)


def test_a_start_with_an_input_that_does_not_fit_is_rejected() -> None:
    play = Play(Plain)
    assert play.rejected(lambda: play.start(7)) == "the input does not fit Plain: Input should be a valid string"


def test_a_start_too_large_for_a_record_is_rejected() -> None:
    play = Play(Plain)
    assert "at most 262144" in play.rejected(lambda: play.start("x" * 262_144))


def test_a_second_start_is_absorbed_or_attached() -> None:
    play = Play(Plain)
    play.start("tea")
    assert play.start("coffee") == [ev.InputAbsorbed("Start", "the id exists already")]
    assert play.start("coffee", INBOX) == [ev.WaiterAdded(INBOX)]
    play.refuse(1)
    assert [(answer.status, answer.reply_to) for answer in play.answers] == [("FAILED", INBOX)]
    play.start("coffee", INBOX)
    assert len(play.answers) == 2, "who asks after the end is answered at once"


def test_a_start_of_another_type_on_the_same_id_is_refused() -> None:
    play = Play(Plain)
    play.start("tea")
    other = msg.Start(SAGA_ID, "m", "Other", b"", INBOX)
    reason = "the id belongs to a saga of type Plain"
    assert play.take(other) == [ev.AttachRefused(INBOX, ev.Refusal.OTHER_TYPE, reason)]
    assert play.answers[0].status == "REFUSED"
    quiet = msg.Start(SAGA_ID, "m", "Other", b"")
    assert play.take(quiet) == [ev.InputAbsorbed("Start", "the id belongs to a saga of type Plain")]


def test_who_waits_already_is_not_recorded_again() -> None:
    """A client asks again every few seconds: that must not fill the journal."""
    play = Play(Plain)
    play.start("tea")
    assert play.take(msg.Attach(SAGA_ID, "m", INBOX)) == [ev.WaiterAdded(INBOX)]
    assert play.take(msg.Attach(SAGA_ID, "m2", INBOX)) == []
    assert play.take(msg.Attach(SAGA_ID, "m", INBOX)) == []


def test_who_attaches_is_answered_at_the_end_or_told_that_there_is_none() -> None:
    play = Play(Plain)
    refused = ev.AttachRefused(INBOX, ev.Refusal.NOT_FOUND, "there is no such saga")
    assert play.take(msg.Attach(SAGA_ID, "m", INBOX)) == [refused]
    play.start("tea")
    play.take(msg.Attach(SAGA_ID, "m", INBOX))
    assert play.answers == []
    play.refuse(1)
    assert [answer.status for answer in play.answers] == ["FAILED"]
    play.take(msg.Attach(SAGA_ID, "m", INBOX))
    assert [answer.status for answer in play.answers] == ["FAILED", "FAILED"]


def test_after_the_end_only_the_audit_hears_of_operators() -> None:
    play = started(Plain, "tea")
    play.refuse(1)
    for tell in (play.cancel, play.terminate, play.retry):
        (event,) = tell()
        assert isinstance(event, ev.InputAbsorbed)
        assert event.reason == "the saga has ended"
    assert play.take(msg.TimerDue(SAGA_ID, play.state.run, 1, 5)) == []
