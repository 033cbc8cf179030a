"""Travel booking: flight, hotel and car at the same time, then the card, then the ticket, which cannot be given back.

Run it: `saga dev orchestrator.sagas.travel_booking`. What it does when is in `docs/travel_booking.md`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from orchestrator.errors import Failure, Pending, StepFailed
from orchestrator.participant import HandlerContext
from orchestrator.saga import Retry, Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command


class Trip(BaseModel):
    id: str
    traveller: str
    destination: str
    cents: int
    patience: timedelta = timedelta(minutes=15)  # so long the traveller waits for any of the three


class Itinerary(BaseModel):
    ticket: str
    room: str
    car: str | None


class Wish(BaseModel):
    trip_id: str
    destination: str


class Charge(BaseModel):
    trip_id: str
    cents: int


class Ticket(BaseModel):
    seat: str
    traveller: str


class Airline(Service):
    hold = command(Wish, str)
    release = command(Wish)
    issue = command(Ticket, str)


class Hotels(Service):
    reserve = command(Wish, str)
    cancel = command(Wish)


class Cars(Service):
    reserve = command(Wish, str)
    cancel = command(Wish)


class Cards(Service):
    charge = command(Charge)
    refund = command(Charge)


class TravelBooking(Saga[Trip, Itinerary], execution_timeout=timedelta(hours=2)):
    async def run(self, trip: Trip) -> Itinerary:
        flight = Airline.hold(trip_id=trip.id, destination=trip.destination)
        room = Hotels.reserve(trip_id=trip.id, destination=trip.destination)
        held, reserved, car = await self.gather(
            self.step(flight, undo=Airline.release, schedule_to_close=trip.patience),
            self.step(room, undo=Hotels.cancel, schedule_to_close=trip.patience),
            self.car_if_any(trip),
        )
        await self.step(Cards.charge(trip_id=trip.id, cents=trip.cents), undo=Cards.refund)
        ticket = await self.step(Airline.issue(seat=held, traveller=trip.traveller), pivot=True)
        return Itinerary(ticket=ticket, room=reserved, car=car)

    async def car_if_any(self, trip: Trip) -> str | None:
        """Nobody stays at home because there is no car."""
        wish = Cars.reserve(trip_id=trip.id, destination=trip.destination)
        try:
            return await self.step(
                wish, undo=Cars.cancel, schedule_to_close=trip.patience, retry=Retry(maximum_attempts=3)
            )
        except StepFailed:
            return None


# The services. Each keeps a book, see `orchestrator.sagas.books`. Some places are short of something.

NO_CARS = "Venice"
FULLY_BOOKED = "Atlantis"
SLOW_HOTELS = "Shangri-La"  # they take the reservation, and never say whether there is a room
CARD_LIMIT_CENTS = 500_000

airline = bookkeeper(Airline)
hotels = bookkeeper(Hotels)
cars = bookkeeper(Cars)
cards = bookkeeper(Cards)


@airline.handles(Airline.hold)
def hold(wish: Wish, context: HandlerContext) -> str:
    enter(context, f"held a seat to {wish.destination}")
    return f"seat-of-{wish.trip_id}"


@airline.handles(Airline.release)
def release(wish: Wish, context: HandlerContext) -> None:
    enter(context, f"released the seat to {wish.destination}")


@airline.handles(Airline.issue)
def issue(ticket: Ticket, context: HandlerContext) -> str:
    enter(context, f"issued a ticket for {ticket.seat}")
    return f"ticket-for-{ticket.seat}"


@hotels.handles(Hotels.reserve)
def reserve_room(wish: Wish, context: HandlerContext) -> str:
    if wish.destination == FULLY_BOOKED:
        raise Failure("NoRoom", f"no room is left in {wish.destination}")
    enter(context, f"reserved a room in {wish.destination}")
    if wish.destination == SLOW_HOTELS:
        raise Pending
    return f"room-of-{wish.trip_id}"


@hotels.handles(Hotels.cancel)
def cancel_room(wish: Wish, context: HandlerContext) -> None:
    enter(context, f"cancelled the room in {wish.destination}")


@cars.handles(Cars.reserve)
def reserve_car(wish: Wish, context: HandlerContext) -> str:
    if wish.destination == NO_CARS:
        raise Failure("NoCar", f"nobody drives in {wish.destination}")
    enter(context, f"reserved a car in {wish.destination}")
    return f"car-of-{wish.trip_id}"


@cars.handles(Cars.cancel)
def cancel_car(wish: Wish, context: HandlerContext) -> None:
    enter(context, f"cancelled the car in {wish.destination}")


@cards.handles(Cards.charge)
def charge(request: Charge, context: HandlerContext) -> None:
    if request.cents > CARD_LIMIT_CENTS:
        raise Failure("CardDeclined", f"{request.cents / 100:.2f} is over the limit")
    enter(context, f"charged {request.cents}")


@cards.handles(Cards.refund)
def refund(request: Charge, context: HandlerContext) -> None:
    enter(context, f"refunded {request.cents}")
