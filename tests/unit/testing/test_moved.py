"""A saga under test goes on with another version of its code."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import Abort, PastRun, Saga, Status, query, signal
from orchestrator.errors import DefinitionError, NotApplied
from orchestrator.testing import End, SagaTest
from tests.unit.testing.trips import Booking, Cards, Hotels, Ticket, Trip

ANN = Trip(who="ann")


class First(Saga[Trip, str], name="Tour", pinned=True):
    go = signal(str)

    async def run(self, trip: Trip) -> str:
        await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.receive(First.go)
        return "first"


class Reworded(First, name="Tour", version=2):
    """Asks the same as the first, with other words."""

    async def run(self, trip: Trip) -> str:
        await self.step(Hotels.book(who=trip.who.upper()), undo=Hotels.free)
        return f"second {await self.receive(First.go)}"


class Other(Saga[Trip, str], name="Tour", version=2):
    async def run(self, trip: Trip) -> str:
        await self.sleep(1)
        return "other"


class Progress(BaseModel):
    who: str
    booked: list[Ticket] = []


class Third(Saga[Progress, Ticket], name="Tour", version=3):
    async def run(self, progress: Progress) -> Ticket:
        if not progress.booked:
            progress.booked.append(await self.step(Hotels.book(who=progress.who), undo=Hotels.free))
        paid = await self.step(
            Cards.charge(who=progress.who), undo=lambda ticket: Cards.refund(who=progress.who, ticket=ticket)
        )
        if paid.number == "stop":
            raise Abort("Stopped")
        return progress.booked[0]

    @query
    def who(self) -> str:
        return "third"

    @classmethod
    def migrate(cls, past: PastRun) -> Progress | None:
        return Progress(who=past.input["who"], booked=past.results(Hotels.book))


def tour() -> SagaTest[Trip, str]:
    return SagaTest(First).answer(Hotels.book, Ticket(number="h"))


def test_newer_code_takes_over_what_was_done_and_the_rest_is_its_own() -> None:
    saga = tour().answer(Cards.charge, Ticket(number="p")).start(ANN).until(First.go)
    end = saga.move_version(Third, "it is time").finish()
    end.assert_completed(Ticket(number="h"))  # type: ignore[arg-type]
    assert end.effects == [Hotels.book, Cards.charge]


def test_it_waits_for_what_is_in_flight() -> None:
    saga = tour().never(Cards.charge).start(ANN).until(Hotels.book).move_version(Third)
    assert saga.waiting_for == ["hotels.book"]
    assert saga.until(Cards.charge).query(Third.who) == "third"


def test_what_was_done_before_is_undone_with_it() -> None:
    test = tour().answer(Cards.charge, Ticket(number="stop"))
    saga = test.start(ANN).until(First.go).move_version(Third)
    saga.finish().assert_compensated(Cards.refund, Hotels.free)


def test_an_ended_saga_is_run_again_with_the_version_it_was_moved_to() -> None:
    saga = tour().answer(Cards.charge, Ticket(number="p")).start(ANN).until(First.go).move_version(Third)
    saga.finish()
    again: End[Any] = saga.restart(Progress(who="bob")).finish()
    assert [request.who for request in again.requests(Hotels.book)] == ["ann", "bob"]


def test_code_that_asks_the_same_with_other_words_goes_on_without_a_hook() -> None:
    saga = tour().start(ANN).until(First.go).move_version(Reworded)
    assert saga.signal(First.go, "on").finish().assert_completed("second on").attempts(Hotels.book) == 1


def test_code_that_goes_another_way_without_a_hook_is_parked_and_moved_back() -> None:
    saga = tour().start(ANN).until(First.go).move_version(Other)
    assert saga.status is Status.PARKED
    assert "the history has hotels.book, the code asks for sleep" in saga.end().reason
    saga.move_version(First).signal(First.go, "on").finish().assert_completed("first")


def test_what_a_move_does_not_change() -> None:
    saga = tour().start(ANN).until(First.go).signal(First.go, "on")
    with pytest.raises(NotApplied, match="the saga has ended"):
        saga.move_version(Reworded)
    assert saga.finish().result == "first"

    class Stranger(Saga[Trip, str], version=2):
        async def run(self, trip: Trip) -> str:
            return ""

    with pytest.raises(DefinitionError, match=r"Stranger is no version of Tour: class Stranger\(\.\.\., name='Tour'"):
        saga.move_version(Stranger)


# -- the hook by itself


def test_a_hook_is_asked_with_a_past_that_a_test_makes() -> None:
    past = PastRun.of(1, {"who": "ann"}, (Hotels.book, Ticket(number="h")), (Hotels.book, Ticket(number="i")))
    assert (past.version, past.input["who"]) == (1, "ann")
    assert (past.has_done(Hotels.book), past.has_done(Cards.charge)) == (True, False)
    assert Third.migrate(past) == Progress(who="ann", booked=[Ticket(number="h"), Ticket(number="i")])
    assert PastRun.of(2, None).results(Hotels.book) == []


def test_a_past_that_cannot_be_is_refused() -> None:
    with pytest.raises(TypeError, match="Trip is not JSON"):
        PastRun.of(1, ANN)
    with pytest.raises(ValidationError):
        PastRun.of(1, {}, (Hotels.book, Booking(who="ann")))
