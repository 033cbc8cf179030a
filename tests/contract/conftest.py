"""Each implementation of a log, in turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing

import confluent_kafka
import pytest

from orchestrator.log.kafka import KafkaLog
from orchestrator.log.memory import MemoryLog
from tests.contract.log_world import Transact, World


def in_memory(log: MemoryLog) -> Transact:
    def transact(topic: str, partition: int, count: int, commit: bool) -> None:
        appender = log.appender()
        for number in range(count):
            appender.append(topic, partition, b"%d" % number, token=None)
        log.mark(topic, partition)

    return transact


def on_broker(broker: str) -> Transact:
    def transact(topic: str, partition: int, count: int, commit: bool) -> None:
        place = (topic, partition)
        settings = {"bootstrap.servers": broker, "transactional.id": f"{topic}-somebody"}
        producer = confluent_kafka.Producer(settings)
        producer.init_transactions(30)
        with closing(KafkaLog(broker).admin()) as admin:
            end = admin.ends([place])[place][1] + count + 1
        producer.begin_transaction()
        for number in range(count):
            producer.produce(topic, b"%d" % number, partition=partition)
        assert producer.flush(30) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
        with closing(KafkaLog(broker).admin()) as admin:
            while admin.ends([place])[place][1] < end:  # the coordinator says yes before it has written that
                time.sleep(0.02)

    return transact


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        log = MemoryLog(itertools.count(1_000).__next__)
        world = World(log, "m-", in_memory(log))
    else:
        # A topic that does not exist is reported after this time.
        common = {"topic.metadata.propagation.max.ms": 1_000}
        broker = request.getfixturevalue("broker")
        world = World(KafkaLog(broker, common=common), request.getfixturevalue("prefix"), on_broker(broker))
    yield world
    world.close()
