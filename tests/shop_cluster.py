"""The shop on a real broker: one worker and the participants, each in a thread."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from orchestrator.locks import with_locks
from orchestrator.log.base import Record
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.versions import by_type
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.worker import Worker
from orchestrator.saga import Saga
from orchestrator.schedules import with_schedules
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import CommandMessage, ReplyMessage, read_command, reply_headers
from orchestrator.wire.tokens import TokenKeys
from tests.expense import Approval, Auditor, Expense
from tests.shop_world import PARTITIONS, SERVICES, Greeting, OrderFulfilment, succeed

SAGAS = (OrderFulfilment, Greeting, Expense, Approval, Auditor)


def serve(
    log: KafkaLog,
    topics: TopicNames,
    stop: Event,
    wake: Event,
    behave: Callable[[CommandMessage], ReplyMessage | None],
) -> None:
    """Answers commands until told to stop."""
    reader, appender = log.reader(wake=wake), log.appender(wake=wake)
    for service in SERVICES:
        for partition in range(PARTITIONS):
            reader.assign(topics.commands(service), partition, 0)
    try:
        while not stop.is_set():
            happenings = reader.poll()
            for happening in happenings:
                assert isinstance(happening, Record), happening
                message = read_command(happening.headers, happening.value)
                reply = behave(message)
                if reply is not None:
                    to = (message.reply_to, message.reply_partition)
                    headers = reply_headers(message, reply)
                    appender.append(*to, reply.payload, token=None, key=happening.key, headers=headers)
            if not appender.poll() and not happenings:
                wake.wait(0.2)
                wake.clear()
    finally:
        reader.close()
        appender.close(1.0)


@contextmanager
def shop(
    broker: str,
    prefix: str,
    behave: Callable[[CommandMessage], ReplyMessage | None] = succeed,
    sagas: Sequence[type[Saga[Any, Any]]] = SAGAS,
) -> Iterator[tuple[KafkaLog, TopicNames]]:
    """Topics, a worker and participants under the prefix, until the block ends."""
    log, topics = KafkaLog(broker), TopicNames(prefix)
    admin = log.admin()
    apply(admin, plan(topics, partitions=PARTITIONS, replication=1, services=SERVICES))
    admin.close()
    definitions = with_locks(with_schedules(by_type(saga.definition for saga in sagas)))
    config = PartitionConfig(topics, PARTITIONS, TokenKeys({"k": b"0" * 16}), definitions)
    worker = Worker(log, config, MemoryStores())
    stop, wake = Event(), Event()
    threads = [
        Thread(target=worker.run, name="worker"),
        Thread(target=serve, args=(log, topics, stop, wake, behave), name="participants"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield log, topics
    finally:
        worker.stop()
        stop.set()
        wake.set()
        for thread in threads:
            thread.join()
