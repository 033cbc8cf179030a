"""A saga with everything a test kit has to reach: a group, a pause, timeouts, a pivot, and services of three kinds."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from orchestrator import (
    Failure,
    HandlerContext,
    Participant,
    Pending,
    Retry,
    RetryLater,
    Saga,
    Service,
    command,
    signal,
)


class Trip(BaseModel):
    who: str
    nights: int = 2


class Booking(BaseModel):
    who: str


class Ticket(BaseModel):
    number: str


class Cancellation(BaseModel):
    who: str
    ticket: Ticket | None


class Hotels(Service):
    book = command(Booking, Ticket)
    free = command(Booking)


class Cars(Service):
    book = command(Booking, Ticket)
    free = command(Booking)


class Cards(Service):
    charge = command(Booking, Ticket)
    refund = command(Cancellation)


class Mails(Service):
    send = command(Booking)


class Travel(Saga[Trip, str]):
    """Hotel and car at the same time, a night's thought, then the card and the pivot."""

    async def run(self, trip: Trip) -> str:
        hotel, car = await self.gather(
            self.step(Hotels.book(who=trip.who), undo=Hotels.free, start_to_close=30, retry=Retry(maximum_attempts=2)),
            self.step(Cars.book(who=trip.who), undo=Cars.free),
        )
        await self.sleep(3600)
        paid = await self.step(
            Cards.charge(who=trip.who),
            undo=lambda ticket: Cards.refund(who=trip.who, ticket=ticket),
            schedule_to_close=600,
        )
        await self.step(Mails.send(who=trip.who), pivot=True)
        return f"{hotel.number} {car.number} {paid.number}"


class Decision(BaseModel):
    by: str
    ok: bool


class Approval(Saga[Trip, str]):
    """Two persons have to agree, each within three days; then somebody may press the button."""

    decided = signal(Decision)
    pressed = signal()

    async def run(self, trip: Trip) -> str:
        names = []
        for _ in range(2):
            decision = await self.receive(Approval.decided, timeout=timedelta(days=3))
            if decision is None:
                return "nobody cares"
            names.append(decision.by)
        await self.receive(Approval.pressed)
        await self.step(Cards.charge(who=trip.who), undo=lambda ticket: Cards.refund(who=trip.who, ticket=ticket))
        return " and ".join(names)


hotels = Participant(Hotels)
cars = Participant(Cars)
cards = Participant(Cards)


@hotels.handles(Hotels.book)
async def book_hotel(request: Booking) -> Ticket:
    await asyncio.sleep(0)
    if request.who == "nobody":
        raise Failure("NoName", "a hotel wants to know")
    return Ticket(number=f"h-{request.who}")


@hotels.handles(Hotels.free)
async def free_hotel(request: Booking) -> None:
    await asyncio.sleep(0)


@cars.handles(Cars.book)
def book_car(request: Booking, context: HandlerContext) -> Ticket:
    if context.attempt < 2:
        raise RetryLater(after=5, error_type="Garage", message="closed")
    return Ticket(number=context.idempotency_key)


@cars.handles(Cars.free)
def free_car(request: Booking) -> None:
    return None


@cards.handles(Cards.charge)
def charge(request: Booking, context: HandlerContext) -> Ticket:
    if request.who == "later":
        assert context.token
        raise Pending
    if request.who == "broken":
        raise KeyError(request.who)
    return Ticket(number="c-1")


@cards.handles(Cards.refund)
def refund(request: Cancellation) -> None:
    return None
