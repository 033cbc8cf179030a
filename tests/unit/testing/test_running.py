"""A saga half-way: time by hand, looking, talking, and what a test announces for a time or a command."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator import Retry, Saga, Status, Undone
from orchestrator.errors import NotApplied
from orchestrator.model.events import StepScheduled
from orchestrator.testing import SagaTest
from tests.unit.testing.trips import Cards, Cars, Hotels, Mails, Ticket, Travel, Trip, cards, hotels

ANN = Trip(who="ann")


def travel() -> SagaTest[Trip, str]:
    return SagaTest(Travel).service(hotels, cards).answer(Cars.book, Ticket(number="k")).answer(Mails.send, None)


# -- time by hand


def test_time_passes_as_the_test_says() -> None:
    saga = travel().start(ANN)
    assert saga.waiting_for == ["hotels.book", "cars.book"]
    saga.advance(0)
    assert saga.waiting_for == ["sleep"]
    saga.advance(timedelta(minutes=59))
    assert (saga.elapsed, saga.effects) == (59 * 60, [Hotels.book, Cars.book])
    saga.advance(61)
    assert (saga.status, saga.elapsed) == (Status.COMPLETED, 3601)
    assert saga.finish().assert_completed("h-ann k c-1").elapsed == 3601


def test_until_stops_between_a_command_and_its_answer() -> None:
    saga = travel().start(ANN).until(Cards.charge)
    assert saga.elapsed == 3600
    assert saga.waiting_for == ["cards.charge"]
    assert [type(event) for event in saga.journal][-1] is StepScheduled
    saga.finish().assert_completed()


def test_until_what_never_comes_says_so() -> None:
    with pytest.raises(AssertionError, match=r"cards\.refund \(attempt 1\) was never sent: <COMPLETED"):
        travel().start(ANN).until(Cards.refund)
    with pytest.raises(AssertionError, match="it is never parked: <COMPLETED"):
        travel().start(ANN).until_parked()


def test_the_saga_can_start_at_any_time() -> None:
    morning = datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert travel().run(ANN, now=morning).decisions[0].at_ms == morning.timestamp() * 1000


# -- talking


def test_a_command_is_answered_by_hand() -> None:
    saga = SagaTest(Travel).service(hotels, cards).never(Cars.book).answer(Mails.send, None).start(ANN).until(Cars.book)
    saga.advance(1000).answer(Cars.book, Ticket(number="by hand"))
    assert saga.finish().result == "h-ann by hand c-1"


def test_work_that_is_pending_is_completed_by_hand() -> None:
    saga = travel().start(Trip(who="later")).until(Cards.charge)
    with pytest.raises(AssertionError, match=r"mails\.send does not wait for an answer"):
        saga.answer(Mails.send, None)
    saga.fail(Cards.charge, "Broke", "no money")
    end = saga.finish()
    assert end.reason == "Broke: no money"
    end.assert_compensated({Hotels.free, Cars.free})


def test_a_client_cancels_and_an_operator_terminates() -> None:
    saga = travel().start(ANN).advance(10).cancel("changed my mind")
    end = saga.finish()
    assert (end.status, end.reason) == (Status.CANCELED, "Canceled: changed my mind")
    end.assert_compensated({Cars.free, Hotels.free})
    ended = travel().start(ANN).advance(10).terminate().finish()
    assert (ended.status, ended.undone) == (Status.TERMINATED, Undone.NONE)


@pytest.mark.parametrize(
    ("decision", "status", "undone"), [("retry", "COMPENSATED", "all"), ("skip", "COMPENSATED", "partial")]
)
def test_a_person_decides_about_what_is_parked(decision: str, status: str, undone: str) -> None:
    test = travel().fail(Cards.charge, "Broke").fail(Cars.free, "Lost").answer(Cars.free, None)
    saga = test.start(ANN).until_parked()
    assert saga.waiting_for == ["the undo of hotels.book", "the undo of cars.book", "a person"]
    getattr(saga, decision)()
    end = saga.finish()
    assert (end.status, end.undone) == (status, undone)


class Stubborn(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        return (await self.step(Cards.charge(who=trip.who), retry=Retry(maximum_attempts=2, exhausted="park"))).number


def test_a_person_sets_the_result_of_a_step_that_is_parked() -> None:
    saga = SagaTest(Stubborn).retry(Cards.charge).start(ANN)
    with pytest.raises(NotApplied, match="it is neither parked nor between two attempts"):
        saga.retry()
    saga.until_parked()
    with pytest.raises(AssertionError, match=r"cars\.book is not parked"):
        saga.set_result(Cars.book, Ticket(number="x"))
    saga.set_result(Cards.charge, Ticket(number="by hand")).finish().assert_completed("by hand")


def test_a_test_ends_where_a_person_is_needed() -> None:
    end = SagaTest(Stubborn).retry(Cards.charge).run(ANN)
    assert end.status is Status.PARKED
    assert end.reason == "attempt 2 was the last: Unavailable"


# -- announced


def test_a_cancel_at_a_time() -> None:
    end = travel().at(60).cancel("too slow").run(ANN)
    assert (end.status, end.elapsed) == (Status.CANCELED, 60)
    end.assert_compensated({Hotels.free, Cars.free})


def test_a_cancel_when_a_command_was_sent_comes_before_its_answer() -> None:
    end = travel().when(Cards.charge).cancel().run(ANN)
    assert end.effects == [Hotels.book, Cars.book, Cards.charge, Cards.refund, Cars.free, Hotels.free]
    end.assert_compensated(Cards.refund, {Cars.free, Hotels.free})
    assert [request.ticket for request in end.requests(Cards.refund)] == [None], "nobody knows whether it was charged"


def test_a_cancel_during_the_pivot_comes_too_late() -> None:
    travel().when(Mails.send).cancel().run(ANN).assert_completed()


def test_terminate_when_a_second_attempt_is_sent() -> None:
    end = travel().never(Hotels.book).when(Hotels.book, attempt=2).terminate().run(ANN)
    assert (end.status, end.elapsed) == (Status.TERMINATED, 31)


def test_what_has_no_occasion_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="the cancel at 7200 s came too late: the saga ended after 3600 s"):
        travel().at(7200).cancel().run(ANN)
    with pytest.raises(AssertionError, match=r"\.when\(cards\.refund\)\.cancel\(\.\.\.\) had no occasion"):
        travel().when(Cards.refund).cancel().run(ANN)
