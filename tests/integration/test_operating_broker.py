"""What people do about running sagas, on a real broker."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.attributes import Double, Keyword
from orchestrator.client import Client
from orchestrator.errors import NotApplied, ResultTimeout, SagaFailed, SagaNotFound
from orchestrator.log.base import Log
from orchestrator.model.messages import Outcome
from orchestrator.topics import TopicNames
from orchestrator.visibility import Visibility, Wait
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, refuse

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def pause(client: Client, saga_id: str) -> None:
    """Pauses a saga that was just started: an operation goes ahead of starts, so that its id may not be known yet."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.pause(saga_id, timeout=60)
            except SagaNotFound:
                continue


def test_sagas_are_paused_and_resumed(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            assert await client.pause_all(service="payments", timeout=60) == "service:payments"
            order = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            with pytest.raises(ResultTimeout):
                await order.result(timeout=1)
            assert await client.resume_all(service="payments", timeout=60) == "service:payments"
            assert await order.result(timeout=60) == "shipped"
            await client.start(Greeting, "Ada", id="g-1")
            await pause(client, "g-1")
            with pytest.raises(NotApplied, match="it is paused already"):
                await client.pause("g-1", timeout=60)
            await client.resume("g-1", timeout=60)
            await client.cancel("g-1", timeout=60)
            with pytest.raises(SagaNotFound):
                await client.pause("nobody", timeout=60)

    with shop(broker, prefix):
        asyncio.run(main())


def test_a_person_retries_sets_a_result_and_has_it_undone(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(log: Log, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            retried = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            undone = await client.start(OrderFulfilment, Order(id="o-2"), id="o-2")
            with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
                for saga_id in ("o-1", "o-2"):
                    wait = await parked(visibility, saga_id)
                    assert wait.what == "a person: payments.charge is parked"
                    assert f"saga park skip {saga_id} --step 2" in wait.frees
            await client.unpark("o-1", "set-result", step=2, payload=b'"by hand"', by="ann", timeout=60)
            assert await retried.result(timeout=60) == "shipped"
            await client.compensate("o-2", reason="wrong customer", by="ann", timeout=60)
            with pytest.raises(SagaFailed, match="COMPENSATED: Forced: wrong customer"):
                await undone.result(timeout=60)

    with shop(broker, prefix, refuse("charge", outcome=Outcome.RETRY)) as (log, topics):
        asyncio.run(main(log, topics))


async def parked(visibility: Visibility, saga_id: str) -> Wait:
    async with asyncio.timeout(60):
        while True:
            await asyncio.to_thread(lambda: None)
            assert visibility.catch_up(60)
            found = visibility.why(saga_id)
            if found is not None and found.status == "PARKED":
                return found.waits[0]


class Tagged(Greeting, name="Greeting"):
    customer = Keyword()
    amount = Double()


def test_sagas_are_found_by_what_they_tell(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for number, customer in enumerate(("ann", "bob", "ann")):
                told = [Tagged.customer(customer), Tagged.amount(number)]
                await client.start(Tagged, customer, id=f"g-{number}", attributes=told, summary=f"number {number}")
            await pause(client, "g-2")

    with shop(broker, prefix) as (log, topics):
        asyncio.run(main())
        with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
            assert visibility.catch_up(60)
            found = visibility.find("customer = 'ann' and amount >= 0", "amount desc")
            assert [(run.saga_id, run.summary) for run in found] == [("g-2", "number 2"), ("g-0", "number 0")]
            assert visibility.count("status = 'PAUSED'", "customer") == {"ann": 1}
