"""No SDK anywhere but in the worker: a saga started by kcat, its service a plain Kafka consumer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka import Consumer, Producer

from tests.e2e.shop import PARTITIONS, SERVICES, Shop, wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]
REPLIES = {"reserve": b'{"warehouse": "A"}', "charge": b'{"payment_id": "p-1"}', "ship": b'"shipped"'}


@pytest.fixture
def shop(broker: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(broker, prefix, tmp_path)
    made.processes = {"worker-1": made.processes["worker-1"]}
    made.start()
    try:
        yield made
    finally:
        made.close()


def serve(shop: Shop, stop: Event) -> None:
    """All three services: copies every header back, adds an outcome, and that is all."""
    consumer = Consumer(
        {
            "bootstrap.servers": shop.bootstrap_servers,
            "group.id": shop.names.prefix + "bare",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([shop.names.commands(service) for service in SERVICES])
    producer = Producer({"bootstrap.servers": shop.bootstrap_servers})
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        headers = dict(message.headers())
        answer = REPLIES.get(headers["command-type"].decode(), b"null")
        producer.produce(
            headers["reply-to"].decode(),
            answer,
            key=message.key(),
            partition=int(headers["reply-partition"]),
            headers=[*message.headers(), ("outcome", b"success")],
        )
        producer.flush(5)
    consumer.close()


def test_kcat_starts_a_saga_and_a_plain_consumer_serves_it(shop: Shop) -> None:
    stop = Event()
    service = Thread(target=serve, args=(shop, stop))
    service.start()
    try:
        start = subprocess.run(
            f"kcat -P -b {shop.bootstrap_servers} -t {shop.names.inbox} -k order-7 -H saga-type=OrderFulfilment "
            f"-H reply-to={shop.names.answers} -H reply-partition=0 -X topic.partitioner=murmur2_random".split(),
            input='{"id": "order-7", "sku": "tea", "cents": 900}',
            capture_output=True,
            text=True,
            check=False,
        )
        assert start.returncode == 0, start.stderr
        assert wait_until(lambda: answers(shop) == [("order-7", "COMPLETED", b'"shipped"')], 60), answers(shop)
    finally:
        stop.set()
        service.join()


def answers(shop: Shop) -> list[tuple[str, str, bytes]]:
    """(saga id, status, result) of every answer."""
    from orchestrator.demo.dump import dump_topics

    raw = dump_topics(shop.log, [shop.names.answers], PARTITIONS)[shop.names.answers]
    found = []
    for records in raw.values():
        for record in records:
            headers = dict(record.headers)
            found.append((headers["saga-id"].decode(), headers["saga-status"].decode(), record.value or b""))
    return found
