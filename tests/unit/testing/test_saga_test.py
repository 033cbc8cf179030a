"""The test kit: what a user's first test looks like, and what it says when something is wrong."""

from itertools import count

import pytest
from pydantic import BaseModel

from orchestrator.model.events import Status
from orchestrator.saga import Retry, Saga
from orchestrator.sagas.order_fulfilment import (
    Inventory,
    Order,
    OrderFulfilment,
    Payments,
    Receipt,
    Reservation,
    Shipping,
)
from orchestrator.service import Service, command
from orchestrator.testing import SagaTest

ORDER = Order(id="o-1", sku="tea", cents=900)


def happy() -> SagaTest[Order, str]:
    return (
        SagaTest(OrderFulfilment)
        .answer(Inventory.reserve, Reservation(warehouse="A"))
        .answer(Payments.charge, Receipt(payment_id="p-1"))
        .answer(Shipping.ship, "shipped")
    )


def test_declined_card_gives_the_stock_back() -> None:
    saga = (
        SagaTest(OrderFulfilment)
        .answer(Inventory.reserve, Reservation(warehouse="A"))
        .fail(Payments.charge, "CardDeclined")
    )
    end = saga.run(ORDER)
    assert end.status is Status.COMPENSATED
    assert end.effects == [Inventory.reserve, Inventory.release]


def test_a_paid_order_is_shipped() -> None:
    end = happy().run(ORDER)
    assert end.status is Status.COMPLETED
    assert end.result == "shipped"
    assert end.effects == [Inventory.reserve, Payments.charge, Shipping.ship]


def test_retries_take_no_time() -> None:
    saga = (
        SagaTest(OrderFulfilment)
        .answer(Inventory.reserve, Reservation(warehouse="A"))
        .retry(Payments.charge, times=3)
        .answer(Payments.charge, Receipt(payment_id="p-1"))
        .answer(Shipping.ship, "shipped")
    )
    assert saga.run(ORDER).status is Status.COMPLETED


def test_used_up_retries_are_undone_because_nobody_knows() -> None:
    saga = (
        SagaTest(OrderFulfilment).answer(Inventory.reserve, Reservation(warehouse="A")).retry(Payments.charge, times=5)
    )
    end = saga.run(ORDER)
    assert end.status is Status.COMPENSATED
    assert end.effects == [Inventory.reserve, Payments.refund, Inventory.release]


def test_a_missing_answer_says_what_to_add() -> None:
    with pytest.raises(AssertionError, match=r"payments\.charge was sent.*add \.answer"):
        SagaTest(OrderFulfilment).answer(Inventory.reserve, Reservation(warehouse="A")).run(ORDER)


class Nothing(BaseModel):
    pass


class Clock(Service):
    tick = command(Nothing)


class Waiter(Saga[Nothing, float]):
    async def run(self, given: Nothing) -> float:
        before = self.now()
        await self.sleep(3 * 24 * 3600)
        await self.step(Clock.tick(), retry=Retry(maximum_attempts=1))
        return (self.now() - before).total_seconds()


def test_days_pass_at_once() -> None:
    end = SagaTest(Waiter).answer(Clock.tick, None).run(Nothing())
    assert end.result == 3 * 24 * 3600


class Careless(Saga[Nothing, None]):
    calls = 0

    async def run(self, given: Nothing) -> None:
        Careless.calls += 1
        if Careless.calls % 2:
            await self.step(Clock.tick())
        else:
            await self.sleep(1)


def test_code_that_is_not_deterministic_fails_its_test_with_the_difference() -> None:
    with pytest.raises(AssertionError) as failed:
        SagaTest(Careless).answer(Clock.tick, None).run(Nothing())
    assert str(failed.value) == (
        "Careless is not deterministic. step 1: the history has clock.tick, the code asks for sleep\n"
        "the code was woken at its start\n"
        "  step  history     code\n"
        "!    1  clock.tick  sleep  running"
    )


class Guessing(Saga[Order, str]):
    """What it asks for is the same each time by name only."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=f"{order.id}-{next(COUNTER)}", sku=order.sku))
        return stock.warehouse


class Fickle(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        await self.step(Inventory.reserve(order_id=order.id, sku=order.sku))
        return f"result {next(COUNTER)}"


COUNTER = count(1)


def test_a_request_made_of_chance_is_found_by_its_content() -> None:
    with pytest.raises(
        AssertionError, match=r'history has inventory.reserve \{"order_id":"o-1-\d.*code asks for .*"o-1-\d'
    ):
        SagaTest(Guessing).answer(Inventory.reserve, Reservation(warehouse="A")).run(ORDER)


def test_a_result_made_of_chance_is_found_when_the_end_is_replayed() -> None:
    with pytest.raises(AssertionError, match=r'ended with "result \d+", replayed with "result \d+"'):
        SagaTest(Fickle).answer(Inventory.reserve, Reservation(warehouse="A")).run(ORDER)


class Forgetful(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        await self.step(Inventory.reserve(order_id=order.id, sku=order.sku))
        return {"tea": "green"}[order.id]


def test_a_mistake_in_the_saga_is_one_readable_line_and_its_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = SagaTest(Forgetful).answer(Inventory.reserve, Reservation(warehouse="A")).run(ORDER)
    assert repr(end) == "<PARKED (the code raised KeyError: 'o-1') after [inventory.reserve]>"
    assert 'return {"tea": "green"}[order.id]' in caplog.text


def test_an_end_shows_its_result_or_what_made_it_fail() -> None:
    assert repr(happy().run(ORDER)) == (
        "<COMPLETED with 'shipped' after [inventory.reserve, payments.charge, shipping.ship]>"
    )
    refused = SagaTest(OrderFulfilment).fail(Inventory.reserve, "SoldOut", "no tea").run(ORDER)
    assert repr(refused) == "<FAILED (SoldOut: no tea) after []>"
