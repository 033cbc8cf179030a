"""The contracts that both files use."""

from pydantic import BaseModel

from orchestrator import Service, command


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
    receipt: Receipt | None


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
