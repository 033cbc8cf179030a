"""Sagas that are kept where they are: one by a person, many by a rule; and what people are answered."""

from __future__ import annotations

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import Careful, Plain, Two, started
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.evolve import evolve
from orchestrator.model.messages import Outcome
from orchestrator.model.pauses import check_rule, over_command, over_saga, rule_of
from orchestrator.saga import Saga
from orchestrator.signals import signal

# -- one saga


def test_what_comes_in_is_recorded_and_the_code_waits() -> None:
    play = started(Two)
    assert play.pause() == [ev.SagaPaused("ann", "wait")]
    assert play.status is Status.PAUSED
    play.do(1, "a")
    assert play.names[-1] == "StepSucceeded"
    assert len(play.sent) == 1
    play.resume()
    assert play.names[-2:] == ["SagaResumed", "StepScheduled"]
    assert play.status is Status.RUNNING
    play.do(2, "b")
    assert play.ending.payload == b'"ab"'


def test_signals_are_kept_and_timers_wait() -> None:
    class Approval(Saga[None, str]):
        decided = signal(str)

        async def run(self, _: None) -> str:
            first = await self.receive(Approval.decided, timeout=60)
            await self.sleep(10)
            return first or "late"

    play = started(Approval)
    play.pause()
    assert play.fire(1) == [], "its time is up, and is acted on later"
    play.signal("decided", "yes")
    play.resume()
    assert play.names[-2:] == ["SignalTaken", "WaitScheduled"]
    play.fire(2)
    assert play.ending.payload == b'"yes"'


def test_a_timer_that_came_due_meanwhile_comes_again() -> None:
    play = started(Careful)
    play.pause()
    assert play.fire(1) == []
    assert play.state.new_due == []
    evolve(play.state, ev.SagaResumed("ann", ""), play.now_ms)
    assert play.state.new_due == [1]
    play.checked = play.cold = False
    play.fire(1)
    assert play.names[-1] == "StepBackedOff"


def test_no_undo_is_issued_while_paused() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    play.pause()
    play.refuse(2)
    assert play.undone == []
    play.resume()
    assert play.undone == [1]
    play.pause()
    play.undo(1)
    assert not play.state.ended
    play.resume()
    assert play.status is Status.COMPENSATED


def test_a_cancel_reaches_a_paused_saga_and_so_does_a_terminate() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    play.pause()
    play.cancel()
    assert play.undone == [2], "in the code: nobody knows of the second, then comes the first"
    play.undo(2)
    play.undo(1)
    assert play.status is Status.CANCELED

    play = started(Plain, "tea")
    play.pause()
    play.terminate()
    assert play.status is Status.TERMINATED
    assert play.state.paused is None


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "the saga is stopping already, and is paused: resume it"),
        ("step:shop.release", "the saga is stopping already, and is paused by the rule step:shop.release"),
    ],
)
def test_a_second_cancel_is_told_of_the_pause_that_holds_the_undo(rule: str, reason: str) -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    if rule:
        play.rules.add(rule)
    play.cancel()
    if not rule:
        play.pause()
    play.undo(2)
    assert play.cancel() == [ev.InputAbsorbed("Cancel", reason)]


def test_to_pause_twice_and_to_resume_what_runs_changes_nothing() -> None:
    play = started(Two)
    assert play.resume() == [ev.InputAbsorbed("Resume", "it is not paused")]
    play.pause()
    assert play.pause() == [ev.InputAbsorbed("Pause", "it is paused already")]
    play.terminate()
    assert play.pause() == [ev.InputAbsorbed("Pause", "the saga has ended")]


def test_a_parked_saga_shows_that_first_and_goes_on_only_once_it_is_resumed() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    play.refuse(2)
    play.undo(1, Outcome.FAILURE)
    play.pause()
    assert play.status is Status.PARKED
    play.unpark(msg.Override.SKIP, 1)
    assert play.status is Status.PAUSED
    play.resume()
    assert play.status is Status.COMPENSATED
    assert play.ending.undone is ev.Undone.PARTIAL


def test_code_that_comes_while_paused_is_taken_at_the_end_of_the_pause() -> None:
    play = started(Two)
    play.pause()
    play.lose_code()
    play.do(1, "a")
    assert play.names[-2:] == ["CodeMissing", "InputHeld"]
    assert play.status is Status.PAUSED
    assert play.find_code() == []
    play.resume()
    assert play.names[-5:] == ["SagaResumed", "CodeFound", "HeldInputTaken", "StepSucceeded", "StepScheduled"]


def test_a_cancel_of_a_paused_saga_whose_code_came_goes_through_the_code() -> None:
    play = started(Two)
    play.lose_code()
    play.do(1, "a")
    play.pause()
    play.find_code()
    play.cancel()
    assert play.state.mailbox == []
    assert play.undone == [1]
    play.undo(1)
    assert play.status is Status.CANCELED


def test_a_pause_outlives_the_owners_that_lack_the_code() -> None:
    play = started(Two)
    play.pause()
    play.known = False
    play.crash()
    play.resume()
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    play.do(1, "a")
    play.do(2, "b")
    assert play.status is Status.COMPLETED


# -- many, by a rule


def test_a_paused_type_starts_and_waits() -> None:
    play = Play(Two)
    play.rules.add("type:Order")
    play.start()
    assert play.names == ["SagaStarted", "SagaPaused"]
    assert play.state.paused is not None
    assert play.state.paused.rule == "type:Order"
    play.lift("type:Order")
    assert play.names[-2:] == ["SagaResumed", "StepScheduled"]


@pytest.mark.parametrize("rule", ["partition", "type:Order"])
def test_sagas_under_way_wait_when_they_would_go_on(rule: str) -> None:
    play = started(Two)
    play.rules.add(rule)
    play.do(1, "a")
    assert play.names[-2:] == ["StepSucceeded", "SagaPaused"]
    assert "it is paused by the rule" in play.resume()[0].reason  # type: ignore[union-attr]
    play.cancel()
    assert play.undone == [2], "a person's cancel reaches beyond it, and lets go of what the code asked for"
    assert [sent.undo for sent in play.sent] == [False, True], "of which only the undo was sent"
    play.undo(2)
    play.undo(1)
    assert play.status is Status.CANCELED


def test_a_timer_of_a_paused_type_waits() -> None:
    play = started(Careful)
    play.rules.add("type:Careful")
    assert [type(event).__name__ for event in play.fire(1)] == ["SagaPaused"]
    play.lift("type:Careful")
    play.fire(1)
    assert play.names[-1] == "StepBackedOff"


@pytest.mark.parametrize("rule", ["service:shop", "step:shop.charge", "step:Plain:shop.charge"])
def test_a_command_is_held_back_where_its_service_or_step_is_paused(rule: str) -> None:
    play = started(Plain, "tea")
    play.rules.add(rule)
    play.do(1, "x")
    assert play.names[-2:] == ["StepSucceeded", "SagaPaused"]
    play.lift(rule)
    assert play.sent[-1].name == "charge"


def test_other_steps_go_on() -> None:
    play = started(Plain, "tea")
    play.rules |= {"step:shop.note", "step:Other:shop.charge", "service:bank", "type:Other"}
    play.do(1, "x")
    assert play.sent[-1].name == "charge"


def test_undo_and_repeated_attempts_are_held_back_too() -> None:
    play = started(Plain, "tea")
    play.again(1)
    play.rules.add("service:shop")
    assert [type(event).__name__ for event in play.fire(1)] == ["SagaPaused"]
    play.lift("service:shop")
    play.fire(1)
    assert play.step(1).attempt == 2
    play.do(1, "x")
    play.rules.add("step:shop.release")
    play.refuse(2)
    assert play.undone == []
    assert play.status is Status.PAUSED
    play.lift("step:shop.release")
    play.undo(1, Outcome.RETRY)
    play.rules.add("step:shop.release")
    play.fire(1)
    assert play.status is Status.PAUSED
    play.lift("step:shop.release")
    play.fire(1)
    play.undo(1)
    assert play.status is Status.COMPENSATED


def test_a_group_asks_for_nothing_behind_a_step_that_is_held_back() -> None:
    class Both(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(self.step(Shop.reserve(), undo=Shop.release), self.step(Shop.note(what="n")))

    play = Play(Both)
    play.rules.add("step:shop.note")
    play.start()
    assert [sent.name for sent in play.sent] == ["reserve"]
    play.do(1, "x")
    play.lift("step:shop.note")
    assert [sent.name for sent in play.sent] == ["reserve", "note"]
    play.do(2)
    assert play.status is Status.COMPLETED


def test_of_two_rules_the_second_holds_when_the_first_is_lifted() -> None:
    play = Play(Two)
    play.rules |= {"type:Order", "partition"}
    play.start()
    play.lift("partition")
    assert play.state.paused is not None
    assert play.state.paused.rule == "type:Order"
    assert play.take(msg.Released(SAGA_ID, play.state.run)) == []


def test_a_persons_pause_stays_when_the_rule_is_lifted() -> None:
    play = Play(Two)
    play.rules.add("type:Order")
    play.start()
    play.pause()
    assert play.lift("type:Order") == []
    play.resume()
    assert play.status is Status.RUNNING


def test_rules_are_named_by_what_they_pause() -> None:
    assert rule_of("Order") == "type:Order"
    assert rule_of(service="payments") == "service:payments"
    assert rule_of(step="payments.charge") == "step:payments.charge"
    assert rule_of("Order", step="payments.charge") == "step:Order:payments.charge"
    assert rule_of() == "partition"
    for wrong in ("", "type:", "step:charge", "type:a b", "service:a:b", "all", "step:a.b.c", "type:" + "x" * 600):
        with pytest.raises(ValueError, match="is no rule"):
            check_rule(wrong)
    with pytest.raises(ValueError, match="two rules"):
        rule_of("Order", "payments")
    with pytest.raises(ValueError, match="names its service already"):
        rule_of(service="payments", step="payments.charge")
    assert over_saga({"type:A"}, "A") == "type:A"
    assert over_saga({"type:A"}, "B") == ""
    assert over_command({"step:A:s.c"}, "A", "s", "c") == "step:A:s.c"
    assert over_command({"step:A:s.c"}, "B", "s", "c") == ""


# -- what people are answered


def test_who_asks_hears_what_came_of_it() -> None:
    play = started(Two)
    play.pause(INBOX)
    play.pause(INBOX)
    assert [(answer.status, answer.error_message) for answer in play.answers] == [
        ("APPLIED", ""),
        ("ABSORBED", "it is paused already"),
    ]
    play.resume(INBOX)
    play.take(msg.Cancel(SAGA_ID, "c", "1-2-3", "", "", INBOX))
    assert play.answers[-1].error_message == "it is for run 1-2-3"
    play.take(msg.Terminate(SAGA_ID, "t", None, "", "", INBOX))
    play.take(msg.Unpark(SAGA_ID, "u", msg.Override.RETRY, reply_to=INBOX))
    assert [(answer.status, answer.error_message) for answer in play.answers[-2:]] == [
        ("APPLIED", ""),
        ("ABSORBED", "the saga has ended"),
    ]


def test_what_is_kept_for_missing_code_is_answered_once() -> None:
    play = started(Two)
    play.lose_code()
    play.take(msg.Cancel(SAGA_ID, "c", reply_to=INBOX))
    assert "it is kept until" in play.answers[-1].error_message
    play.find_code()
    assert len(play.answers) == 1
    assert play.state.cancel is ev.Cause.CANCELED


def test_an_unknown_id_is_a_dead_letter_and_an_answer() -> None:
    with pytest.raises(Exception, match="there is no saga") as caught:
        Play(Two).take(msg.Pause(SAGA_ID, "p", reply_to=INBOX))
    refusal = caught.value.refusal  # type: ignore[attr-defined]
    assert (refusal.kind, refusal.reply_to) == (ev.Refusal.NOT_FOUND, INBOX)
