"""Subscription billing: the card is charged every month, a declined one is tried again, and then the access ends.

Run it: `saga dev orchestrator.sagas.subscription_billing`. See `docs/subscription_billing.md`.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta

from pydantic import BaseModel

from orchestrator.errors import Failure, StepFailed
from orchestrator.participant import HandlerContext
from orchestrator.saga import Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command
from orchestrator.signals import signal


class Subscription(BaseModel):
    customer: str
    cents: int
    month: int = 1
    months: int | None = None  # so many are agreed on; None: until somebody cancels
    since: datetime | None = None  # the first day, from which all others are counted; None: today
    every: timedelta | None = None  # instead of a calendar month, to see it happen
    grace: timedelta = timedelta(days=3)  # between two tries of a declined card
    tries: int = 3


class Cancellation(BaseModel):
    why: str = ""


class Charge(BaseModel):
    customer: str
    month: int
    cents: int
    attempt: int


class Access(BaseModel):
    customer: str
    month: int


class Letter(BaseModel):
    customer: str
    text: str


class Cashier(Service):
    charge = command(Charge, str)
    refund = command(Charge)


class Membership(Service):
    grant = command(Access)
    end = command(Access)


class Letters(Service):
    send = command(Letter)


class SubscriptionBilling(Saga[Subscription, str]):
    cancelled = signal(Cancellation)

    async def run(self, this: Subscription) -> str:
        this = this.model_copy(update={"since": this.since or self.now()})
        end = end_of_month(this)
        if not await self.paid(this):
            return await self.over(this, f"not paid for month {this.month}")
        await self.step(Membership.grant(customer=this.customer, month=this.month), undo=Membership.end)
        if await self.receive(self.cancelled, timeout=self.until(end)):
            await self.sleep(self.until(end))  # what is paid for is theirs
            return await self.over(this, f"cancelled after month {this.month}")
        if this.month == this.months:
            return await self.over(this, f"{this.month} months as agreed")
        return self.continue_as_new(this.model_copy(update={"month": this.month + 1}))

    async def paid(self, this: Subscription) -> bool:
        """Tries a declined card again after some days, unless the customer cancels meanwhile."""
        for attempt in range(1, this.tries + 1):
            charge = Cashier.charge(customer=this.customer, month=this.month, cents=this.cents, attempt=attempt)
            try:
                await self.step(charge, undo=Cashier.refund)
                return True
            except StepFailed as failed:
                await self.tell(this, f"month {this.month}, request {attempt} of {this.tries}: {failed.error_type}")
            if attempt < this.tries and await self.receive(self.cancelled, timeout=this.grace):
                return False
        return False

    async def over(self, this: Subscription, why: str) -> str:
        await self.step(Membership.end(customer=this.customer, month=this.month))
        await self.tell(this, f"over: {why}")
        return why

    def until(self, end: datetime) -> timedelta:
        return max(end - self.now(), timedelta(0))

    async def tell(self, this: Subscription, text: str) -> None:
        await self.step(Letters.send(customer=this.customer, text=text))


def end_of_month(this: Subscription) -> datetime:
    """Counted from the first day, so that neither a short month nor an outage moves the date for good."""
    assert this.since is not None
    if this.every is not None:
        return this.since + this.month * this.every
    years, month = divmod(this.since.month - 1 + this.month, 12)
    year = this.since.year + years
    day = min(this.since.day, monthrange(year, month + 1)[1])
    return this.since.replace(year=year, month=month + 1, day=day)


# The services. Each keeps a book, see `orchestrator.sagas.books`.

BROKE = "Diogenes"  # has no money in any month
LATE = "Oblomov"  # has none when he is asked first

cashier = bookkeeper(Cashier)
membership = bookkeeper(Membership)
letters = bookkeeper(Letters)


@cashier.handles(Cashier.charge)
def charge(request: Charge, context: HandlerContext) -> str:
    if request.customer == BROKE or (request.customer == LATE and request.attempt == 1):
        raise Failure("CardDeclined", f"{request.customer} has no {request.cents / 100:.2f}")
    enter(context, f"charged {request.customer} {request.cents} for month {request.month}")
    return f"payment-{request.month}"


@cashier.handles(Cashier.refund)
def refund(request: Charge, context: HandlerContext) -> None:
    enter(context, f"refunded {request.customer} {request.cents} for month {request.month}")


@membership.handles(Membership.grant)
def grant(access: Access, context: HandlerContext) -> None:
    enter(context, f"{access.customer} may come in month {access.month}")


@membership.handles(Membership.end)
def end(access: Access, context: HandlerContext) -> None:
    enter(context, f"{access.customer} may come no more after month {access.month}")


@letters.handles(Letters.send)
def send(letter: Letter, context: HandlerContext) -> None:
    enter(context, f"to {letter.customer}: {letter.text}")
