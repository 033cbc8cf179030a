"""Groups with each completion policy, in both styles, on a real broker: who wins, what is borne, what is undone."""

from __future__ import annotations

import asyncio
from collections import Counter
from threading import Lock

import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.errors import SagaFailed, StepFailed
from orchestrator.groups import Done
from orchestrator.model.events import Status, Undone
from orchestrator.model.messages import Outcome
from orchestrator.plan import each, parallel, step, takes
from orchestrator.saga import Saga
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import Inventory, Order, Payments, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Basket(BaseModel):
    id: str
    skus: list[str]


class Shopping(Saga[Order, str]):
    async def buy(self, what: str) -> str:
        """Refused where the name says so; what is "slow" is never answered."""
        await self.step(Inventory.reserve(order_id=f"stock for {what}"), undo=Inventory.release)
        return await self.step(Payments.charge(order_id=what, cents=1), undo=Payments.refund)

    async def run(self, order: Order) -> str:
        raise NotImplementedError


class Racing(Shopping):
    async def run(self, order: Order) -> str:
        place, receipt = await self.race(self.buy(f"{order.id} slow"), self.buy(order.id), self.sleep(60))
        return f"{place} {receipt}"


class Bearing(Shopping):
    async def run(self, order: Order) -> str:
        place, _ = await self.any(self.buy(f"{order.id} refused"), self.buy(order.id))
        two = await self.some([self.buy(f"{order.id} {n}") for n in ("refused", "1", "2")], successes=2)
        settled = await self.settle(self.buy(f"{order.id} refused"), self.buy(f"{order.id} 3"))
        told = [one.value if isinstance(one, Done) else one.error_type for one in settled]
        return f"{place} {len(two)} {told}"


class Many(Shopping):
    async def run(self, order: Order) -> str:
        names = [f"{order.id} {'refused' if n % 10 == 0 else n}" for n in range(40)]
        results = await self.each(names, self.buy, concurrency=5, tolerated_share=0.1)
        return str(sum(isinstance(one, StepFailed) for one in results))


class TooMany(Shopping):
    async def run(self, order: Order) -> str:
        names = [f"{order.id} {n}" for n in ("1", "refused", "2", "refused", "3", "4", "5", "6")]
        await self.each(names, self.buy, concurrency=2, tolerated_failures=1)
        return "never"


class BasketPlan(Saga[Basket, tuple[str, str]]):
    basket = takes(Basket)
    stock = each(basket.skus, lambda sku: Inventory.reserve(order_id=sku), undo=Inventory.release, concurrency=2)
    result = parallel(
        step(Payments.charge(order_id=basket.id, cents=1), undo=Payments.refund),
        step(Payments.charge(order_id=basket.id, cents=2), undo=Payments.refund),
    )


class Services:
    """Everything is done, but for what is refused, and what is slow: that is never answered."""

    def __init__(self) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def __call__(self, message: CommandMessage) -> ReplyMessage | None:
        asked = message.payload.decode()
        if message.command_type == "charge":
            if "slow" in asked:
                return None
            if "refused" in asked:
                return ReplyMessage(Outcome.FAILURE, b"", "Declined", "the card was declined")
        with self._lock:
            self.done[message.saga_id, message.command_type] += 1
        return succeed(message)

    def left(self, saga_id: str) -> tuple[int, int]:
        """Reservations and charges that stand; a refund of what was never answered or refused is one too many."""
        count = {name: self.done[saga_id, name] for name in ("reserve", "release", "charge", "refund")}
        return count["reserve"] - count["release"], count["charge"] - count["refund"]


def test_groups_end_as_their_policies_say_and_leave_nothing_behind(broker: str, prefix: str) -> None:
    services = Services()

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handles = [
                await client.start(saga, Order(id=saga.__name__), id=saga.__name__)
                for saga in (Racing, Bearing, Many, TooMany)
            ]
            planned = await client.start(BasketPlan, Basket(id="b", skus=["x", "y", "z"]), id="BasketPlan")
            *ends, failing = handles
            assert [await handle.result(timeout=60) for handle in ends] == [
                "1 receipt",
                "1 2 ['Declined', 'receipt']",
                "4",
            ]
            assert await planned.result(timeout=60) == ("receipt", "receipt")
            with pytest.raises(SagaFailed) as caught:
                await failing.result(timeout=60)
            assert (caught.value.status, caught.value.undone) == (Status.COMPENSATED, Undone.ALL)
            assert caught.value.error_type == "Declined"

    with shop(broker, prefix, services, (Racing, Bearing, Many, TooMany, BasketPlan)):
        asyncio.run(main())
    assert services.left("Racing") == (1, 0)
    assert services.left("Bearing") == (4, 4)
    assert services.left("Many") == (36, 36)
    assert services.left("TooMany")[0] == 0
    assert services.left("BasketPlan") == (3, 2)
