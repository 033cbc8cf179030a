"""Local steps over a real broker: a worker that calls functions in its threads, between steps of a service."""

import asyncio
import json
from pathlib import Path
from threading import current_thread

import pytest

from orchestrator import Client, LocalContext, Map, MapChange, MapJob, MapReport, Saga, SagaFailed
from orchestrator import saga as saga_module
from orchestrator.model.events import Status
from orchestrator.visibility import Visibility
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Inventory, Order, Payments, refuse

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

CALLS: list[tuple[str, str, str]] = []


def price(sku: str, pieces: int) -> int:
    CALLS.append(("price", sku, current_thread().name))
    return 300 * pieces


async def book(context: LocalContext, sku: str) -> str:
    CALLS.append(("book", context.idempotency_key, current_thread().name))
    return f"b-{sku}"


def unbook(booking: str | None, sku: str) -> None:
    CALLS.append(("unbook", str(booking), current_thread().name))


class Priced(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        drawn = self.side_effect(lambda: order.cents, returns=int)
        cents, booking = await self.gather(self.local(price, order.sku, 3), self.local(book, order.sku, undo=unbook))
        await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        await self.step(Payments.charge(order_id=order.id, cents=cents))
        return f"{booking} for {cents}, not {drawn}"


class Prices(Map[Order, int]):
    batch = 50
    tolerated_failures = 1

    async def item(self, order: Order) -> int:
        await self.step(Inventory.reserve(order_id=order.id))
        return await self.local(price, order.sku, 2)


def test_a_file_is_mapped_in_a_worker(broker: str, prefix: str, tmp_path: Path) -> None:
    source, results = tmp_path / "orders.csv", tmp_path / "prices.jsonl"
    source.write_text("id,sku\n" + "".join(f"o-{number},tea\n" for number in range(199)) + "one,two,three\n")

    async def main() -> MapReport:
        async with Client.connect(broker, prefix=prefix) as client:
            job = MapJob(source=str(source), results=str(results))
            handle = await client.start(Prices, job, id="m-1")
            await handle.signal(Map.change, MapChange(concurrency=25))
            return await handle.result(timeout=60)

    with shop(broker, prefix, sagas=(Prices,)):
        assert asyncio.run(main()) == MapReport(rows=200, failed=1, results=str(results))
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 201))
    assert [line["result"] for line in lines[:-1]] == [600] * 199
    assert lines[-1]["error_type"] == "BadRow"


def test_a_file_of_json_lines_is_mapped_over_several_runs(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold of the suggestion is what keeps the history short; it is made small here."""
    monkeypatch.setattr(saga_module, "SUGGEST_AFTER_OUTCOMES", 60)
    source, results = tmp_path / "orders.jsonl", tmp_path / "prices.jsonl"
    source.write_text("".join(f'{{"id": "o-{number}", "sku": "tea"}}\n' for number in range(120)))

    async def main() -> MapReport:
        async with Client.connect(broker, prefix=prefix) as client:
            job = MapJob(source=str(source), results=str(results))
            return await (await client.start(Prices, job, id="m-1")).result(timeout=60)

    with shop(broker, prefix, sagas=(Prices,)) as (log, topics):
        assert asyncio.run(main()) == MapReport(rows=120, failed=0, results=str(results))
        with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
            assert visibility.catch_up(60)
            runs = [run.status for run in visibility.find("id = 'm-1'", "started")]
    assert runs == [Status.CONTINUED_AS_NEW, Status.CONTINUED_AS_NEW, Status.COMPLETED]
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["row"], line["result"]) for line in lines] == [(number, 600) for number in range(1, 121)]


def test_local_steps_run_in_the_worker_and_are_undone(broker: str, prefix: str) -> None:
    async def main(saga_id: str) -> str:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Priced, Order(id=saga_id), id=saga_id)
            return await handle.result(timeout=60)

    with shop(broker, prefix, sagas=(Priced,)):
        assert asyncio.run(main("o-1")) == "b-tea for 900, not 900"
    assert {name for name, _, thread in CALLS if thread.startswith("local-")} == {"price", "book"}
    with shop(broker, prefix, refuse("charge"), sagas=(Priced,)):
        with pytest.raises(SagaFailed) as caught:
            asyncio.run(main("o-2"))
        assert caught.value.status == Status.COMPENSATED
    assert CALLS[-1][:2] == ("unbook", "b-tea")
