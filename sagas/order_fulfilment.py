"""Order fulfilment: reserve stock, charge the card, ship. A declined card gives the stock back.

Run it: `saga worker orchestrator.sagas.order_fulfilment`, and for each service
`saga participant orchestrator.sagas.order_fulfilment:inventory` (likewise `payments`, `shipping`); or all of it with
`saga dev`. See `docs/order_fulfilment.md`.
"""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator.errors import Failure
from orchestrator.participant import HandlerContext
from orchestrator.saga import Retry, Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command

CARD_LIMIT_CENTS = 100_000


class Order(BaseModel):
    id: str
    sku: str
    cents: int


class Reserve(BaseModel):
    order_id: str
    sku: str


class Reservation(BaseModel):
    warehouse: str


class Charge(BaseModel):
    order_id: str
    cents: int


class Receipt(BaseModel):
    payment_id: str


class Refund(BaseModel):
    order_id: str
    receipt: Receipt | None  # None: nobody knows whether the card was charged


class Ship(BaseModel):
    order_id: str
    warehouse: str


class Inventory(Service):
    reserve = command(Reserve, Reservation)
    release = command(Reserve)


class Payments(Service):
    charge = command(Charge, Receipt)
    refund = command(Refund)


class Shipping(Service):
    ship = command(Ship, str)


class OrderFulfilment(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id, sku=order.sku), undo=Inventory.release)
        await self.step(
            Payments.charge(order_id=order.id, cents=order.cents),
            retry=Retry(maximum_attempts=5),
            undo=lambda receipt: Payments.refund(order_id=order.id, receipt=receipt),
        )
        return await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)


# The services. Each keeps a book, see `orchestrator.sagas.books`.

inventory = bookkeeper(Inventory)
payments = bookkeeper(Payments)
shipping = bookkeeper(Shipping)


@inventory.handles(Inventory.reserve)
def reserve(request: Reserve, context: HandlerContext) -> Reservation:
    enter(context, f"reserved {request.sku} for {request.order_id}")
    return Reservation(warehouse="A")


@inventory.handles(Inventory.release)
def release(request: Reserve, context: HandlerContext) -> None:
    enter(context, f"released {request.sku} of {request.order_id}")


@payments.handles(Payments.charge)
def charge(request: Charge, context: HandlerContext) -> Receipt:
    if request.cents > CARD_LIMIT_CENTS:
        raise Failure("CardDeclined", f"{request.cents / 100:.2f} is over the limit")
    enter(context, f"charged {request.cents} for {request.order_id}")
    return Receipt(payment_id=f"payment-{request.order_id}")


@payments.handles(Payments.refund)
def refund(request: Refund, context: HandlerContext) -> None:
    enter(context, f"refunded {request.order_id}")


@shipping.handles(Shipping.ship)
def ship(request: Ship, context: HandlerContext) -> str:
    enter(context, f"shipped {request.order_id} from {request.warehouse}")
    return f"shipped {request.order_id}"
