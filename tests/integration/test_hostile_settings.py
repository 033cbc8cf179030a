"""What others may do to the topics of a running shop: records that unpack to a thousandfold, compaction switched on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from orchestrator.client import Client
from orchestrator.errors import ResultTimeout
from tests.shop_cluster import shop
from tests.shop_world import Order, OrderFulfilment

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

BOMB_BYTES = 64 << 20


async def order(broker: str, prefix: str, saga_id: str, timeout: float = 60.0) -> str:
    async with Client.connect(broker, prefix=prefix) as client:
        handle = await client.start(OrderFulfilment, Order(id=saga_id), id=saga_id)
        return await handle.result(timeout)


def outcome_of(broker: str, topic: str, value: bytes) -> KafkaError | None:
    """What the broker says to a record that is packed by its producer."""
    told: list[KafkaError | None] = []

    def report(error: KafkaError | None, message: Message) -> None:
        told.append(error)

    producer = Producer(
        {"bootstrap.servers": broker, "compression.type": "gzip", "message.max.bytes": 2 * BOMB_BYTES, "linger.ms": 0}
    )
    producer.produce(topic, value, partition=0, on_delivery=report)
    assert producer.flush(60) == 0
    return told[0]


def test_a_record_that_unpacks_to_a_thousandfold_is_refused_where_anybody_may_write(broker: str, prefix: str) -> None:
    """Clients unpack without a limit, so a topic takes nothing packed: the broker unpacks, and refuses by its size."""
    with shop(broker, prefix) as (_, topics):
        assert asyncio.run(order(broker, prefix, "before")) == "shipped"
        for topic in (topics.inbox, topics.replies, topics.operations, topics.dead_letters):
            error = outcome_of(broker, topic, bytes(BOMB_BYTES))
            assert error is not None, f"{topic} took a bomb"
            assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
            assert outcome_of(broker, topic, b"small") is None
        assert asyncio.run(order(broker, prefix, "after")) == "shipped"


@contextmanager
def setting(broker: str, topic: str, name: str, value: str) -> Iterator[None]:
    """A topic's setting, until the block ends."""
    admin = AdminClient({"bootstrap.servers": broker})

    def alter(operation: AlterConfigOpType) -> None:
        entry = ConfigEntry(name, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    alter(AlterConfigOpType.SET)
    try:
        yield
    finally:
        alter(AlterConfigOpType.DELETE)


def test_under_compaction_a_journal_takes_nothing_and_loses_nothing(
    broker: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A compacted topic refuses records without a key: who owns the partition stands still until it is put right."""
    with shop(broker, prefix) as (_, topics):
        assert asyncio.run(order(broker, prefix, "before")) == "shipped"
        with setting(broker, topics.journal, "cleanup.policy", "compact"), pytest.raises(ResultTimeout):
            asyncio.run(order(broker, prefix, "meanwhile", 8.0))
        assert any("epoch ended" in record.message for record in caplog.records)

        async def hear() -> str:
            async with Client.connect(broker, prefix=prefix) as client:
                return await (await client.attach(OrderFulfilment, "meanwhile")).result(90)

        assert asyncio.run(hear()) == "shipped"
