"""Whether and when another attempt follows one that failed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.play import Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import DefinitionError, StepFailed
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.model.retries import FailedAttempt, Jitter, RetryPolicy
from orchestrator.model.state import StepStatus
from orchestrator.retry import Backoff, Retry
from orchestrator.saga import Saga


def trying(retry: Retry, **options: Any) -> Play:
    class Trying(Saga[None, str]):
        async def run(self, _: None) -> str:
            try:
                return await self.step(Shop.reserve(what="tea"), retry=retry, **options)
            except StepFailed as failed:
                return failed.error_type

    return started(Trying)


def pause_ms(play: Play) -> int:
    backed_off = play.of(ev.StepBackedOff)[-1]
    return int(backed_off.due_ms - play.now_ms)


@given(st.integers(1, 100), st.text(), st.sampled_from(Jitter))
def test_jitter_stays_within_its_part_of_the_interval(attempt: int, key: str, jitter: Jitter) -> None:
    policy = RetryPolicy(1_000, 2.0, 64_000, jitter=jitter)
    whole = RetryPolicy(1_000, 2.0, 64_000).interval_ms(attempt)
    least = {Jitter.NONE: whole, Jitter.HALF: whole // 2, Jitter.FULL: 0}[jitter]
    assert least <= policy.interval_ms(attempt, "", key) <= whole
    assert policy.interval_ms(attempt, "", key) == policy.interval_ms(attempt, "", key)


def test_jitter_differs_from_key_to_key_and_from_attempt_to_attempt() -> None:
    policy = RetryPolicy(1_000_000, 1.0, 1_000_000, jitter=Jitter.FULL)
    pauses = [policy.interval_ms(attempt, "", f"order-{number}/1/1/do") for number in range(100) for attempt in (1, 2)]
    assert len(set(pauses)) > 190
    assert 400_000 < sum(pauses) / len(pauses) < 600_000


def test_two_steps_that_fail_together_do_not_come_again_together() -> None:
    class Two(Saga[None, str]):
        async def run(self, _: None) -> str:
            retry = Retry(initial_interval=3600, jitter=Jitter.FULL)
            return "".join(await self.gather(*(self.step(Shop.reserve(what=what), retry=retry) for what in ("a", "b"))))

    play = started(Two)
    play.again(1)
    play.again(2)
    first, second = play.of(ev.StepBackedOff)
    assert first.due_ms != second.due_ms
    assert play.now_ms <= min(first.due_ms, second.due_ms) <= play.now_ms + 3_600_000


def test_an_error_type_may_have_a_pace_of_its_own() -> None:
    play = trying(Retry(1, maximum_attempts=3, rules={"RateLimited": Backoff(60, 1.0, maximum_attempts=5)}))
    play.again(1)
    assert pause_ms(play) == 1_000
    play.fire(1)
    play.again(1, "RateLimited")
    assert pause_ms(play) == 60_000
    play.fire(1)
    play.again(1, "RateLimited")
    assert pause_ms(play) == 60_000  # the third attempt is the last for other errors only
    play.fire(1)
    play.again(1)
    assert play.ending.payload == b'"Busy"'


def test_no_attempt_begins_later_than_the_retry_timeout() -> None:
    play = trying(Retry(10, 1.0, retry_timeout=25))
    for _ in range(2):
        play.again(1)
        play.fire(1)
    play.now_ms += 1_000_000  # the attempt itself may take its time
    assert play.step(1).status is StepStatus.RUNNING
    play.again(1)
    assert play.step(1).attempt == 3
    assert play.ending.status is Status.COMPLETED
    assert play.ending.payload == b'"Busy"'


def test_the_retry_timeout_counts_anew_from_a_persons_retry() -> None:
    play = trying(Retry(10, 1.0, retry_timeout=15, exhausted="park"))
    for _ in range(2):
        play.again(1)
        if play.step(1).status is StepStatus.BACKING_OFF:
            play.fire(1)
    assert play.status is Status.PARKED
    play.now_ms += 1_000_000
    play.retry(1)
    play.again(1)
    assert play.step(1).status is StepStatus.BACKING_OFF


def test_the_retry_timeout_of_an_undo_counts_from_the_undo() -> None:
    class Undoing(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"), undo=Shop.release, undo_retry=Retry(10, 1.0, retry_timeout=15))
            return await self.step(Shop.ship(what="a"))

    play = started(Undoing)
    play.do(1, "A")
    play.now_ms += 1_000_000
    play.refuse(2)
    play.undo(1, Outcome.RETRY)
    assert play.step(1).status is StepStatus.UNDO_BACKING_OFF
    play.fire(1)
    play.undo(1, Outcome.RETRY)
    assert play.status is Status.PARKED


def test_the_codes_predicate_ends_the_attempts() -> None:
    asked: list[FailedAttempt] = []

    def wanted(failed: FailedAttempt) -> bool:
        asked.append(failed)
        return failed.error_type != "Closed"

    play = trying(Retry(predicate=wanted))
    play.again(1)
    play.fire(1)
    play.again(1, "Closed")
    assert play.ending.payload == b'"Closed"'
    play.crash()
    distinct = [failed for number, failed in enumerate(asked) if failed not in asked[:number]]
    assert distinct == [
        FailedAttempt("shop.reserve", 1, "Busy", "no details"),
        FailedAttempt("shop.reserve", 2, "Closed", "no details"),
    ]


def test_a_replay_does_not_ask_the_predicate_and_does_not_move_the_randomness() -> None:
    numbers: list[float] = []

    class Drawing(Saga[None, str]):
        async def run(self, _: None) -> str:
            retry = Retry(predicate=lambda failed: self.random.random() >= 0)
            await self.step(Shop.reserve(what="tea"), retry=retry)
            numbers.append(self.random.random())
            return await self.step(Shop.ship(what="tea"))

    play = started(Drawing)
    play.again(1)
    play.fire(1)
    play.do(1, "A")
    play.crash()
    play.do(2, "B")
    assert len(set(numbers)) == 1


def test_a_predicate_that_raises_parks_its_step_and_a_person_has_it_tried_again() -> None:
    def broken(failed: FailedAttempt) -> bool:
        raise LookupError("no such table")

    play = trying(Retry(predicate=broken))
    play.again(1)
    assert play.status is Status.PARKED
    assert play.state.parked == {1: "the retry's predicate raised LookupError: no such table"}
    play.retry(1)
    play.do(1, "A")
    assert play.ending.payload == b'"A"'


def test_without_its_code_a_failed_attempt_waits_for_the_code_to_be_asked() -> None:
    play = trying(Retry(predicate=lambda failed: False))
    play.lose_code()
    play.again(1)
    assert play.status is Status.WAITING_FOR_CODE
    assert play.step(1).status is StepStatus.RUNNING
    play.find_code()
    assert play.ending.payload == b'"Busy"'


def test_an_attempt_that_would_be_the_last_is_not_asked_about() -> None:
    def never(failed: FailedAttempt) -> bool:
        raise AssertionError("asked")

    play = trying(Retry(maximum_attempts=1, predicate=never))
    play.again(1)
    assert play.status is Status.COMPLETED


def test_a_retry_that_cannot_be_is_refused() -> None:
    with pytest.raises(DefinitionError, match="an undo's retries have no predicate"):
        Retry(predicate=lambda failed: True).policy(undo=True)
    with pytest.raises(DefinitionError, match="the rule for 'Busy': an error's type and a Backoff"):
        Retry(rules={"Busy": Retry()}).policy()
    with pytest.raises(DefinitionError, match="backoff_coefficient"):
        Retry(rules={"Busy": Backoff(backoff_coefficient=0.5)}).policy()


class Eager(Saga[None, str], name="Order"):
    """Tries again without a pause."""

    async def run(self, _: None) -> str:
        return await self.step(Shop.reserve(what="a"), start_to_close=1, retry=Retry(0.0, maximum_attempts=2))


def test_a_pause_of_nothing_is_a_timer_again_where_the_attempts_ran_out_to_the_millisecond() -> None:
    play = started(Eager, checked=False)
    play.state.new_due.clear()
    play.fire(1)
    assert play.step(1).status == "BACKING_OFF"
    assert play.state.new_due == [1]
    play.fire(1)
    assert play.step(1).attempt == 2
