"""Talking to a saga over a real broker, with a worker: what a client and a bare producer can say, and hear."""

import asyncio
from threading import Event

import pytest

from orchestrator.client import Client
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.ids import partition_of
from orchestrator.topics import TopicNames
from tests.expense import Decision, Expense
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def bare(log: KafkaLog, topics: TopicNames, saga_id: str, value: bytes, **headers: str) -> None:
    """A record as any producer can write it."""
    appender = log.appender(wake=Event())
    given = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    partition = partition_of(saga_id, PARTITIONS)
    appender.append(topics.inbox, partition, value, key=saga_id.encode(), headers=given, token=None)
    appender.close(10.0)


def test_signals_before_with_and_after_the_start(broker: str, prefix: str) -> None:
    async def main(log: KafkaLog, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.signal("e-1", Expense.decided, Decision(by="ann"))
            before = await client.start(Expense, 100, id="e-1")
            along = await client.start(Expense, 200, id="e-2", signal=(Expense.decided, Decision(by="bob")))
            after = await client.start(Expense, 300, id="e-3")
            await after.signal(Expense.decided, Decision(by="cid", approved=False))
            by_hand = await client.start(Expense, 400, id="e-4")
            bare(log, topics, "e-4", b'{"by": "dan"}', input_type="signal", signal="decided")
            results = [await handle.result(timeout=60) for handle in (before, along, after, by_hand)]
            assert results == ["100 approved by ann", "200 approved by bob", "300 denied by cid", "400 approved by dan"]

    with shop(broker, prefix) as (log, topics):
        asyncio.run(main(log, topics))
