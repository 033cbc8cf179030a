"""Visibility over a real broker."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.errors import SagaFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.visibility import Visibility
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Order, OrderFulfilment, refuse

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def run_orders(broker: str, prefix: str, count: int) -> None:
    """Starts orders and waits until all have been undone."""
    async with Client.connect(broker, prefix=prefix) as client:
        orders = [(f"o-{number}", Order(id=f"o-{number}")) for number in range(count)]
        for handle in await client.start_many(OrderFulfilment, orders):
            with pytest.raises(SagaFailed):
                await handle.result(timeout=120)


def test_runs_are_listed_and_shown_from_the_journal_alone(broker: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "visibility.sqlite"
    with shop(broker, prefix, refuse("ship")) as (log, topics):
        asyncio.run(run_orders(broker, prefix, 40))
        with Visibility(path, log, topics, PARTITIONS) as visibility:
            assert visibility.catch_up(timeout_s=60)
            assert visibility.counts() == {"COMPENSATED": 40}
    # The worker is gone; what it did is there, and following goes on where it stopped.
    with Visibility(path, KafkaLog(broker), topics, PARTITIONS) as visibility:
        assert visibility.catch_up(timeout_s=60)
        details = visibility.show("o-7")
        assert details is not None
        assert [step.status for step in details.steps] == ["UNDONE", "UNDONE", "REFUSED"]
        assert visibility.list(limit=30).next is not None


def test_a_deleted_and_recreated_journal_is_read_anew(broker: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "visibility.sqlite"
    for count in (30, 2):
        with shop(broker, prefix, refuse("ship")) as (log, topics):
            asyncio.run(run_orders(broker, prefix, count))
            with Visibility(path, log, topics, PARTITIONS) as visibility:
                assert visibility.catch_up(timeout_s=60)
                assert visibility.counts() == {"COMPENSATED": count}
        admin = log.admin()
        admin.delete([topics.journal, topics.inbox, topics.replies, topics.internal, topics.operations])
        admin.delete([topics.commands(service) for service in ("inventory", "payments", "shipping")])
        admin.close()
