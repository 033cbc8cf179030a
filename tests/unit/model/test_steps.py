"""Going forward: what replies, timers and a person's word do to a step, and what the code gets to see of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Receipt, Shop
from orchestrator.errors import StepFailed
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status, Undone, UnknownCause
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import StepStatus
from orchestrator.saga import Retry, Saga


class Plain(Saga[str, str]):
    async def run(self, what: str) -> str:
        stock = await self.step(Shop.reserve(what=what), undo=Shop.release)
        receipt = await self.step(Shop.charge(what=stock), undo=lambda r: Shop.refund(receipt=r))
        return f"{stock} {receipt.number}"


class Careful(Saga[None, str]):
    """Sees a failure and goes on."""

    async def run(self, _: None) -> str:
        try:
            await self.step(
                Shop.reserve(what="tea"),
                undo=Shop.release,
                retry=Retry(maximum_attempts=3),
                start_to_close=10,
                schedule_to_close=timedelta(seconds=60),
            )
        except StepFailed as failed:
            note = f"{failed.error_type} unknown={failed.unknown}"
        else:
            note = "fine"
        await self.step(Shop.note(what=note))
        return note


class Pivoted(Saga[None, str]):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="tea"), undo=Shop.release)
        await self.step(Shop.charge(what="tea"), pivot=True, retry=Retry(maximum_attempts=2))
        return await self.step(Shop.ship(what="tea"), retry=Retry(maximum_attempts=2), start_to_close=10)


class Parking(Saga[None, str]):
    async def run(self, _: None) -> str:
        return await self.step(
            Shop.reserve(what="tea"), undo=Shop.release, retry=Retry(maximum_attempts=1, exhausted="park")
        )


def play_of(saga: type[Saga[object, object]] | type, value: object = None) -> Play:
    play = Play(saga)
    play.start(value)
    return play


def test_a_saga_whose_steps_succeed_completes_with_its_result() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "A")
    play.do(2, {"number": 7})
    assert [(sent.name, sent.undo, sent.sequence) for sent in play.sent] == [
        ("reserve", False, 1),
        ("charge", False, 2),
    ]
    assert [sent.payload for sent in play.sent] == [b'{"what":"tea"}', b'{"what":"A"}']
    assert play.ending == ev.SagaEnded(Status.COMPLETED, Undone.NONE, b'"A 7"')


def test_the_undo_is_recorded_with_the_step_and_again_with_its_reply() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "A")
    scheduled = play.of(ev.StepScheduled)
    assert (scheduled[0].undo_command, scheduled[0].undo_payload) == ("release", None)
    assert (scheduled[1].undo_command, scheduled[1].undo_payload) == ("refund", b'{"receipt":null}')
    play.do(2, {"number": 7})
    assert [event.undo_payload for event in play.of(ev.StepSucceeded)] == [None, b'{"receipt":{"number":7}}']


def test_a_failure_is_seen_by_the_code_as_one_without_an_effect() -> None:
    play = play_of(Careful)
    play.refuse(1, "SoldOut")
    assert play.sent[-1].payload == b'{"what":"SoldOut unknown=False"}'
    play.do(2)
    assert play.status is Status.COMPLETED
    assert play.undone == []


def test_a_failure_that_leaves_run_undoes_what_was_done() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    assert play.status is Status.COMPENSATING
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.ALL)
    assert (play.ending.error_type, play.ending.error_message) == ("CardDeclined", "no details")


def test_a_failure_with_nothing_to_undo_fails_the_saga() -> None:
    play = play_of(Plain, "tea")
    play.refuse(1)
    assert (play.ending.status, play.ending.undone) == (Status.FAILED, Undone.NONE)


def test_a_failure_of_a_lower_attempt_is_only_recorded() -> None:
    play = play_of(Careful)
    play.again(1)
    play.fire(1)
    play.refuse(1, attempt=1)
    assert play.step(1).status is StepStatus.RUNNING
    assert play.journal[-1] == ev.InputAbsorbed("Reply", "a later attempt was issued", 1, 1)
    play.refuse(1, attempt=2)
    assert play.step(1).status is StepStatus.REFUSED


def test_a_retry_of_a_lower_attempt_is_only_recorded() -> None:
    play = play_of(Careful)
    play.again(1)
    play.fire(1)
    play.reply(1, Outcome.RETRY, "Busy", attempt=1)
    assert play.step(1).status is StepStatus.RUNNING


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_success_of_any_attempt_counts(attempt: int) -> None:
    play = play_of(Careful)
    play.again(1)
    play.fire(1)
    play.do(1, "A", attempt=attempt)
    assert play.step(1).status is StepStatus.DONE


def test_a_success_counts_while_the_next_attempt_is_waited_for() -> None:
    play = play_of(Careful)
    play.again(1)
    assert play.step(1).status is StepStatus.BACKING_OFF
    play.do(1, "A")
    assert play.step(1).status is StepStatus.DONE
    assert play.state.due_of(1) is None


def test_a_failure_counts_while_the_next_attempt_is_waited_for() -> None:
    play = play_of(Careful)
    play.again(1)
    play.refuse(1)
    assert play.step(1).status is StepStatus.REFUSED


def test_retries_back_off_as_the_policy_says_until_they_are_used_up() -> None:
    play = play_of(Careful)
    began = play.now_ms
    play.again(1)
    assert play.state.due_of(1) == began + 1_000
    play.fire(1)
    assert (play.sent[-1].name, play.sent[-1].attempt) == ("reserve", 2)
    play.again(1)
    assert play.state.due_of(1) == play.now_ms + 2_000
    play.fire(1)
    play.again(1)
    unknown = play.of(ev.StepEndedUnknown)
    assert unknown == [ev.StepEndedUnknown(1, UnknownCause.EXHAUSTED, "Busy", "no details")]
    assert play.of(ev.StepScheduled)[-1].payload == b'{"what":"Busy unknown=True"}'


def test_a_participant_may_say_when_to_retry() -> None:
    play = play_of(Careful)
    play.again(1, after_ms=7_000)
    assert play.state.due_of(1) == play.now_ms + 7_000


def test_an_error_that_is_not_to_be_retried_ends_the_step_unknown_at_once() -> None:
    class Picky(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), retry=Retry(non_retryable_error_types=("Fatal",)))

    play = play_of(Picky)
    play.again(1, "Fatal")
    assert play.step(1).status is StepStatus.UNKNOWN
    assert play.step(1).cause is UnknownCause.EXHAUSTED


def test_an_attempt_without_an_answer_times_out_and_is_retried() -> None:
    play = play_of(Careful)
    assert play.state.due_of(1) == play.now_ms + 10_000
    play.fire(1)
    assert play.of(ev.StepBackedOff) == [
        ev.StepBackedOff(1, 1, play.now_ms + 1_000, "Timeout", "no reply to attempt 1")
    ]
    play.fire(1)
    assert play.sent[-1].attempt == 2


def test_no_attempt_goes_beyond_the_time_of_all_of_them() -> None:
    play = play_of(Careful)
    deadline = play.now_ms + 60_000
    play.again(1, after_ms=58_000)
    play.fire(1)
    assert play.state.due_of(1) == deadline, "the second attempt has two seconds left, not ten"
    play.fire(1)
    assert play.step(1).status is StepStatus.UNDOING
    assert play.step(1).cause is UnknownCause.TIMEOUT


def test_the_wait_for_the_next_attempt_ends_with_the_time_of_all_of_them() -> None:
    play = play_of(Careful)
    deadline = play.now_ms + 60_000
    play.again(1, after_ms=600_000)
    assert play.state.due_of(1) == deadline
    play.fire(1)
    assert play.step(1).cause is UnknownCause.TIMEOUT
    assert play.step(1).attempt == 1


def test_a_step_without_times_waits_as_long_as_it_takes() -> None:
    play = play_of(Plain, "tea")
    assert play.state.due_of(1) is None


def test_the_undo_of_an_unknown_step_is_issued_at_once_where_the_saga_goes_on() -> None:
    play = play_of(Careful)
    for _ in range(3):
        play.fire(1)
        if play.step(1).status is StepStatus.BACKING_OFF:
            play.fire(1)
    assert [(sent.name, sent.undo) for sent in play.sent[-2:]] == [("note", False), ("release", True)]
    assert play.status is Status.RUNNING
    play.do(2)
    assert play.status is Status.RUNNING, "no saga ends while an undo is under way"
    play.undo(1)
    assert play.status is Status.COMPLETED


def test_a_saga_does_not_complete_before_an_unknown_step_is_undone() -> None:
    class Last(Saga[None, str]):
        async def run(self, _: None) -> str:
            try:
                await self.step(Shop.reserve(), undo=Shop.release, retry=Retry(maximum_attempts=1))
            except StepFailed:
                return "went on"
            return "fine"

    play = play_of(Last)
    play.again(1)
    assert play.status is Status.RUNNING
    play.undo(1)
    assert play.ending.payload == b'"went on"'


def test_a_policy_may_park_a_step_whose_attempts_are_used_up() -> None:
    play = play_of(Parking)
    play.again(1)
    assert play.status is Status.PARKED
    assert play.state.parked == {1: "attempt 1 was the last: Busy no details"}
    assert play.state.due_of(1) is None


def test_a_person_retries_a_parked_step() -> None:
    play = play_of(Parking)
    play.again(1)
    play.retry(1)
    assert play.status is Status.RUNNING
    assert play.of(ev.StepAttempted) == [ev.StepAttempted(1, 2, "ann")]
    assert play.sent[-1].attempt == 2
    play.do(1, "A")
    assert play.ending.payload == b'"A"'


def test_a_person_sets_the_result_of_a_parked_step() -> None:
    play = play_of(Parking)
    play.again(1)
    play.unpark(Override.SET_RESULT, payload=b'"B"')
    assert play.of(ev.StepSucceeded) == [ev.StepSucceeded(1, 1, b'"B"', None, "ann")]
    assert play.ending.payload == b'"B"'


def test_a_person_skips_a_parked_step_whose_reply_carries_nothing() -> None:
    class Quiet(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.note(), retry=Retry(maximum_attempts=1, exhausted="park"))

    play = play_of(Quiet)
    play.again(1)
    play.unpark(Override.SKIP)
    assert play.status is Status.COMPLETED


def test_what_a_person_says_about_a_step_that_is_not_parked_changes_nothing() -> None:
    play = play_of(Parking)
    assert play.retry(1) == [ev.InputAbsorbed("Unpark", "it is not parked", 1)]
    assert play.retry(0) == [ev.InputAbsorbed("Unpark", "it is not parked")]
    assert play.retry(-3) == [ev.InputAbsorbed("Unpark", "it is not parked", -3)]


def test_a_late_success_ends_a_parked_step() -> None:
    play = play_of(Parking)
    play.again(1)
    play.do(1, "A")
    assert play.status is Status.COMPLETED


def test_a_late_failure_leaves_a_parked_step_parked() -> None:
    play = play_of(Parking)
    play.again(1)
    play.refuse(1)
    assert play.status is Status.PARKED


def test_a_retried_step_has_all_its_time_again() -> None:
    class Timed(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(
                Shop.note(),
                schedule_to_close=20,
                start_to_close=5,
                retry=Retry(maximum_attempts=1, exhausted="park"),
            )

    play = play_of(Timed)
    play.fire(1)
    play.now_ms += 600_000
    play.retry()
    assert play.state.due_of(1) == play.now_ms + 5_000


def test_a_refused_pivot_undoes_what_came_before_it() -> None:
    play = play_of(Pivoted)
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    play.undo(1)
    assert play.ending.status is Status.COMPENSATED


def test_a_pivot_of_unknown_outcome_is_parked_because_it_has_no_undo() -> None:
    play = play_of(Pivoted)
    play.do(1, "A")
    play.again(2)
    play.fire(2)
    play.again(2)
    assert play.status is Status.PARKED
    play.unpark(Override.SET_RESULT, 2, b'{"number":7}')
    assert play.status is Status.RUNNING


@pytest.mark.parametrize("how", ["refused", "exhausted", "timed out", "refused between attempts"])
def test_after_the_pivot_a_step_is_parked_and_nothing_is_undone(how: str) -> None:
    play = play_of(Pivoted)
    play.do(1, "A")
    play.do(2, {"number": 7})
    if how == "refused":
        play.refuse(3)
    elif how == "exhausted":
        play.again(3)
        play.fire(3)
        play.again(3)
    elif how == "timed out":
        play.fire(3)
        play.fire(3)
        play.fire(3)
    else:
        play.again(3)
        play.refuse(3)
    assert play.status is Status.PARKED
    assert play.undone == []
    play.retry()
    play.do(3, "sent")
    assert play.ending.status is Status.COMPLETED


def test_an_abort_after_the_pivot_parks_the_saga() -> None:
    class Late(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.charge(), pivot=True)
            raise StepFailed("a", "b", "c", unknown=False)

    play = play_of(Late)
    play.do(1, {"number": 7})
    assert play.status is Status.PARKED
    assert "only forward" in play.state.parked[0]


def test_a_group_that_fails_after_the_pivot_parks_the_saga_for_a_person() -> None:
    class Onward(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=Shop.release)
            await self.step(Shop.charge(), pivot=True)
            await self.gather(self.step(Shop.ship(), undo=Shop.release), self.fail())

        async def fail(self) -> None:
            await self.sleep(1)
            raise StepFailed("a", "b", "c", unknown=False)

    play = play_of(Onward)
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.fire(4)
    assert play.status is Status.PARKED
    assert play.step(3).status is StepStatus.UNKNOWN
    play.terminate()
    assert play.ending.undone is Undone.NONE


def test_a_command_that_kafka_refuses_is_an_attempt_that_failed() -> None:
    play = play_of(Careful)
    play.send_failed(1)
    assert play.of(ev.StepBackedOff)[0].error_type == "SendFailed"
    play.fire(1)
    assert play.send_failed(1, attempt=1) == [], "only the attempt under way can fail"
    play.do(1, "A")
    assert play.send_failed(1) == []


def test_a_reply_after_the_outcome_is_only_recorded() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "A")
    for outcome in Outcome:
        assert play.reply(1, outcome, "x") == [ev.InputAbsorbed("Reply", "late: the step is DONE", 1, 1)]
    play.refuse(2)
    play.undo(1)
    assert play.do(1) == [ev.InputAbsorbed("Reply", "the saga has ended", 1, 1)]


def test_a_late_success_of_a_step_that_was_undone_is_only_recorded() -> None:
    play = play_of(Careful)
    for _ in range(3):
        play.fire(1)
        if play.step(1).status is StepStatus.BACKING_OFF:
            play.fire(1)
    assert play.do(1, "A")[0] == ev.InputAbsorbed("Reply", "late: the step is UNDOING", 1, 3)
    play.undo(1)
    assert play.do(1, "A")[0] == ev.InputAbsorbed("Reply", "late: the step is UNDONE", 1, 3)


def test_a_step_that_was_never_scheduled_cannot_be_answered() -> None:
    play = play_of(Plain, "tea")
    reply = msg.Reply(SAGA_ID, play.state.run, 9, False, 1, Outcome.SUCCESS)
    assert play.rejected(lambda: play.take(reply)) == "the saga has no step 9"


@pytest.mark.parametrize("attempt", [0, -1, 2])
def test_an_attempt_that_was_never_issued_cannot_be_answered(attempt: int) -> None:
    play = play_of(Plain, "tea")
    words = play.rejected(lambda: play.do(1, "A", attempt=attempt))
    assert words == f"attempt {attempt} of step 1 was never issued"


def test_an_undo_that_was_never_issued_cannot_be_answered() -> None:
    play = play_of(Plain, "tea")
    assert "never issued" in play.rejected(lambda: play.undo(1, attempt=1))


def test_a_sleep_cannot_be_answered() -> None:
    class Sleepy(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.sleep(5)

    play = play_of(Sleepy)
    assert play.rejected(lambda: play.do(1)) == "the saga has no step 1"


def test_a_reply_too_large_for_a_record_is_not_taken() -> None:
    play = play_of(Plain, "tea")
    assert "at most 262144" in play.rejected(lambda: play.do(1, "x" * 262_144))


def test_an_input_for_another_run_changes_nothing() -> None:
    play = play_of(Plain, "tea")
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
    assert play.take(other) == [ev.AttachRefused(INBOX, "the id belongs to a saga of type Plain")]
    assert play.answers[0].status == "REFUSED"
    quiet = msg.Start(SAGA_ID, "m", "Other", b"")
    assert play.take(quiet) == [ev.InputAbsorbed("Start", "the id belongs to a saga of type Plain")]


def test_who_attaches_is_answered_at_the_end_or_told_that_there_is_none() -> None:
    play = Play(Plain)
    assert play.take(msg.Attach(SAGA_ID, "m", INBOX)) == [ev.AttachRefused(INBOX, "there is no such saga")]
    play.start("tea")
    play.take(msg.Attach(SAGA_ID, "m", INBOX))
    assert play.answers == []
    play.refuse(1)
    assert [answer.status for answer in play.answers] == ["FAILED"]
    play.take(msg.Attach(SAGA_ID, "m", INBOX))
    assert [answer.status for answer in play.answers] == ["FAILED", "FAILED"]


def test_after_the_end_only_the_audit_hears_of_operators() -> None:
    play = play_of(Plain, "tea")
    play.refuse(1)
    for tell in (play.cancel, play.terminate, play.retry):
        (event,) = tell()
        assert isinstance(event, ev.InputAbsorbed)
        assert event.reason == "the saga has ended"
    assert play.take(msg.TimerDue(SAGA_ID, play.state.run, 1, 5)) == []


def test_the_run_is_named_by_the_place_of_its_start_in_the_journal() -> None:
    play = play_of(Plain, "tea")
    assert play.state.run == "1-10-0"


def test_a_step_goes_to_the_sagas_partition_or_spread_to_one_of_its_own() -> None:
    class Spread(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(*[self.step(Shop.note(), spread=True) for _ in range(20)], self.step(Shop.note()))

    play = play_of(Spread)
    partitions = [event.partition for event in play.of(ev.StepScheduled)]
    assert len(set(partitions[:20])) == 4
    assert play_of(Plain, "tea").step(1).partition == partitions[20]


def test_a_reply_of_the_wrong_type_parks_the_saga() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "A")
    play.do(2, "not a receipt")
    assert play.status is Status.PARKED
    assert play.step(2).status is StepStatus.DONE
    assert "the undo of step 2 raised ValidationError" in play.state.parked[0]


def test_replies_are_decoded_to_the_declared_type() -> None:
    assert Shop.charge.decode(b'{"number":7}') == Receipt(number=7)
