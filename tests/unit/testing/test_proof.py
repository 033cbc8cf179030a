"""`prove` finds what is wrong with a saga, tells the simplest case that shows it, and passes what is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import Abort, Canceled, Retry, Saga, StepFailed
from orchestrator.sagas import order_fulfilment as shop
from orchestrator.sagas.order_fulfilment import Order, OrderFulfilment
from orchestrator.testing import End, SagaTest, prove
from tests.unit.testing.trips import (
    Approval,
    Cancellation,
    Cards,
    Cars,
    Decision,
    Hotels,
    Mails,
    Ticket,
    Travel,
    Trip,
    cards,
    cars,
    hotels,
)

ANN = Trip(who="ann")
ORDER = Order(id="o-1", sku="tea", cents=900)


def services(saga: type[Saga[Trip, Any]]) -> SagaTest[Trip, Any]:
    return SagaTest(saga).service(hotels, cars, cards).answer(Mails.send, None)


@contextmanager
def disproved(*words: str) -> Iterator[None]:
    with pytest.raises(AssertionError) as failed:
        yield
    for each in words:
        assert each in str(failed.value)


# -- what is right


def test_a_saga_with_a_group_a_pause_and_a_pivot() -> None:
    proof = prove(services(Travel), ANN)
    assert proof.cases > 500
    assert proof.ways > 25
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED"}
    assert repr(proof).startswith(f"<{proof.cases} cases over {proof.ways} ways: ")


def test_participants_with_their_inboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")
    test = SagaTest(OrderFulfilment).service(shop.inventory, shop.payments, shop.shipping)
    proof = prove(test, ORDER)
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_a_saga_that_waits_for_signals() -> None:
    test = SagaTest(Approval).answer(Cards.charge, Ticket(number="c")).signal(Approval.pressed, after=60)
    test.signal(Approval.decided, Decision(by="ann", ok=True)).signal(Approval.decided, Decision(by="bob", ok=True))
    proof = prove(test, ANN)
    assert proof.statuses["COMPLETED"] > 10


class Sworn(Saga[Trip, str], execution_timeout=timedelta(days=1)):
    async def run(self, trip: Trip) -> str:
        ticket = await self.step(
            Hotels.book(who=trip.who),
            undo=Hotels.free,
            undo_retry=Retry(maximum_attempts=2),
            retry=Retry(maximum_attempts=2, exhausted="park"),
        )
        try:
            await self.step(Cards.charge(who=trip.who), undo=lambda paid: Cards.refund(who=trip.who, ticket=paid))
        except StepFailed:
            await self.step(Cars.book(who=trip.who), undo=Cars.free)
        await self.step(Mails.send(who=trip.who), pivot=True)
        await self.step(Mails.send(who="all"))
        return ticket.number


def test_parking_alternatives_a_timeout_of_its_own_and_a_step_behind_the_pivot() -> None:
    proof = prove(services(Sworn), ANN)
    assert proof.statuses["TIMED_OUT"] > 10
    assert proof.statuses["PARKED"] == 0


class Racing(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        _, first = await self.race(
            self.step(Hotels.book(who=trip.who), undo=Hotels.free), self.step(Cars.book(who=trip.who), undo=Cars.free)
        )
        await self.step(Mails.send(who=trip.who), pivot=True)
        return first.number


def test_the_loser_of_a_race_is_undone_while_the_saga_goes_on() -> None:
    proof = prove(services(Racing), ANN, check=lambda end: end.status == "COMPLETED" or Mails.send not in end.effects)
    assert proof.statuses["COMPLETED"] > 50
    with disproved("check(end) is False for <COMPLETED"):
        prove(services(Racing), ANN, check=lambda end: Cars.free not in end.effects)


# -- what is wrong


class NoUndo(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        hotel = await self.step(Hotels.book(who=trip.who))
        await self.step(Mails.send(who=trip.who), pivot=True)
        return hotel.number


def test_a_step_that_nothing_undoes() -> None:
    with disproved(
        "NoUndo is not completed or fully compensated (the simplest of 9 cases)",
        "a client cancels before arrival 1",
        "the saga is CANCELED, and what hotels.book (step 1) has done stays: it has no undo",
        'only="cancel 1"',
    ):
        prove(services(NoUndo), ANN, harmless=[])
    prove(services(NoUndo), ANN, harmless=[Hotels.book])


class Forgetful(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        rooms: dict[str, Ticket] = {}
        try:
            rooms["hotel"] = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
            await self.step(Mails.send(who=trip.who), pivot=True)
        except Canceled:
            print(rooms["hotel"].number)
            raise
        return rooms["hotel"].number


def test_clean_up_that_breaks_where_nobody_looked() -> None:
    with disproved("a client cancels before arrival 1", "it is parked, for the code raised KeyError"):
        prove(services(Forgetful), ANN)


class Trusting(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        await self.step(Cards.charge(who=trip.who), undo=lambda paid: Cards.refund(who=trip.who, ticket=paid))
        await self.step(Mails.send(who=trip.who), pivot=True)
        raise Abort("TooLate")


def test_a_failure_behind_the_pivot() -> None:
    with disproved("it is parked, for the saga failed after its pivot step", "(the simplest of 1 cases)"):
        prove(services(Trusting), ANN)


class Deaf(Saga[Trip, str]):
    pressed = Approval.pressed

    async def run(self, trip: Trip) -> str:
        try:
            hotel = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        except StepFailed:
            await self.receive(Deaf.pressed)
            raise
        return hotel.number


def test_a_way_that_never_ends() -> None:
    with disproved("command 1 (hotels.book) is refused", "it has no end: the saga waits for ever, for signal "):
        prove(services(Deaf), ANN)


def test_what_the_test_itself_says_about_each_end() -> None:
    def nothing_is_refunded(end: End[str]) -> None:
        assert Cards.refund not in end.effects, f"{len(end.effects)} effects"

    with disproved("command 3 (cards.charge) has its effect, and its replies are lost", "6 effects", 'only="lose 3"'):
        prove(services(Travel), ANN, check=nothing_is_refunded)


class Doubled(Saga[Trip, str]):
    """Its effects depend on how often it was called: production would see that after a crash only."""

    calls = 0

    async def run(self, trip: Trip) -> str:
        Doubled.calls += 1
        hotel = await self.step(Hotels.book(who=f"{trip.who}"), undo=Hotels.free)
        if Doubled.calls > 40:
            await self.sleep(1)
        await self.step(Mails.send(who=trip.who), pivot=True)
        return hotel.number


def test_code_that_does_not_replay() -> None:
    with disproved("Doubled is not deterministic", "asks for"):
        prove(services(Doubled), ANN)


def refuse_refunds(request: Cancellation) -> None:
    raise LookupError(request.who)


def test_an_undo_that_never_works() -> None:
    test = services(Travel).handle(Cards.refund, refuse_refunds)
    with disproved("it has no end: <PARKED", "undo attempt"):
        prove(test, ANN)


# -- repeating


def test_one_case_can_be_repeated() -> None:
    with disproved("1 cases", 'only="refuse 2"'):
        prove(services(NoUndo), ANN, only="refuse 2")
    assert prove(services(NoUndo), ANN, only="crash 1, twice 2").cases == 1
    with pytest.raises(AssertionError, match="'explode 1' is no fault; known are refuse, trouble"):
        prove(services(NoUndo), ANN, only="explode 1")
