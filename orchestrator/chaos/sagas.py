"""What runs during chaos: sagas of every kind, and the three services that they ask.

A service commits its effect with the idempotency key, and its book is on the disk before it answers. It looks for a
file `<service>.slow` beside its book and, where there is one, takes as many milliseconds as the file says.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from orchestrator.errors import Abort, Failure, RetryLater
from orchestrator.participant import HandlerContext
from orchestrator.questions import query, update
from orchestrator.retry import Retry
from orchestrator.saga import Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command
from orchestrator.signals import signal

MODULE = "orchestrator.chaos.sagas"
BOOKS = "SHOP_BOOKS"
"""The environment variable that names the folder of the books."""
ANSWERED_AT = 3
"""The attempt at which a service that is asked to be stubborn does what it is told."""


class Ware(BaseModel):
    order: str
    count: int = 1


class Payment(BaseModel):
    order: str
    declined: bool = False


class Parcel(BaseModel):
    order: str


class Stock(Service):
    reserve = command(Ware, int)
    release = command(Ware)


class Cards(Service):
    charge = command(Payment, str)
    insist = command(Payment, int)
    refund = command(Payment)


class Post(Service):
    send = command(Parcel, str)


SERVICES = (Stock.name, Cards.name, Post.name)


class Given(BaseModel):
    """The input of all these sagas. `amount`: how many signals, runs or milliseconds, as the saga has it."""

    order: str
    refused: bool = False
    amount: int = 0


class ChaosOrder(Saga[Given, str]):
    """Three steps; the card of some is declined, and then the goods go back."""

    async def run(self, given: Given) -> str:
        await self.step(Stock.reserve(order=given.order), undo=Stock.release)
        payment = Payment(order=given.order, declined=given.refused)
        await self.step(
            Cards.charge(order=given.order, declined=given.refused),
            undo=lambda receipt: Cards.refund(order=payment.order),
        )
        return await self.step(Post.send(order=given.order), pivot=True)


class ChaosParallel(Saga[Given, int]):
    """Two steps at once; some give up afterwards, and both are undone."""

    async def run(self, given: Given) -> int:
        reserved, _ = await self.gather(
            self.step(Stock.reserve(order=given.order, count=2), undo=Stock.release),
            self.step(Cards.charge(order=given.order), undo=Cards.refund),
        )
        if given.refused:
            raise Abort("ChangedMyMind")
        return reserved


def following(number: int) -> int:
    """What a local step does."""
    return number + 1


def withdrawn(result: int | None, number: int) -> None:
    """How a local step is undone."""


class ChaosLocal(Saga[Given, int]):
    """Three local steps with undos; some fail behind them."""

    async def run(self, given: Given) -> int:
        number = 0
        for _ in range(3):
            number = await self.local(following, number, undo=withdrawn)
        if given.refused:
            raise Abort("ChangedMyMind")
        return number


class ChaosParent(Saga[Given, str]):
    """An order as a child, between two local steps."""

    async def run(self, given: Given) -> str:
        await self.local(following, 0)
        sent = await self.child(ChaosOrder, Given(order=f"{given.order}-child", refused=given.refused))
        await self.local(following, 1)
        return sent


class ChaosSleeper(Saga[Given, int]):
    """Sleeps twice, with a local step between."""

    async def run(self, given: Given) -> int:
        await self.sleep(given.amount / 1000)
        number = await self.local(following, 0)
        await self.sleep(given.amount / 2000)
        return number


class ChaosTold(Saga[Given, int]):
    """Waits until it was told so many things."""

    word = signal(int)

    async def run(self, given: Given) -> int:
        heard = 0
        for _ in range(given.amount):
            heard += await self.receive(ChaosTold.word)
        return heard


class ChaosStubborn(Saga[Given, int]):
    """Asks a service that answers only the third attempt."""

    async def run(self, given: Given) -> int:
        return await self.step(
            Cards.insist(order=given.order),
            undo=Cards.refund,
            retry=Retry(initial_interval=0.2, backoff_coefficient=1.5, maximum_interval=2.0),
            start_to_close=30.0,
        )


class ChaosCancelled(Saga[Given, None]):
    """Reserves something and then waits for hours; its client cancels it before."""

    async def run(self, given: Given) -> None:
        await self.step(Stock.reserve(order=given.order), undo=Stock.release)
        await self.sleep(timedelta(hours=6))


class ChaosContinued(Saga[Given, int]):
    """So many runs, each of which does little and continues as the next."""

    async def run(self, given: Given) -> int:
        await self.local(following, given.amount)
        if given.amount > 0:
            self.continue_as_new(given.model_copy(update={"amount": given.amount - 1}))
        return given.amount


class ChaosLocked(Saga[Given, int]):
    """Does its step while it holds one of a few keys, so that others wait."""

    async def run(self, given: Given) -> int:
        async with self.lock(f"shelf/{given.amount}"):
            return await self.step(Stock.reserve(order=given.order), undo=Stock.release)


class ChaosCounted(Saga[Given, int]):
    """Adds what updates say, and tells queries the sum, until it was updated so often."""

    def __init__(self) -> None:
        self.sum = 0
        self.times = 0

    @query
    def total(self) -> int:
        return self.sum

    @update
    async def add(self, number: int) -> int:
        self.sum += number
        self.times += 1
        return self.sum

    async def run(self, given: Given) -> int:
        await self.wait_until(lambda: self.times >= given.amount)
        return self.sum


stock = bookkeeper(Stock, fsync=True)
cards = bookkeeper(Cards, fsync=True)
post = bookkeeper(Post, fsync=True)


@stock.handles(Stock.reserve)
def reserve(request: Ware, context: HandlerContext) -> int:
    dawdle(Stock.name)
    enter(context, f"reserved {request.count} for {request.order}")
    return request.count


@stock.handles(Stock.release)
def release(request: Ware, context: HandlerContext) -> None:
    enter(context, f"released {request.count} of {request.order}")


@cards.handles(Cards.charge)
def charge(request: Payment, context: HandlerContext) -> str:
    dawdle(Cards.name)
    if request.declined:
        raise Failure("CardDeclined")
    enter(context, f"charged {request.order}")
    return f"receipt-{request.order}"


@cards.handles(Cards.insist)
def insist(request: Payment, context: HandlerContext) -> int:
    if context.attempt < ANSWERED_AT:
        raise RetryLater(error_type="NotYet")
    enter(context, f"charged {request.order} at last")
    return context.attempt


@cards.handles(Cards.refund)
def refund(request: Payment, context: HandlerContext) -> None:
    enter(context, f"refunded {request.order}")


@post.handles(Post.send)
def send(request: Parcel, context: HandlerContext) -> str:
    dawdle(Post.name)
    enter(context, f"sent {request.order}")
    return f"sent {request.order}"


def slow_file(books: Path, service: str) -> Path:
    """Where it is written how slow a service is."""
    return books / f"{service}.slow"


def dawdle(service: str) -> None:
    """Takes as long as the service's file says; nothing where there is none."""
    try:
        text = slow_file(Path(os.environ[BOOKS]), service).read_text()
    except (OSError, KeyError):
        return
    time.sleep(int(text or "0") / 1000)
