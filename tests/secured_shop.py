"""Two services and a saga for each: orders are charged, parcels are shipped. Both services keep a ledger.

A business topic starts orders, too. What is to be charged later is left pending; the token goes to standard output.
"""

from pydantic import BaseModel

from orchestrator.participant import HandlerContext, Participant, Pending
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command
from orchestrator.sources import FromTopic


class Charge(BaseModel):
    order_id: str


class Payments(Service):
    charge = command(Charge, str)
    refund = command(Charge)


class Shipping(Service):
    ship = command(Charge, str)


class Order(Saga[Charge, str]):
    async def run(self, order: Charge) -> str:
        return await self.step(Payments.charge(order_id=order.order_id), undo=Payments.refund)


class Parcel(Saga[Charge, str]):
    async def run(self, order: Charge) -> str:
        await self.step(Payments.charge(order_id=order.order_id), undo=Payments.refund)
        retry = Retry(initial_interval=0.05, maximum_attempts=2)
        return await self.step(Shipping.ship(order_id=order.order_id), retry=retry)


orders = FromTopic("business.orders", Charge)
orders.starts(Order, id=lambda r: r.value.order_id, input=lambda r: r.value)

payments = Participant(Payments)
shipping = Participant(Shipping)


@payments.handles(Payments.charge)
def charge(request: Charge, context: HandlerContext) -> str:
    if request.order_id.startswith("later"):
        print("token", context.token, flush=True)
        raise Pending
    return f"charged {request.order_id}"


@payments.handles(Payments.refund)
def refund(request: Charge) -> None:
    return None


@shipping.handles(Shipping.ship)
def ship(request: Charge) -> str:
    return f"shipped {request.order_id}"
