"""Going forward: what replies, timers and a person's word do to a step, and what the code gets to see of it."""

from __future__ import annotations

import pytest

from model.shop import Receipt, Shop
from model.shopping import Careful, Plain, started
from orchestrator.errors import StepFailed
from orchestrator.model import events as ev
from orchestrator.model.events import Status, Undone, UnknownCause
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import StepStatus
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.saga import Retry, Saga


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


def test_a_saga_whose_steps_succeed_completes_with_its_result() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    play.do(2, {"number": 7})
    assert [(sent.name, sent.undo, sent.sequence) for sent in play.sent] == [
        ("reserve", False, 1),
        ("charge", False, 2),
    ]
    assert [sent.payload for sent in play.sent] == [b'{"what":"tea"}', b'{"what":"A"}']
    assert play.ending == ev.SagaEnded(
        Status.COMPLETED, Undone.NONE, b'"A 7"', forget_at_ms=play.now_ms + ENDED_KEEP_MS
    )


def test_the_undo_is_recorded_with_the_step_and_again_with_its_reply() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    scheduled = play.of(ev.StepScheduled)
    assert (scheduled[0].undo_command, scheduled[0].undo_payload) == ("release", None)
    assert (scheduled[1].undo_command, scheduled[1].undo_payload) == ("refund", b'{"receipt":null}')
    play.do(2, {"number": 7})
    assert [event.undo_payload for event in play.of(ev.StepSucceeded)] == [None, b'{"receipt":{"number":7}}']


def test_a_failure_is_seen_by_the_code_as_one_without_an_effect() -> None:
    play = started(Careful)
    play.refuse(1, "SoldOut")
    assert play.sent[-1].payload == b'{"what":"SoldOut unknown=False"}'
    play.do(2)
    assert play.status is Status.COMPLETED
    assert play.undone == []


def test_a_failure_that_leaves_run_undoes_what_was_done() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    assert play.status is Status.COMPENSATING
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.ALL)
    assert (play.ending.error_type, play.ending.error_message) == ("CardDeclined", "no details")


def test_a_failure_with_nothing_to_undo_fails_the_saga() -> None:
    play = started(Plain, "tea")
    play.refuse(1)
    assert (play.ending.status, play.ending.undone) == (Status.FAILED, Undone.NONE)


def test_a_failure_of_a_lower_attempt_is_only_recorded() -> None:
    play = started(Careful)
    play.again(1)
    play.fire(1)
    play.refuse(1, attempt=1)
    assert play.step(1).status is StepStatus.RUNNING
    assert play.journal[-1] == ev.InputAbsorbed("Reply", "a later attempt was issued", 1, 1)
    play.refuse(1, attempt=2)
    assert play.step(1).status is StepStatus.REFUSED


def test_a_retry_of_a_lower_attempt_is_only_recorded() -> None:
    play = started(Careful)
    play.again(1)
    play.fire(1)
    play.reply(1, Outcome.RETRY, "Busy", attempt=1)
    assert play.step(1).status is StepStatus.RUNNING


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_success_of_any_attempt_counts(attempt: int) -> None:
    play = started(Careful)
    play.again(1)
    play.fire(1)
    play.do(1, "A", attempt=attempt)
    assert play.step(1).status is StepStatus.DONE


def test_a_success_counts_while_the_next_attempt_is_waited_for() -> None:
    play = started(Careful)
    play.again(1)
    assert play.step(1).status is StepStatus.BACKING_OFF
    play.do(1, "A")
    assert play.step(1).status is StepStatus.DONE
    assert play.state.due_of(1) is None


def test_a_failure_counts_while_the_next_attempt_is_waited_for() -> None:
    play = started(Careful)
    play.again(1)
    play.refuse(1)
    assert play.step(1).status is StepStatus.REFUSED


def test_retries_back_off_as_the_policy_says_until_they_are_used_up() -> None:
    play = started(Careful)
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
    play = started(Careful)
    play.again(1, after_ms=7_000)
    assert play.state.due_of(1) == play.now_ms + 7_000


def test_an_error_that_is_not_to_be_retried_ends_the_step_unknown_at_once() -> None:
    class Picky(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), retry=Retry(non_retryable_error_types=("Fatal",)))

    play = started(Picky)
    play.again(1, "Fatal")
    assert play.step(1).status is StepStatus.UNKNOWN
    assert play.step(1).cause is UnknownCause.EXHAUSTED


def test_an_attempt_without_an_answer_times_out_and_is_retried() -> None:
    play = started(Careful)
    assert play.state.due_of(1) == play.now_ms + 10_000
    play.fire(1)
    assert play.of(ev.StepBackedOff) == [
        ev.StepBackedOff(1, 1, play.now_ms + 1_000, "Timeout", "no reply to attempt 1")
    ]
    play.fire(1)
    assert play.sent[-1].attempt == 2


def test_no_attempt_goes_beyond_the_time_of_all_of_them() -> None:
    play = started(Careful)
    deadline = play.now_ms + 60_000
    play.again(1, after_ms=58_000)
    play.fire(1)
    assert play.state.due_of(1) == deadline, "the second attempt has two seconds left, not ten"
    play.fire(1)
    assert play.step(1).status is StepStatus.UNDOING
    assert play.step(1).cause is UnknownCause.TIMEOUT


def test_the_wait_for_the_next_attempt_ends_with_the_time_of_all_of_them() -> None:
    play = started(Careful)
    deadline = play.now_ms + 60_000
    play.again(1, after_ms=600_000)
    assert play.state.due_of(1) == deadline
    play.fire(1)
    assert play.step(1).cause is UnknownCause.TIMEOUT
    assert play.step(1).attempt == 1


def test_a_step_without_times_waits_as_long_as_it_takes() -> None:
    play = started(Plain, "tea")
    assert play.state.due_of(1) is None


def test_the_undo_of_an_unknown_step_is_issued_at_once_where_the_saga_goes_on() -> None:
    play = started(Careful)
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

    play = started(Last)
    play.again(1)
    assert play.status is Status.RUNNING
    play.undo(1)
    assert play.ending.payload == b'"went on"'


def test_a_policy_may_park_a_step_whose_attempts_are_used_up() -> None:
    play = started(Parking)
    play.again(1)
    assert play.status is Status.PARKED
    assert play.state.parked == {1: "attempt 1 was the last: Busy no details"}
    assert play.state.due_of(1) is None


def test_a_person_retries_a_parked_step() -> None:
    play = started(Parking)
    play.again(1)
    play.retry(1)
    assert play.status is Status.RUNNING
    assert play.of(ev.StepAttempted) == [ev.StepAttempted(1, 2, "ann", reason="looked at it")]
    assert play.sent[-1].attempt == 2
    play.do(1, "A")
    assert play.ending.payload == b'"A"'


def test_a_person_sets_the_result_of_a_parked_step() -> None:
    play = started(Parking)
    play.again(1)
    play.unpark(Override.SET_RESULT, payload=b'"B"')
    assert play.of(ev.StepSucceeded) == [ev.StepSucceeded(1, 1, b'"B"', None, "ann", "looked at it")]
    assert play.ending.payload == b'"B"'


def test_a_person_skips_a_parked_step_whose_reply_carries_nothing() -> None:
    class Quiet(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.note(), retry=Retry(maximum_attempts=1, exhausted="park"))

    play = started(Quiet)
    play.again(1)
    play.unpark(Override.SKIP)
    assert play.status is Status.COMPLETED


def test_what_a_person_says_about_a_step_that_is_not_parked_changes_nothing() -> None:
    play = started(Parking)
    assert play.retry(1) == [ev.InputAbsorbed("Unpark", "it is neither parked nor between two attempts", 1)]
    assert play.retry(0) == [ev.InputAbsorbed("Unpark", "it is neither parked nor between two attempts")]
    assert play.retry(-3) == [ev.InputAbsorbed("Unpark", "it is neither parked nor between two attempts", -3)]


def test_a_late_success_ends_a_parked_step() -> None:
    play = started(Parking)
    play.again(1)
    play.do(1, "A")
    assert play.status is Status.COMPLETED


def test_a_late_failure_leaves_a_parked_step_parked() -> None:
    play = started(Parking)
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

    play = started(Timed)
    play.fire(1)
    play.now_ms += 600_000
    play.retry()
    assert play.state.due_of(1) == play.now_ms + 5_000


def test_a_refused_pivot_undoes_what_came_before_it() -> None:
    play = started(Pivoted)
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    play.undo(1)
    assert play.ending.status is Status.COMPENSATED


def test_a_pivot_of_unknown_outcome_is_parked_because_it_has_no_undo() -> None:
    play = started(Pivoted)
    play.do(1, "A")
    play.again(2)
    play.fire(2)
    play.again(2)
    assert play.status is Status.PARKED
    play.unpark(Override.SET_RESULT, 2, b'{"number":7}')
    assert play.status is Status.RUNNING


@pytest.mark.parametrize("how", ["refused", "exhausted", "timed out", "refused between attempts"])
def test_after_the_pivot_a_step_is_parked_and_nothing_is_undone(how: str) -> None:
    play = started(Pivoted)
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

    play = started(Late)
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

    play = started(Onward)
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.fire(4)
    assert play.status is Status.PARKED
    assert play.step(3).status is StepStatus.UNKNOWN
    play.terminate()
    assert play.ending.undone is Undone.NONE


def test_a_command_that_kafka_refuses_is_an_attempt_that_failed() -> None:
    play = started(Careful)
    play.send_failed(1)
    assert play.of(ev.StepBackedOff)[0].error_type == "SendFailed"
    play.fire(1)
    assert play.send_failed(1, attempt=1) == [], "only the attempt under way can fail"
    play.do(1, "A")
    assert play.send_failed(1) == []


def test_the_run_is_named_by_the_place_of_its_start_in_the_journal() -> None:
    play = started(Plain, "tea")
    assert play.state.run == "1-10-0"


def test_a_step_goes_to_the_sagas_partition_or_spread_to_one_of_its_own() -> None:
    class Spread(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(*[self.step(Shop.note(), spread=True) for _ in range(20)], self.step(Shop.note()))

    play = started(Spread)
    partitions = [event.partition for event in play.of(ev.StepScheduled)]
    assert len(set(partitions[:20])) == 4
    assert started(Plain, "tea").step(1).partition == partitions[20]


def test_a_reply_of_the_wrong_type_parks_the_saga() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    play.do(2, "not a receipt")
    assert play.status is Status.PARKED
    assert play.step(2).status is StepStatus.DONE
    assert "the undo of step 2 raised ValidationError" in play.state.parked[0]


def test_replies_are_decoded_to_the_declared_type() -> None:
    assert Shop.charge.decode(b'{"number":7}') == Receipt(number=7)
