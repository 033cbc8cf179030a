"""A declared saga runs as one that is written out."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from model.play import Play
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.plan import outcome, step, takes
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command


class Order(BaseModel):
    id: str


class Request(BaseModel):
    order_id: str
    note: str = ""


class Receipt(BaseModel):
    number: int


class Refund(BaseModel):
    order_id: str
    receipt: Receipt | None


class Shop(Service, name="plan-shop"):
    reserve = command(Request, str)
    release = command(Request)
    charge = command(Request, Receipt)
    refund = command(Refund)
    ship = command(Request, str)


class Declared(Saga[Order, str], name="Order"):
    order = takes(Order)
    stock = step(Shop.reserve(order_id=order.id), undo=Shop.release)
    paid = step(
        Shop.charge(order_id=order.id, note=stock),
        undo=Shop.refund(order_id=order.id, receipt=outcome(Receipt)),
        retry=Retry(maximum_attempts=2),
    )
    result = step(Shop.ship(order_id=order.id, note=stock), pivot=True)


class Written(Saga[Order, str], name="Order"):
    async def run(self, order: Order) -> str:
        stock = await self.step(Shop.reserve(order_id=order.id), undo=Shop.release)
        await self.step(
            Shop.charge(order_id=order.id, note=stock),
            undo=lambda receipt: Shop.refund(order_id=order.id, receipt=receipt),
            retry=Retry(maximum_attempts=2),
        )
        return await self.step(Shop.ship(order_id=order.id, note=stock), pivot=True)


def completes(play: Play) -> None:
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.do(3, "sent")
    assert play.ending.payload == b'"sent"'


def is_declined(play: Play) -> None:
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    play.undo(1)
    assert play.status is Status.COMPENSATED


def is_unknown(play: Play) -> None:
    play.do(1, "A")
    play.again(2)
    play.fire(2)
    play.again(2)
    assert play.sent[-1].payload == b'{"order_id":"o-1","receipt":null}'
    play.undo(2)
    play.undo(1)
    assert play.status is Status.COMPENSATED


def fails_late(play: Play) -> None:
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.reply(3, Outcome.FAILURE, "Lost")
    assert play.sent[-1].payload == b'{"order_id":"o-1","receipt":{"number":7}}'


@pytest.mark.parametrize("course", [completes, is_declined, is_unknown, fails_late])
def test_both_styles_give_the_same_history(course: object) -> None:
    journals: list[list[ev.Event]] = []
    for saga in (Declared, Written):
        play = Play(saga)
        play.start({"id": "o-1"})
        assert callable(course)
        course(play)
        journals.append(play.journal)
    assert journals[0] == journals[1]


def test_a_plan_without_a_result_gives_nothing() -> None:
    class Quiet(Saga[Order, None]):
        order = takes(Order)
        stock = step(Shop.reserve(order_id=order.id))

    play = Play(Quiet)
    play.start({"id": "o-1"})
    play.do(1, "A")
    assert play.ending.payload == b"null"
