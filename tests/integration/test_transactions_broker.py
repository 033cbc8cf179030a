"""A service that writes in Kafka transactions: their marks end the topics that it writes to, and hold nobody up."""

import asyncio
import time
from contextlib import closing
from threading import Event

import confluent_kafka
import pytest

from orchestrator.client import Client
from orchestrator.errors import SagaNotFound
from orchestrator.log.base import Headers, Record
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.ids import partition_of
from orchestrator.saga import Saga
from orchestrator.wire import headers as h
from orchestrator.wire.commands import read_command, reply_headers
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Charge, Payments, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Nap(Saga[Charge, str]):
    """What it sleeps is longer than it takes until nothing more is to be read."""

    async def run(self, charge: Charge) -> str:
        receipt = await self.step(Payments.charge(order_id=charge.order_id, cents=charge.cents))
        await self.sleep(3)
        return receipt


class Writer:
    """Writes each record in a transaction of its own."""

    def __init__(self, broker: str, prefix: str) -> None:
        settings = {"bootstrap.servers": broker, "transactional.id": f"{prefix}service"}
        self._producer = confluent_kafka.Producer(settings)
        self._producer.init_transactions(30)

    def write(self, place: tuple[str, int], key: bytes, value: bytes, headers: Headers) -> None:
        topic, partition = place
        self._producer.begin_transaction()
        self._producer.produce(topic, value, key, partition, headers=list(headers))
        self._producer.commit_transaction(30)


def command_of(log: KafkaLog, place: tuple[str, int]) -> Record:
    """The first command on a partition."""
    wake = Event()
    with closing(log.reader(wake=wake)) as reader:
        reader.assign(*place, 0)
        while not (found := [each for each in reader.poll() if isinstance(each, Record)]):
            wake.wait(1.0)
            wake.clear()
    return found[0]


def test_a_saga_whose_start_and_reply_end_their_topics_with_marks_wakes_up(broker: str, prefix: str) -> None:
    async def result() -> str:
        async with Client.connect(broker, prefix=prefix) as client:
            while True:  # the test's time limit ends it
                try:
                    return await (await client.attach(Nap, "nap-1")).result(timeout=30)
                except SagaNotFound:
                    await asyncio.sleep(0.05)

    number = partition_of("nap-1", PARTITIONS)
    with shop(broker, prefix, behave=lambda message: None, sagas=[Nap]) as (log, topics):
        writer = Writer(broker, prefix)
        started = h.write_headers({h.SAGA_TYPE: "Nap", h.MESSAGE_ID: "m-1"})
        writer.write((topics.inbox, number), b"nap-1", b'{"order_id":"o-1","cents":7}', started)
        command = command_of(log, (topics.commands("payments"), number))
        message = read_command(command.headers, command.value)
        reply = succeed(message)
        assert reply is not None
        to = (message.reply_to, message.reply_partition)
        writer.write(to, b"nap-1", reply.payload or b"", reply_headers(message, reply))
        with closing(log.admin()) as admin:
            while admin.ends([to])[to] != (0, 2):
                time.sleep(0.02)
        assert asyncio.run(result()) == "receipt"
