"""Travel booking: every way it can end."""

from datetime import timedelta

import pytest

from orchestrator.model.events import Status, Undone
from orchestrator.sagas.travel_booking import Airline, Cards, Cars, Hotels, Itinerary, TravelBooking, Trip
from orchestrator.testing import SagaTest

TRIP = Trip(id="t-1", traveller="Ada", destination="Paris", cents=90_000)


def all_but(*left_out: object) -> SagaTest[Trip, Itinerary]:
    """Everybody answers but these."""
    test = SagaTest(TravelBooking)
    answers = ((Airline.hold, "4A"), (Hotels.reserve, "12"), (Cars.reserve, "van"), (Airline.issue, "ticket"))
    for command, reply in answers:
        if command not in left_out:
            test.answer(command, reply)
    return test if Cards.charge in left_out else test.answer(Cards.charge, None)


def test_a_trip_is_booked_as_a_whole() -> None:
    end = all_but().run(TRIP)
    assert end.result == Itinerary(ticket="ticket", room="12", car="van")
    assert set(end.effects[:3]) == {Airline.hold, Hotels.reserve, Cars.reserve}
    assert end.effects[3:] == [Cards.charge, Airline.issue]


def test_without_a_room_nothing_stays_booked() -> None:
    end = all_but(Hotels.reserve).fail(Hotels.reserve, "NoRoom").run(TRIP)
    assert (end.status, end.undone, end.reason) == (Status.COMPENSATED, Undone.ALL, "NoRoom")
    assert {Airline.release, Cars.cancel} <= set(end.effects)
    assert not {Hotels.reserve, Hotels.cancel, Cards.charge} & set(end.effects)


def test_a_declined_card_gives_all_three_back() -> None:
    end = all_but(Cards.charge).fail(Cards.charge, "CardDeclined").run(TRIP)
    assert end.status is Status.COMPENSATED
    assert set(end.effects[3:]) == {Airline.release, Hotels.cancel, Cars.cancel}


def test_a_hotel_that_never_knows_is_cancelled_too() -> None:
    end = all_but(Hotels.reserve).retry(Hotels.reserve, "StillLooking").run(TRIP)
    assert end.status is Status.COMPENSATED
    assert {Airline.release, Hotels.cancel, Cars.cancel} <= set(end.effects)
    assert Cards.charge not in end.effects


def test_the_trip_goes_on_without_a_car() -> None:
    end = all_but(Cars.reserve).fail(Cars.reserve, "NoCar").run(TRIP)
    assert end.result == Itinerary(ticket="ticket", room="12", car=None)
    assert Cars.cancel not in end.effects


def test_a_car_that_nobody_knows_of_is_cancelled_and_the_trip_goes_on() -> None:
    end = all_but(Cars.reserve).retry(Cars.reserve).run(TRIP)
    assert end.result == Itinerary(ticket="ticket", room="12", car=None)
    assert end.effects.count(Cars.cancel) == 1


@pytest.mark.parametrize("failure", ["Strike", "SeatGone"])
def test_a_ticket_that_is_refused_gives_everything_back(failure: str) -> None:
    end = all_but(Airline.issue).fail(Airline.issue, failure).run(TRIP)
    assert (end.status, end.reason) == (Status.COMPENSATED, failure)
    assert end.effects[4] == Cards.refund
    assert set(end.effects[5:]) == {Airline.release, Hotels.cancel, Cars.cancel}


def test_the_whole_of_it_takes_two_hours_at_most() -> None:
    patient = TRIP.model_copy(update={"patience": timedelta(days=1)})
    end = all_but(Hotels.reserve).retry(Hotels.reserve, "StillLooking").run(patient)
    assert (end.status, end.undone) == (Status.TIMED_OUT, Undone.ALL)
    assert {Airline.release, Hotels.cancel, Cars.cancel} <= set(end.effects)
