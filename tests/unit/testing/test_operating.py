"""What people do about a saga, said in its test: the verbs of a client, with the same words for what they refuse."""

from __future__ import annotations

import pytest

from orchestrator import Conflict, Failure, Retry, Reuse, Saga, Status
from orchestrator.errors import NotApplied
from orchestrator.model.events import StepAttempted
from orchestrator.testing import SagaTest
from tests.unit.testing.trips import Booking, Cards, Cars, Hotels, Mails, Ticket, Travel, Trip, cards, cars, hotels

ANN = Trip(who="ann")


class Tour(Saga[Trip, str]):
    """A hotel, a car, the card."""

    async def run(self, trip: Trip) -> str:
        hotel = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.step(Cars.book(who=f"{trip.who} {trip.nights}"), undo=Cars.free)
        paid = await self.step(
            Cards.charge(who=trip.who), undo=lambda ticket: Cards.refund(who=trip.who, ticket=ticket)
        )
        return f"{hotel.number} {paid.number}"


def tour() -> SagaTest[Trip, str]:
    test = SagaTest(Tour).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="c"))
    return test.answer(Cards.charge, Ticket(number="p"))


def test_what_comes_to_a_paused_saga_is_recorded_and_its_code_waits() -> None:
    saga = tour().start(ANN).until(Cars.book).pause("the customer calls back")
    assert saga.advance(3600).status is Status.PAUSED
    assert saga.effects == [Hotels.book, Cars.book], "what was sent is answered"
    with pytest.raises(NotApplied, match="it is paused already"):
        saga.pause()
    with pytest.raises(AssertionError, match=r"the saga is paused: \.resume\(\) it"):
        saga.finish()
    assert saga.resume().finish().assert_completed("h p").elapsed == 3600
    with pytest.raises(NotApplied, match="the saga has ended"):
        saga.resume()


def test_times_of_a_paused_saga_come_after_it_is_resumed() -> None:
    travel = SagaTest(Travel).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="c"))
    travel.answer(Cards.charge, Ticket(number="p")).answer(Mails.send, None)
    assert travel.at(60).pause().at(7200).resume().run(ANN).assert_completed().elapsed == 7200


def test_all_is_undone_that_a_saga_did() -> None:
    saga = tour().start(ANN).until(Cards.charge)
    end = saga.compensate("the wrong customer").finish().assert_compensated(Cards.refund, Cars.free, Hotels.free)
    assert (end.status, end.error_type) == (Status.COMPENSATED, "Forced")
    with pytest.raises(NotApplied, match="the saga has ended"):
        saga.compensate()
    tour().when(Cars.book).compensate().run(ANN).assert_compensated(Cars.free, Hotels.free)


def test_a_saga_that_failed_goes_on_where_it_failed() -> None:
    saga = SagaTest(Tour).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="c"))
    saga.fail(Cards.charge, "CardDeclined").answer(Cards.charge, Ticket(number="p"))
    run = saga.start(ANN)
    with pytest.raises(NotApplied, match="only what is parked or has failed can be redriven"):
        run.redrive()
    run.finish().assert_compensated(Cars.free, Hotels.free)
    end = run.redrive(reason="the bank is back").finish().assert_completed("h p")
    assert end.effects[-3:] == [Hotels.book, Cars.book, Cards.charge], "what was undone is done again"
    with pytest.raises(NotApplied, match="it is COMPLETED: restart it"):
        run.redrive()


def test_a_saga_that_failed_goes_on_with_another_input() -> None:
    def book(request: Booking) -> Ticket:
        if request.who == "ann 2":
            raise Failure("NoCar")
        return Ticket(number="c")

    test = SagaTest(Tour).answer(Hotels.book, Ticket(number="h")).answer(Cards.charge, Ticket(number="p"))
    run = test.handle(Cars.book, book).start(ANN)
    run.finish().assert_failed("NoCar")
    end = run.redrive(Trip(who="ann", nights=7)).finish().assert_completed("h p")
    assert [request.who for request in end.requests(Cars.book)] == ["ann 2", "ann 7"]


def test_the_next_run_has_the_same_services() -> None:
    """Participants' handlers, of which one is async: its event loop was let go of at the first end."""
    run = SagaTest(Tour).service(hotels, cars, cards).start(ANN)
    first = run.finish().assert_completed()
    again = run.restart().finish().assert_completed()
    assert again.effects == [*first.effects, Hotels.book, Cars.book, Cards.charge]


def test_a_saga_that_has_ended_runs_again_with_the_same_or_another_input() -> None:
    run = tour().start(ANN)
    with pytest.raises(NotApplied, match="it has not ended"):
        run.restart()
    run.finish()
    end = run.restart().finish().assert_completed()
    assert [request.who for request in end.requests(Cars.book)] == ["ann 2", "ann 2"]
    end = run.restart(Trip(who="bob", nights=7)).finish().assert_completed()
    assert end.requests(Cars.book)[-1].who == "bob 7"
    assert len({decision.run for decision in end.decisions}) == 3


def test_an_id_is_started_again_by_its_policies() -> None:
    run = tour().start(ANN).until(Cars.book)
    with pytest.raises(NotApplied, match="the start's policy refuses that"):
        run.start_again(ANN, conflict=Conflict.FAIL)
    bob = Trip(who="bob", nights=7)
    end = run.start_again(bob, conflict=Conflict.TERMINATE_EXISTING).finish().assert_completed()
    assert [request.who for request in end.requests(Cars.book)][-1] == "bob 7"
    with pytest.raises(NotApplied, match="the start's policy refuses that"):
        run.start_again(ANN, reuse=Reuse.ALLOW_DUPLICATE_FAILED_ONLY)
    with pytest.raises(NotApplied, match="the id exists already"):
        run.start_again(ANN)
    run.start_again(ANN, reuse=Reuse.ALLOW_DUPLICATE).finish().assert_completed()


def test_a_saga_is_set_back_to_a_step() -> None:
    run = tour().start(ANN).until(Cards.charge)
    end = run.reset(2, "the wrong car").finish().assert_completed("h p")
    assert end.effects == [Hotels.book, Cars.book, Cards.charge, Cards.refund, Cars.free, Cars.book, Cards.charge]
    with pytest.raises(NotApplied, match="it has no step 9: its steps are 1 to 3"):
        run.reset(9)
    assert tour().when(Cards.charge).reset(3).run(ANN).assert_completed().effects.count(Cars.book) == 1


def test_another_saga_begins_with_what_one_has_come_to() -> None:
    run = tour().start(ANN).until(Cards.charge)
    fork = run.fork(3, "copy")
    end = fork.finish().assert_completed("h p")
    assert end.effects == [Cards.charge], "the results before are copied"
    assert run.finish().assert_completed().effects == [Hotels.book, Cars.book, Cards.charge]
    with pytest.raises(NotApplied, match="it has no step 9"):
        run.fork(9)


def test_a_fork_hears_what_it_is_told_first() -> None:
    run = tour().start(ANN).until(Cards.charge)
    paused = run.fork(3, "copy").pause()
    assert paused.status is Status.PAUSED
    paused.resume().finish().assert_completed("h p")
    again = run.fork(3, "another").fork(3, "of that")
    assert again.cancel().finish().status is Status.CANCELED


class Stubborn(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        paid = await self.step(
            Cards.charge(who=trip.who),
            undo=lambda ticket: Cards.refund(who=trip.who, ticket=ticket),
            retry=Retry(60, maximum_attempts=2, exhausted="park"),
            undo_retry=Retry(maximum_attempts=1),
        )
        await self.step(Mails.send(who=trip.who))
        return paid.number


def test_a_parked_step_or_its_undo_is_tried_again_with_another_request() -> None:
    def charge(request: Booking) -> Ticket:
        assert request.who == "ann by another card"
        return Ticket(number="p")

    test = SagaTest(Stubborn).retry(Cards.charge, times=2).handle(Cards.charge, charge).fail(Mails.send, "NoAddress")
    test.fail(Cards.refund, "Closed").answer(Cards.refund, None)
    run = test.start(ANN).until_parked()
    with pytest.raises(AssertionError, match=r"mails\.send is not parked"):
        run.retry(Mails.send(who="ann"))
    run.retry(Cards.charge(who="ann by another card")).until_parked()
    assert run.waiting_for == ["the undo of cards.charge", "a person"]
    end = run.retry(Cards.refund(who="bob", ticket=None)).finish().assert_compensated(Cards.refund)
    assert end.sent[-1].request.who == "bob"
    assert end.attempts(Cards.charge) == 3


def test_what_waits_between_two_attempts_is_tried_at_once() -> None:
    test = SagaTest(Stubborn).retry(Cards.charge).answer(Cards.charge, Ticket(number="p")).answer(Mails.send, None)
    run = test.start(ANN).advance(1)
    end = run.retry().finish().assert_completed("p")
    assert end.elapsed == 1
    assert [event.by for event in end.journal if isinstance(event, StepAttempted)] == ["test"]


def test_a_delayed_start_is_moved() -> None:
    run = tour().delayed(86_400).start(ANN)
    assert (run.status, run.sent) == (Status.RUNNING, [])
    assert run.reschedule(60).finish().assert_completed().elapsed == 60
    assert tour().delayed(86_400).run(ANN).elapsed == 86_400
    with pytest.raises(NotApplied, match="the saga has ended"):
        run.reschedule(60)
