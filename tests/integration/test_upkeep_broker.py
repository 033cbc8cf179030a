"""What workers look after, over a real broker: the public stream, trimming, topics that are created anew."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread

import orjson
import pytest

from orchestrator.client import Client
from orchestrator.log.base import Admin, Record, TopicPartition
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.identity import pinned_topics
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.tenure import Phase
from orchestrator.runtime.trimmer import Trimmer
from orchestrator.runtime.worker import Worker
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys
from tests.shop_cluster import SAGAS, serve, shop
from tests.shop_world import PARTITIONS, SERVICES, Order, OrderFulfilment, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

COMPLETED = ["started", "step-done", "step-done", "step-done", "ended"]


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


async def complete(broker: str, prefix: str, ids: list[str]) -> None:
    """Starts orders and waits until all have completed, asking for no answer twice: each order is one input."""
    names, asks_again_s = TopicNames(prefix), 1_000.0
    async with Client(KafkaLog(broker), names, PARTITIONS, client_id="shop", attach_first_s=asks_again_s) as client:
        orders = [(saga_id, Order(id=saga_id)) for saga_id in ids]
        for handle in await client.start_many(OrderFulfilment, orders):
            assert await handle.result(timeout=120) == "shipped"


def told(log: KafkaLog, topics: TopicNames, count: int) -> list[dict[str, str]]:
    """The public stream, once it has so many different events."""
    wake = Event()
    found: list[dict[str, str]] = []
    with closing(log.reader(wake=wake)) as reader:
        for partition in range(PARTITIONS):
            reader.assign(topics.lifecycle, partition, 0)

        def enough() -> bool:
            found.extend(orjson.loads(r.value or b"") for r in reader.poll() if isinstance(r, Record))
            return len({event["event_id"] for event in found}) >= count

        eventually(enough)
    return found


@contextmanager
def working(broker: str, prefix: str) -> Iterator[tuple[Worker, TopicNames, Admin]]:
    """A worker that pins the topics' ids, with its participants."""
    log, topics = KafkaLog(broker), TopicNames(prefix)
    admin = log.admin()
    apply(admin, plan(topics, partitions=PARTITIONS, replication=1, services=SERVICES))
    ids = {name: state.topic_id for name, state in admin.describe(pinned_topics(topics)).items()}
    definitions = {saga.definition.name: saga.definition for saga in SAGAS}
    config = PartitionConfig(topics, PARTITIONS, TokenKeys({"k": b"0" * 16}), definitions)
    worker = Worker(log, config, MemoryStores(), topic_ids=ids)
    stop, wake = Event(), Event()
    threads = [Thread(target=worker.run), Thread(target=serve, args=(log, topics, stop, wake, succeed))]
    for thread in threads:
        thread.start()
    try:
        yield worker, topics, admin
    finally:
        worker.stop()
        stop.set()
        wake.set()
        for thread in threads:
            thread.join()
        admin.close()


def test_workers_publish_every_run_to_its_end(broker: str, prefix: str) -> None:
    ids = [f"o-{number}" for number in range(30)]
    with shop(broker, prefix) as (log, topics):
        asyncio.run(complete(broker, prefix, ids[:20]))
        told(log, topics, 20 * 5)
    # The next owner goes on where this one stopped, whatever it had published.
    with shop(broker, prefix) as (log, topics):
        asyncio.run(complete(broker, prefix, ids[20:]))
        events = told(log, topics, 30 * 5)
    for saga_id in ids:
        names = {event["event_id"]: event["event"] for event in events if event["saga_id"] == saga_id}
        assert list(names.values()) == COMPLETED
    assert {event["saga_type"] for event in events} == {"OrderFulfilment"}


def test_what_was_consumed_is_deleted_and_the_next_owner_starts_all_the_same(broker: str, prefix: str) -> None:
    with working(broker, prefix) as (worker, topics, admin):
        asyncio.run(complete(broker, prefix, [f"o-{number}" for number in range(40)]))
        eventually(lambda: sum(held.get("replies", 0) for held in worker.engine.holdings.positions.values()) == 120)
        log = KafkaLog(broker)
        with closing(Trimmer(log, admin, topics, -60_000, Event())) as trimmer:
            # A negative lag: the journal's last record is old enough.
            began = trimmer.trim(worker.engine.holdings, time.time_ns() // 1_000_000)
        starts: dict[TopicPartition, int] = {key: bounds[0] for key, bounds in admin.ends(list(began)).items()}
        assert starts == began
        assert sum(offset for (topic, _), offset in began.items() if topic == topics.inbox) == 40
        assert sum(offset for (topic, _), offset in began.items() if topic == topics.replies) == 120
    with working(broker, prefix) as (worker, _, _):
        asyncio.run(complete(broker, prefix, [f"more-{number}" for number in range(20)]))
        assert worker.engine.epochs_lost == 0


def test_a_topic_that_is_created_anew_halts_the_next_owner(broker: str, prefix: str) -> None:
    with working(broker, prefix) as (_, topics, admin):
        asyncio.run(complete(broker, prefix, ["o-1"]))
        admin.delete([topics.operations])
    with working(broker, prefix) as (worker, _, _):
        tenures = worker.engine.tenures
        eventually(lambda: len(tenures) == PARTITIONS and all(t.phase is Phase.HALTED for t in tenures.values()))
        assert topics.operations in tenures[0].halted_because
