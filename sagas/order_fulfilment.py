"""Order fulfilment: reserve stock, charge the card, ship. A declined card gives the stock back.

Run it: `saga worker orchestrator.sagas.order_fulfilment`, and for each service
`saga participant orchestrator.sagas.order_fulfilment:inventory` (likewise `payments`, `shipping`); or all of it with
`saga dev`. The services keep their books in SQLite files in the folder that SHOP_BOOKS names, `.saga/shop` by default;
`:memory:` is for tests.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from pydantic import BaseModel

from orchestrator.connectors.sql import SqlInbox
from orchestrator.errors import Failure
from orchestrator.participant import HandlerContext, Participant
from orchestrator.saga import Retry, Saga
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


# The services. What each has done stands in its table `book`, written in the transaction that also keeps the
# idempotency key: so a command that comes twice is in the book once.


def books(service: str) -> Path | str:
    """The SQLite file of one service."""
    folder = Path(os.environ.get("SHOP_BOOKS", ".saga/shop"))
    if str(folder) == ":memory:":
        return ":memory:"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{service}.db"


def connect(service: str) -> sqlite3.Connection:
    """A connection to a service's book, which is made if it is not there."""
    connection = sqlite3.connect(books(service), timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # outlives the process, not the machine: enough for a demonstration
    connection.execute(
        "CREATE TABLE IF NOT EXISTS book (number INTEGER PRIMARY KEY, key TEXT, saga_id TEXT, run TEXT, step INTEGER,"
        " direction TEXT, entry TEXT)"
    )
    return connection


def enter(context: HandlerContext, entry: str) -> None:
    """Writes one line into the book, in the handler's transaction."""
    context.connection.execute(
        "INSERT INTO book (key, saga_id, run, step, direction, entry) VALUES (?, ?, ?, ?, ?, ?)",
        (context.idempotency_key, context.saga_id, context.run, context.step, context.direction, entry),
    )


inventory = Participant(Inventory, inbox=SqlInbox(lambda: connect("inventory")))
payments = Participant(Payments, inbox=SqlInbox(lambda: connect("payments")))
shipping = Participant(Shipping, inbox=SqlInbox(lambda: connect("shipping")))


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
