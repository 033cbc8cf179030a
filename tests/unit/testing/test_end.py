"""What can be asserted about an end, and what a failed assertion says."""

import pytest

from orchestrator import Saga
from orchestrator.testing import End, SagaTest
from tests.unit.testing.trips import Booking, Cancellation, Cards, Cars, Hotels, Mails, Ticket, Travel, Trip

ANN = Trip(who="ann")


def travel() -> SagaTest[Trip, str]:
    return SagaTest(Travel).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="k"))


def done() -> End[str]:
    return travel().answer(Cards.charge, Ticket(number="c")).answer(Mails.send, None).run(ANN)


def refused() -> End[str]:
    return travel().answer(Cards.charge, Ticket(number="c")).fail(Mails.send, "NoAddress").run(ANN)


class OneByOne(Saga[Trip, None]):
    async def run(self, trip: Trip) -> None:
        await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.step(Cars.book(who=trip.who), undo=Cars.free)
        await self.step(Mails.send(who=trip.who), pivot=True)


def test_completed() -> None:
    assert done().assert_completed().result == "h k c"
    done().assert_completed("h k c")
    with pytest.raises(AssertionError, match=r"it completed with 'h k c', expected was 'other'"):
        done().assert_completed("other")
    with pytest.raises(AssertionError, match=r"it has not completed: <COMPENSATED \(NoAddress\)"):
        refused().assert_completed()


def test_compensated_in_order_and_together() -> None:
    end = refused()
    end.assert_compensated()
    end.assert_compensated(Cards.refund, {Hotels.free, Cars.free})
    end.assert_compensated(Cards.refund, Cars.free, Hotels.free)
    assert end.undone_commands == [Cards.refund, Cars.free, Hotels.free]


def test_what_is_not_compensated_says_what_is() -> None:
    with pytest.raises(AssertionError, match=r"it is not undone \(none\): <COMPLETED"):
        done().assert_compensated()
    with pytest.raises(AssertionError, match=r"undone were \[cards.refund, cars.free, hotels.free\], expected was"):
        refused().assert_compensated({Hotels.free, Cars.free}, Cards.refund)
    with pytest.raises(AssertionError, match=r"undone were"):
        refused().assert_compensated(Cards.refund)
    with pytest.raises(AssertionError, match=r"undone were"):
        refused().assert_compensated(Cards.refund, Cars.free, Hotels.free, Cars.free)


def test_what_is_undone_one_after_the_other_is_not_undone_together() -> None:
    steps = SagaTest(OneByOne).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="k"))
    end = steps.fail(Mails.send, "NoAddress").run(ANN)
    end.assert_compensated(Cars.free, Hotels.free)
    with pytest.raises(AssertionError, match="were undone one after the other, not at the same time"):
        end.assert_compensated({Cars.free, Hotels.free})


def test_failed() -> None:
    refused().assert_failed().assert_failed("NoAddress")
    with pytest.raises(AssertionError, match="it failed with 'NoAddress', expected was 'Strike'"):
        refused().assert_failed("Strike")
    with pytest.raises(AssertionError, match="it has not failed: <COMPLETED"):
        done().assert_failed()


def test_what_ran_together() -> None:
    end = refused()
    assert end.ran_together(Hotels.book, Cars.book)
    assert end.ran_together(Hotels.free, Cars.free)
    assert not end.ran_together(Hotels.book, Cards.charge)
    with pytest.raises(AssertionError, match=r"mails\.send was never sent"):
        travel().fail(Cards.charge, "Broke").run(ANN).ran_together(Hotels.book, Mails.send)


def test_what_was_asked_for() -> None:
    end = refused()
    assert end.requests(Hotels.book) == [Booking(who="ann")]
    assert end.requests(Cards.refund) == [Cancellation(who="ann", ticket=Ticket(number="c"))]
    assert [sent.key for sent in end.sent if sent.command is Cards.refund] == ["test/1-1-0/4/undo"]
