"""Baggage: from a client's start through the history to code and handlers."""

from dataclasses import replace

import pytest
from pydantic import BaseModel

from orchestrator import HandlerContext, Participant, Saga, Service, command
from orchestrator.baggage import MAX_BAGGAGE_BYTES, read_baggage, write_baggage
from orchestrator.client.client import Client, Outgoing
from orchestrator.errors import Abort, InvalidRequest
from orchestrator.model import events as ev
from orchestrator.testing import SagaTest
from orchestrator.wire import headers as h
from tests.shop_world import Order as ShopOrder
from tests.shop_world import OrderFulfilment, World, drive


class Order(BaseModel):
    id: str


class Shop(Service):
    sell = command(Order, str)
    take_back = command(Order)


shop = Participant(Shop)
told: list[tuple[str, dict[str, str]]] = []


@shop.handles(Shop.sell)
def sell(order: Order, context: HandlerContext) -> str:
    told.append((context.direction, dict(context.baggage)))
    return context.baggage["tenant"]


@shop.handles(Shop.take_back)
def take_back(order: Order, context: HandlerContext) -> None:
    told.append((context.direction, dict(context.baggage)))


class Sale(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        first = await self.step(Shop.sell(id=order.id), undo=Shop.take_back)
        if self.baggage["user"] == "mallory":
            raise Abort("NotAllowed")
        return f"{first} for {self.baggage['user']}"


def test_what_is_written_is_read_again() -> None:
    values = {"tenant": "ACME, Inc.; 50 %=x", "user-id": "ü", "empty": ""}
    assert read_baggage(write_baggage(values)) == values
    assert write_baggage({}) is None
    assert read_baggage(None) == {}
    assert read_baggage(" a = 1 ;secret, b=2,c,=4") == {"a": "1", "b": "2"}


def test_bad_baggage_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="'my tenant' is no name; use letters, digits"):
        write_baggage({"my tenant": "x"})
    with pytest.raises(ValueError, match="has 2050 bytes as a header, at most 2048"):
        write_baggage({"a": "x" * MAX_BAGGAGE_BYTES})


def test_code_and_handlers_get_it_also_the_undo() -> None:
    told.clear()
    end = SagaTest(Sale).service(shop).baggage(tenant="acme", user="eve").run(Order(id="o-1"))
    assert end.result == "acme for eve"
    started = end.journal[0]
    assert isinstance(started, ev.SagaStarted)
    assert started.baggage == "tenant=acme,user=eve"
    carried = {"tenant": "acme", "user": "mallory"}
    SagaTest(Sale).service(shop).baggage(**carried).run(Order(id="o-2")).assert_compensated(Shop.take_back)
    assert told == [("do", {"tenant": "acme", "user": "eve"}), ("do", carried), ("undo", carried)]


def test_a_client_sends_it_and_what_is_around_the_client_adds_to_it() -> None:
    world = World()
    seen: list[Outgoing] = []

    def tenant(sent: Outgoing) -> Outgoing:
        seen.append(sent)
        return replace(sent, baggage={**sent.baggage, "tenant": "acme"})

    def forbid(sent: Outgoing) -> Outgoing:
        if sent.saga_id == "o-2":
            raise PermissionError(sent.name)
        return sent

    async def work() -> None:
        async with Client(world.log, world.topics, 4, around=[tenant, forbid]) as client:
            handle = await client.start(OrderFulfilment, ShopOrder(id="o-1"), id="o-1", baggage={"user": "eve"})
            assert await handle.result() == "shipped"
            with pytest.raises(PermissionError, match="OrderFulfilment"):
                await client.start(OrderFulfilment, ShopOrder(id="o-2"), id="o-2")
            with pytest.raises(InvalidRequest, match="saga 'o-3': baggage has"):
                await client.start(OrderFulfilment, ShopOrder(id="o-3"), id="o-3", baggage={"user": "x" * 3_000})

    drive(world, work())
    assert [(sent.kind, sent.name, sent.saga_id) for sent in seen] == [
        ("start", "OrderFulfilment", saga_id) for saga_id in ("o-1", "o-2", "o-3")
    ]
    carried = {
        dict(record.headers)[h.BAGGAGE]
        for service in ("inventory", "payments", "shipping")
        for record in world.records(world.topics.commands(service))
    }
    assert carried == {b"user=eve,tenant=acme"}


def test_a_foreign_start_with_too_much_becomes_a_dead_letter() -> None:
    world = World()
    headers = h.write_headers({h.SAGA_TYPE: "OrderFulfilment", h.BAGGAGE: "a=" + "x" * MAX_BAGGAGE_BYTES})
    world.log.appender().append(world.topics.inbox, 0, b"{}", key=b"o-1", headers=headers, token=None)
    world.settle()
    (letter,) = world.records(world.topics.dead_letters)
    assert any(b"'baggage' has at most 2048 bytes" in content for _, content in letter.headers)
