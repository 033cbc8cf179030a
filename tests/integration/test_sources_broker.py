"""A business topic on a real broker: committed records start sagas, tell them and keep promises, each once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import confluent_kafka
import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.errors import SagaNotFound
from orchestrator.log.base import TopicSpec
from orchestrator.log.kafka import KafkaLog
from orchestrator.saga import Saga
from orchestrator.sources import FromTopic
from orchestrator.sources.runner import SourceRunner
from orchestrator.topics import TopicNames
from tests.expense import Approval, Decision, Expense
from tests.shop_cluster import shop

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Event(BaseModel):
    kind: str
    id: str
    cents: int = 0


def mapping(topic: str) -> FromTopic[Event]:
    source = FromTopic(topic, Event)
    source.starts(
        Expense, where=lambda r: r.value.kind == "claim", id=lambda r: r.value.id, input=lambda r: r.value.cents
    )
    source.signals(
        Expense.decided,
        where=lambda r: r.value.kind == "yes",
        id=lambda r: r.value.id,
        value=lambda r: Decision(by=r.key),
    )
    source.starts(
        Approval, where=lambda r: r.value.kind == "ask", id=lambda r: r.value.id, input=lambda r: r.value.cents
    )
    source.completes(
        Approval.approved,
        where=lambda r: r.value.kind in ("boss", "auditor"),
        id=lambda r: r.value.id,
        key=lambda r: r.value.kind,
        result=lambda r: Decision(by=r.key),
    )
    return source


@contextmanager
def running(broker: str, prefix: str, topic: str) -> Iterator[SourceRunner]:
    log = KafkaLog(broker, consumer={"session.timeout.ms": 6_000}, read_committed=True)
    runner = SourceRunner(mapping(topic), log, broker, topics=TopicNames(prefix))
    thread = Thread(target=runner.run)
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(30)
        assert not thread.is_alive()


def produce(broker: str, topic: str, *events: tuple[str, bytes], commit: bool = True) -> None:
    """Writes key and value of some records in a transaction, as many producers of business events do."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker, "transactional.id": f"{topic}-producer"})
    producer.init_transactions()
    producer.begin_transaction()
    for key, value in events:
        producer.produce(topic, value, key.encode())
    producer.flush()
    (producer.commit_transaction if commit else producer.abort_transaction)()


def test_records_of_a_business_topic_start_and_tell_sagas_and_keep_promises(broker: str, prefix: str) -> None:
    topic = f"{prefix}shop.claims"

    async def result(id: str, saga: type[Saga[int, str]] = Expense) -> str:
        async with Client.connect(broker, prefix=prefix) as client:
            while True:  # the test's time limit ends it
                try:
                    return await (await client.attach(saga, id)).result(timeout=60)
                except SagaNotFound:
                    await asyncio.sleep(0.05)

    with shop(broker, prefix) as (log, topics):
        admin = log.admin()
        admin.create([TopicSpec(topic, 2, 1, {})])
        produce(broker, topic, ("bob", b'{"kind": "claim", "id": "c-1", "cents": 99999}'), commit=False)
        produce(broker, topic, ("ann", b'{"kind": "claim", "id": "c-1", "cents": 1}'), ("ann", b"?"))
        produce(broker, topic, ("ann", b'{"kind": "yes", "id": "c-1"}'))
        with running(broker, prefix, topic):
            assert asyncio.run(result("c-1")) == "1 approved by ann"
        produce(broker, topic, ("ann", b'{"kind": "claim", "id": "c-2", "cents": 2}'))
        with running(broker, prefix, topic) as again:  # goes on behind what was committed
            produce(broker, topic, ("ann", b'{"kind": "yes", "id": "c-2"}'))
            assert asyncio.run(result("c-2")) == "2 approved by ann"
            assert again.engine.counters.commands == 2
            asked = ("ann", b'{"kind": "ask", "id": "a-1", "cents": 3}')
            produce(broker, topic, asked, ("ann", b'{"kind": "auditor", "id": "a-1"}'))
            produce(broker, topic, ("bob", b'{"kind": "boss", "id": "a-1"}'), ("eve", b'{"kind": "boss", "id": "a-1"}'))
            assert asyncio.run(result("a-1", Approval)) == "3 approved by bob and ann"
        letters = admin.ends([(topics.dead_letters, number) for number in range(4)])
        assert sum(end for _, end in letters.values()) == 1
        admin.close()
