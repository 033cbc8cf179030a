"""A history from a real broker as a file: today's code replays it, and the test kit makes the same one."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.model.events import Decision
from orchestrator.saga import Saga
from orchestrator.testing import SagaTest, check_histories, replay
from orchestrator.testing.histories import save
from orchestrator.visibility import Visibility
from orchestrator.visibility.views import Views
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Inventory, Order, OrderFulfilment, Payments, Reservation, Shipping

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

ORDER = Order(id="o-1")


class ShippedFirst(Saga[Order, str], name="OrderFulfilment"):
    """The same saga as somebody has changed it, while orders are under way."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        shipped = await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)
        await self.step(Payments.charge(order_id=order.id, cents=order.cents))
        return shipped


def from_broker(broker: str, prefix: str, folder: Path) -> list[Decision]:
    """The decisions of an order that was fulfilled there."""

    async def order() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(OrderFulfilment, ORDER, id="o-1")
            assert await handle.result(timeout=60) == "shipped"

    with shop(broker, prefix) as (log, topics), Visibility(folder / "v.sqlite", log, topics, PARTITIONS) as visibility:
        asyncio.run(order())
        assert visibility.catch_up(timeout_s=60)
        (run,) = visibility.list().runs
        views = Views.open(folder / "v.sqlite")
        try:
            return [decision for _, decision in views.decisions("o-1", run.run, until=run.last_offset)]
        finally:
            views.close()


def test_a_history_from_a_broker_is_replayed_by_todays_code(broker: str, prefix: str, tmp_path: Path) -> None:
    decisions = from_broker(broker, prefix, tmp_path)
    folder = tmp_path / "histories"
    save(decisions, folder / "o-1.json")
    assert check_histories(folder, OrderFulfilment) == 1
    with pytest.raises(
        AssertionError, match=r"step 2: the history has payments\.charge, the code asks for shipping\.ship"
    ):
        replay(ShippedFirst, folder / "o-1.json")

    test = SagaTest(OrderFulfilment).answer(Inventory.reserve, Reservation(warehouse="A"))
    in_memory = test.answer(Payments.charge, "receipt").answer(Shipping.ship, "shipped").run(ORDER, id="o-1")
    assert [type(event) for event in in_memory.journal] == [type(event) for each in decisions for event in each.events]
