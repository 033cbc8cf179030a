"""Participants over a real broker: commands made by hand go in, replies come out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import confluent_kafka
import pytest

from orchestrator.client import Client
from orchestrator.log.base import Record, TopicSpec
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.effects import Command
from orchestrator.model.ids import Direction, partition_of
from orchestrator.model.messages import Outcome, Reply
from orchestrator.participant import Failure, HandlerContext, Participant, ParticipantSettings, Pending
from orchestrator.participant.runner import Runner
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.commands import ReplyMessage, command_headers
from orchestrator.wire.headers import read_headers
from orchestrator.wire.inputs import read_input
from orchestrator.wire.ledger import Execution, Release, read_record
from tests.contract.log_world import Probe, Writer, wait
from tests.integration.participant_service import Charge, Payments, Receipt

pytestmark = pytest.mark.broker

PARTITIONS = 2


class Owner:
    """Sends commands and reads replies, as an owner of sagas does."""

    def __init__(self, broker: str, prefix: str) -> None:
        self.log = KafkaLog(broker, consumer={"session.timeout.ms": 6_000})
        self.topics = TopicNames(prefix)
        names = self.topics
        self.admin = self.log.admin()
        self.admin.create(
            [
                TopicSpec(name, PARTITIONS, 1, {})
                for name in (names.ledger("payments"), names.commands("payments"), names.replies, names.dead_letters)
            ]
        )
        self.writer = Writer(self.log)
        self.probe = Probe(self.log)
        for partition in range(PARTITIONS):
            self.probe.reader.assign(names.replies, partition, 0)
        self.records: list[Record] = []
        self.read = 0

    def send(self, saga_id: str, direction: Direction = "do", *, attempt: int = 1, cents: int = 500) -> None:
        partition = partition_of(saga_id, PARTITIONS)
        payload = b'{"order_id":"%s","cents":%d}' % (saga_id.encode(), cents)
        name = "charge" if direction == "do" else "refund"
        message = Command(
            saga_id, "1-10-0", "Order", 1, direction, attempt, "payments", name, partition, payload, None, None
        )
        headers = command_headers(
            message,
            epoch=1,
            reply_to=self.topics.replies,
            reply_partition=partition,
            token="k.00",
            sent_at_ms=time.time_ns() // 1_000_000,
        )
        topic = self.topics.commands("payments")
        assert self.writer.append(topic, partition, payload, key=saga_id.encode(), headers=headers).failure is None

    def replies(self, count: int) -> list[Reply]:
        """The next replies."""

        def look() -> None:
            for happening in self.probe.reader.poll():
                assert isinstance(happening, Record)
                self.records.append(happening)

        wait(self.probe.wake, look, lambda: len(self.records) >= self.read + count)
        taken = self.records[self.read : self.read + count]
        self.read += count
        inputs = [read_input("replies", record, read_headers(record.headers)) for record in taken]
        return [reply for reply in inputs if isinstance(reply, Reply)]

    def ledger(self, partition: int) -> list[Any]:
        probe = Probe(self.log)
        topic = self.topics.ledger("payments")
        end = self.admin.ends([(topic, partition)])[topic, partition][1]
        probe.reader.assign(topic, partition, 0)
        found: list[Any] = []
        wait(probe.wake, lambda: found.extend(probe.reader.poll()), lambda: len(found) >= end)
        probe.reader.close()
        return [read_record(record.value) for record in found]

    def close(self) -> None:
        self.writer.appender.close(1)
        self.probe.reader.close()
        self.admin.close()


@pytest.fixture
def owner(broker: str, prefix: str) -> Iterator[Owner]:
    made = Owner(broker, prefix)
    yield made
    made.close()


def until(holds: Callable[[], bool]) -> None:
    """Looks again and again, for what nobody announces."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        Event().wait(0.02)


@contextmanager
def running(owner: Owner, participant: Participant, **settings: Any) -> Iterator[Runner]:
    runner = Runner(participant, owner.log, topics=owner.topics, settings=ParticipantSettings(**settings))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            runner.run()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(40)
        assert not thread.is_alive()
        assert not failed


def quick() -> tuple[Participant, list[str]]:
    """Handlers that answer at once, and the keys they were called with."""
    participant = Participant(Payments)
    keys: list[str] = []

    @participant.handles(Payments.charge)
    async def charge(request: Charge, context: HandlerContext) -> Receipt:
        keys.append(context.idempotency_key)
        if request.cents > 1_000:
            raise Failure("CardDeclined", "too much")
        return Receipt(payment_id=f"p-{request.order_id}")

    @participant.handles(Payments.refund)
    def refund(request: Charge, context: HandlerContext) -> None:
        keys.append(context.idempotency_key)

    return participant, keys


def test_commands_go_in_and_replies_come_out(owner: Owner) -> None:
    participant, keys = quick()
    for number in range(50):
        owner.send(f"o-{number}", cents=2_000 if number == 7 else 500)
    with running(owner, participant) as runner:
        replies = {reply.saga_id: reply for reply in owner.replies(50)}
        assert replies["o-1"] == Reply("o-1", "1-10-0", 1, False, 1, Outcome.SUCCESS, b'{"payment_id":"p-o-1"}')
        assert replies["o-7"].error_type == "CardDeclined"
        owner.send("o-1", attempt=2)
        owner.send("o-1", "undo")
        owner.send("o-1", attempt=3)
        # In the order of their topic: the success stays the answer, also after the undo.
        assert [(reply.undo, reply.attempt, reply.outcome) for reply in owner.replies(3)] == [
            (False, 2, Outcome.SUCCESS),
            (True, 1, Outcome.SUCCESS),
            (False, 3, Outcome.SUCCESS),
        ]
        assert len(keys) == len(set(keys)) == 51
        assert runner.engine.counters.duplicates == 2
    assert all(record.partition == partition_of((record.key or b"").decode(), PARTITIONS) for record in owner.records)
    assert [owner.ledger(partition)[-1] for partition in range(PARTITIONS)] == [Release(0, True)] * PARTITIONS
    # Who comes next remembers, without waiting for anybody.
    again, more_keys = quick()
    with running(owner, again):
        owner.send("o-2", attempt=2)
        owner.send("new")
        assert {reply.saga_id for reply in owner.replies(2)} == {"o-2", "new"}
    assert more_keys == ["new/1-10-0/1/do"]


def test_what_is_no_command_becomes_a_dead_letter(owner: Owner) -> None:
    participant, _ = quick()
    topic = owner.topics.commands("payments")
    owner.writer.append(topic, 0, b"\xff\x00", key=b"odd", headers=[("trace", b"\x00")])
    owner.send("fine")
    letters = Probe(owner.log)
    with running(owner, participant):
        owner.replies(1)
        letters.reader.assign(owner.topics.dead_letters, 0, 0)
        letter = letters.read(1)[0]
    letters.reader.close()
    assert (letter.key, letter.value, letter.headers[0]) == (b"odd", b"\xff\x00", ("trace", b"\x00"))
    assert dict(letter.headers)["__connect.errors.topic"] == topic.encode()


def test_a_rebalance_neither_loses_nor_repeats(owner: Owner) -> None:
    inside, go_on = Event(), Event()
    participant = Participant(Payments)
    runs: list[str] = []

    @participant.handles(Payments.charge)
    def charge(request: Charge) -> Receipt:
        runs.append(request.order_id)
        if request.order_id.startswith("slow"):
            inside.set()
            assert go_on.wait(30)
        return Receipt(payment_id="p-1")

    @participant.handles(Payments.refund)
    def refund(request: Charge) -> None:
        runs.append(f"undo of {request.order_id}")

    slow = [f"slow-{number}" for number in range(6)]
    with running(owner, participant):
        for saga_id in slow:
            owner.send(saga_id)
        assert inside.wait(30)
        with running(owner, participant) as second:
            for saga_id in slow:
                owner.send(saga_id, "undo")
            # It has a partition, and waits there for the first's handlers.
            until(lambda: bool(second.engine.partitions))
            go_on.set()
            # The second answers once more, from memory, what the first could not commit.
            answered = set()
            while len(answered) < 12:
                answered |= {(reply.saga_id, reply.undo) for reply in owner.replies(1)}
    assert answered == {(saga_id, undo) for saga_id in slow for undo in (True, False)}
    assert sorted(runs) == sorted([*slow, *(f"undo of {saga_id}" for saga_id in slow)])
    assert all(runs.index(saga_id) < runs.index(f"undo of {saga_id}") for saga_id in slow)


def test_after_a_kill_the_next_one_waits_and_goes_on_with_the_same_key(owner: Owner, broker: str, prefix: str) -> None:
    command = [sys.executable, "-m", "tests.integration.participant_service", broker, prefix]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env=os.environ | {"HANGS": "1"}
    )
    try:
        owner.send("o-1")
        assert process.stdout is not None
        assert process.stdout.readline() == "o-1/1-10-0/1/do\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    owner.send("o-1", "undo")
    participant, keys = quick()
    with running(owner, participant, lease_ms=1_000, handler_limit_ms=1_000):
        replies = owner.replies(2)
    assert [(reply.undo, reply.outcome) for reply in replies] == [(False, Outcome.SUCCESS), (True, Outcome.SUCCESS)]
    assert keys == ["o-1/1-10-0/1/do", "o-1/1-10-0/1/undo"]


def test_work_is_completed_later_by_token_also_under_the_next_participant(owner: Owner) -> None:
    participant = Participant(Payments)
    tokens: dict[str, str] = {}
    stopped: list[str] = []

    @participant.handles(Payments.charge)
    def charge(request: Charge, context: HandlerContext) -> Receipt:
        tokens[request.order_id] = context.token
        raise Pending

    @participant.handles(Payments.refund)
    def refund(request: Charge) -> None:
        stopped.append(request.order_id)

    async def complete() -> None:
        async with Client(owner.log, owner.topics, PARTITIONS) as client:
            await client.complete(tokens["paid"], Receipt(payment_id="p-1"))
            await client.fail(tokens["declined"], "CardDeclined", "too much")
            await client.complete(tokens["undone"], Receipt(payment_id="p-2"))
            await client.complete(tokens["paid"], Receipt(payment_id="p-3"))

    with running(owner, participant):
        for saga_id in ("paid", "declined", "undone"):
            owner.send(saga_id)
        until(lambda: len(tokens) == 3)
        owner.send("undone", "undo")
        assert [(reply.saga_id, reply.undo) for reply in owner.replies(1)] == [("undone", True)]
    runs = dict(tokens)
    with running(owner, participant):
        owner.send("paid", attempt=2)
        asyncio.run(complete())
        replies = owner.replies(3)
        # It waits for its turn behind the late completion.
        owner.send("undone", "undo", attempt=2)
        assert owner.replies(1)[0].saga_id == "undone"
    told = sorted((reply.saga_id, reply.attempt, reply.outcome, reply.payload) for reply in replies)
    paid = ("paid", 2, Outcome.SUCCESS, b'{"payment_id":"p-1"}')
    assert told == [("declined", 1, Outcome.FAILURE, b""), paid, paid]
    assert (stopped, tokens) == (["undone"], runs)
    bodies = [body for partition in range(PARTITIONS) for body in owner.ledger(partition)]
    ended = [body for body in bodies if isinstance(body, Execution) and body.saga_id == "undone"]
    late = [body.reply for body in ended if not body.undo]
    assert late[-1] == ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-2"}')


def test_a_service_needs_no_sdk(owner: Owner, broker: str) -> None:
    """Any client takes part that copies the headers back and adds the outcome."""
    topics = owner.topics
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker, "group.id": topics.group("payments"), "auto.offset.reset": "earliest"}
    )
    producer = confluent_kafka.Producer({"bootstrap.servers": broker})
    consumer.subscribe([topics.commands("payments")])
    owner.send("o-1")
    message = None
    while message is None:
        message = consumer.poll(1.0)
    assert message.error() is None
    headers: list[tuple[str, Any]] = list(message.headers() or [])
    found = dict(headers)
    producer.produce(
        found[h.REPLY_TO].decode(),
        partition=int(found[h.REPLY_PARTITION]),
        key=message.key(),
        value=b'{"payment_id":"p-1"}',
        headers=[*headers, ("outcome", b"success")],
    )
    assert producer.flush(10) == 0
    consumer.close()
    assert owner.replies(1) == [Reply("o-1", "1-10-0", 1, False, 1, Outcome.SUCCESS, b'{"payment_id":"p-1"}')]
