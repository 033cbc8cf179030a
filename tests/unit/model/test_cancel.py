"""Stopping a saga: by a person, by its own clock, by force."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.play import INBOX, Play
from model.shop import Shop
from model.shopping import Shopping, TidyGroup, Two, asked
from orchestrator.errors import Canceled
from orchestrator.model import events as ev
from orchestrator.model.events import Cause, Status, Undone, UnknownCause
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import StepStatus
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.saga import Retry


class Tidy(Shopping):
    async def run(self, _: None) -> str:
        await self.get("a")
        await self.tidily("b")
        await self.get("never")
        return "done"


class Pivoted(Shopping):
    async def run(self, _: None) -> str:
        await self.get("a")
        await self.step(Shop.ship(), pivot=True)
        return "shipped"


class Buggy(Shopping):
    async def run(self, _: None) -> str:
        await self.get("a")
        try:
            await self.get("b")
        finally:
            raise ValueError("a bug")


class Parking(Shopping):
    async def run(self, _: None) -> str:
        await self.get("a")
        await self.step(Shop.reserve(what="b"), undo=Shop.release, retry=Retry(maximum_attempts=1, exhausted="park"))
        return "done"


class Timed(Tidy, execution_timeout=60):
    pass


class TimedParking(Parking, execution_timeout=60):
    pass


class TimedPivot(Pivoted, execution_timeout=60):
    pass


def test_a_cancelled_saga_lets_go_of_its_step_and_undoes_what_was_done() -> None:
    play = Play(Two)
    play.start()
    play.do(1, "x")
    play.cancel("changed my mind")
    assert play.of(ev.CancelRequested) == [ev.CancelRequested(Cause.CANCELED, "changed my mind", "ann")]
    assert play.of(ev.StepEndedUnknown) == [ev.StepEndedUnknown(2, UnknownCause.CANCELED, "Canceled", "", 2)]
    assert play.undone == [2]
    play.undo(2)
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.ALL)
    assert (play.ending.error_type, play.ending.error_message) == ("Canceled", "changed my mind")


def test_a_cancelled_saga_may_await_steps_in_finally_before_it_undoes() -> None:
    play = Play(Tidy)
    play.start()
    play.do(1, "x")
    play.cancel()
    assert asked(play) == ["a", "b", "cleaned up b"]
    assert play.undone == [2], "the step it let go of is undone at once, the saga goes on with its clean-up"
    assert play.status is Status.RUNNING
    play.do(3)
    assert play.status is Status.COMPENSATING
    play.undo(2)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_code_that_swallows_its_cancellation_is_undone_all_the_same() -> None:
    class Deaf(Shopping):
        async def run(self, _: None) -> str:
            try:
                await self.get("a")
            except Canceled:
                await self.get("b")
            return "done"

    play = Play(Deaf)
    play.start()
    play.cancel()
    play.undo(1)
    play.do(2, "x")
    play.undo(2)
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.ALL)


def test_code_that_raises_canceled_by_itself_fails() -> None:
    class Odd(Shopping):
        async def run(self, _: None) -> str:
            raise Canceled

    play = Play(Odd)
    play.start()
    assert (play.ending.status, play.ending.error_message) == (
        Status.FAILED,
        "the code raised Canceled by itself",
    )


def test_a_second_cancellation_changes_nothing() -> None:
    play = Play(Tidy)
    play.start()
    play.do(1, "x")
    play.cancel()
    assert play.cancel() == [ev.InputAbsorbed("Cancel", "the saga is stopping already")]
    play.do(3)
    assert play.cancel() == [ev.InputAbsorbed("Cancel", "the saga is stopping already")]


def test_a_cancellation_before_the_first_outcome_undoes_the_first_step() -> None:
    play = Play(Two)
    play.start()
    play.cancel()
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_cancellation_waits_for_the_outcome_of_the_pivot() -> None:
    play = Play(Pivoted)
    play.start()
    play.do(1, "x")
    play.cancel()
    assert play.status is Status.RUNNING
    assert play.step(2).status is StepStatus.RUNNING
    play.refuse(2)
    assert play.undone == [1]
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_saga_whose_pivot_was_its_last_step_completes_though_it_was_to_be_cancelled() -> None:
    play = Play(Pivoted)
    play.start(None, INBOX)
    play.do(1, "x")
    play.cancel()
    play.do(2, "sent")
    assert play.ending == ev.SagaEnded(
        Status.COMPLETED, Undone.NONE, b'"shipped"', forget_at_ms=play.now_ms + ENDED_KEEP_MS
    )
    assert play.answers[0].payload == b'"shipped"'


def test_a_cancellation_that_waited_for_the_pivot_stops_what_comes_after_it() -> None:
    class Longer(Pivoted):
        async def run(self, _: None) -> str:
            await super().run(_)
            await self.get("later")
            return "done"

    play = Play(Longer)
    play.start()
    play.do(1, "x")
    play.cancel()
    play.do(2, "sent")
    assert [sent.name for sent in play.sent] == ["reserve", "ship", "release"]
    play.undo(3)
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.PARTIAL)


def test_a_parked_pivot_still_holds_a_cancellation_back() -> None:
    class Park(Shopping):
        async def run(self, _: None) -> str:
            await self.step(Shop.ship(), pivot=True, retry=Retry(maximum_attempts=1))
            return "shipped"

    play = Play(Park)
    play.start()
    play.again(1)
    play.cancel()
    assert play.status is Status.PARKED
    play.unpark(Override.SET_RESULT, 1, b'"x"')
    assert play.ending.status is Status.COMPLETED


def test_a_parked_saga_is_cancelled_without_its_code() -> None:
    class Bug(Shopping):
        async def run(self, _: None) -> str:
            await self.gather(self.get("a"), self.get("b"))
            raise ValueError("a bug")

    play = Play(Bug)
    play.start()
    play.do(1, "x")
    play.do(2, "x")
    play.cancel()
    assert play.undone == [2, 1]
    assert play.state.parked == {}
    play.undo(1)
    play.undo(2)
    assert play.ending.status is Status.CANCELED


def test_what_is_open_of_a_parked_saga_is_let_go_of_when_it_is_cancelled() -> None:
    class Bug(Shopping):
        async def run(self, _: None) -> str:
            await self.gather(self.get("a"), self.wrong())
            return "done"

        async def wrong(self) -> None:
            await self.sleep(5)
            raise ValueError("a bug")

    play = Play(Bug)
    play.start()
    play.crash()
    play.definition = Two.definition
    play.fire(2)
    assert "diverges" in play.state.parked[0]
    play.cancel()
    assert play.step(1).cause == "canceled"
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_step_that_is_parked_is_let_go_of_by_a_cancellation() -> None:
    play = Play(Parking)
    play.start()
    play.do(1, "x")
    play.again(2)
    play.cancel()
    assert play.state.parked == {}
    play.undo(2)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_saga_whose_clean_up_has_a_bug_can_be_cancelled_once_more() -> None:
    play = Play(Buggy)
    play.start()
    play.do(1, "x")
    play.cancel()
    assert play.status is Status.PARKED
    play.do(2, "x")
    assert play.status is Status.PARKED, "a bug never rolls back by itself"
    play.cancel()
    for sequence in play.undone:
        if play.step(sequence).status is StepStatus.UNDOING:
            play.undo(sequence)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_cancellation_that_waits_for_a_pivot_goes_on_without_code_that_is_broken() -> None:
    class Bug(Shopping):
        async def run(self, _: None) -> str:
            await self.get("a")
            await self.step(Shop.charge(), pivot=True)
            return "done"

    play = Play(Bug)
    play.start()
    play.do(1, "x")
    play.crash()
    play.definition = TidyGroup.definition
    play.reply(2, Outcome.RETRY, "Busy")
    assert "diverges" in play.state.parked[0]
    play.cancel()
    assert play.undone == [], "the pivot must be known first"
    play.refuse(2)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


@pytest.mark.parametrize("known", [True, False])
def test_a_cancellation_before_the_first_step_needs_no_code(known: bool) -> None:
    play = Play(Two, known=False)
    play.start()
    assert play.status is Status.WAITING_FOR_CODE
    play.known = known
    play.cancel()
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.NONE)


def test_a_saga_that_takes_too_long_is_undone_and_says_so() -> None:
    play = Play(Timed)
    play.start()
    assert play.state.due_of(0) == play.now_ms + 60_000
    play.do(1, "x")
    play.fire(0)
    play.do(3)
    play.undo(2)
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.TIMED_OUT, Undone.ALL)
    assert play.ending.error_message == "the saga's time is up"


def test_the_sagas_clock_says_nothing_once_it_is_being_cancelled() -> None:
    play = Play(Timed)
    play.start()
    play.do(1, "x")
    play.cancel()
    assert play.state.due_of(0) is None
    play.do(3)
    play.undo(2)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_the_clock_does_not_end_a_saga_that_a_person_is_to_look_at() -> None:
    play = Play(TimedParking)
    play.start()
    play.do(1, "x")
    play.again(2)
    play.fire(0)
    assert play.status is Status.PARKED
    assert play.undone == []
    play.unpark(Override.SET_RESULT, 2, b'"x"')
    assert play.status is Status.COMPENSATING, "its time was up"
    play.undo(2)
    play.undo(1)
    assert play.ending.status is Status.TIMED_OUT


def test_a_person_may_cancel_a_parked_saga_whose_time_is_up() -> None:
    play = Play(TimedParking)
    play.start()
    play.do(1, "x")
    play.again(2)
    play.fire(0)
    play.cancel()
    play.undo(2)
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_saga_whose_pivot_succeeds_after_its_time_is_up_completes() -> None:
    play = Play(TimedPivot)
    play.start()
    play.do(1, "x")
    play.fire(0)
    play.do(2, "sent")
    assert play.ending.status is Status.COMPLETED


def test_terminating_ends_a_saga_at_once_and_undoes_nothing() -> None:
    play = Play(Two)
    play.start(None, INBOX)
    play.do(1, "x")
    play.terminate()
    assert play.ending == ev.SagaEnded(
        Status.TERMINATED, Undone.NONE, b"", "Terminated", "enough", "ann", forget_at_ms=play.now_ms + ENDED_KEEP_MS
    )
    assert [answer.status for answer in play.answers] == ["TERMINATED"]
    assert play.do(2, "x") == [ev.InputAbsorbed("Reply", "the saga has ended", 2, 1)]


@pytest.mark.parametrize("through", ["parked", "compensating", "without code", "cancelling"])
def test_a_saga_can_be_terminated_wherever_it_stands(through: str) -> None:
    play = Play(Parking, known=through != "without code")
    play.start()
    ways: dict[str, Callable[[], object]] = {
        "parked": lambda: (play.do(1, "x"), play.again(2)),
        "compensating": lambda: (play.do(1, "x"), play.refuse(2)),
        "without code": lambda: None,
        "cancelling": lambda: (play.do(1, "x"), play.cancel()),
    }
    ways[through]()
    play.terminate()
    undone = Undone.PARTIAL if through in ("compensating", "cancelling") else Undone.NONE
    assert (play.ending.status, play.ending.undone) == (Status.TERMINATED, undone)
