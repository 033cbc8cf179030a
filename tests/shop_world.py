"""A small shop on a log in memory: an engine, its participants, and a clock that only moves when told."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from threading import Event
from typing import Any, TypeVar

from pydantic import BaseModel

from orchestrator.locks import with_locks
from orchestrator.log.base import Record
from orchestrator.log.memory import MemoryLog
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.clients import Clients
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.lifecycle import Feed
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.takeover import Owner
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, ReplyMessage, read_command, reply_headers
from orchestrator.wire.journal import Claim, Genesis
from orchestrator.wire.tokens import TokenKeys
from tests.expense import Approval, Expense

PARTITIONS = 4
SERVICES = ("inventory", "payments", "shipping")
T = TypeVar("T")


class Order(BaseModel):
    id: str
    sku: str = "tea"
    cents: int = 900


class Reserve(BaseModel):
    order_id: str


class Reservation(BaseModel):
    warehouse: str


class Charge(BaseModel):
    order_id: str
    cents: int


class Ship(BaseModel):
    order_id: str
    warehouse: str


class Inventory(Service):
    reserve = command(Reserve, Reservation)
    release = command(Reserve)


class Payments(Service):
    charge = command(Charge, str)
    refund = command(Charge)


class Shipping(Service):
    ship = command(Ship, str)


class OrderFulfilment(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        await self.step(
            Payments.charge(order_id=order.id, cents=order.cents),
            undo=Payments.refund,
            retry=Retry(maximum_attempts=2, exhausted="park"),
        )
        return await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)


class Greeting(Saga[str, str]):
    async def run(self, name: str) -> str:
        await self.sleep(3600)
        return f"hello {name}"


SAGAS: tuple[type[Saga[Any, Any]], ...] = (OrderFulfilment, Greeting, Expense, Approval)

REPLIES = {"reserve": b'{"warehouse":"A"}', "charge": b'"receipt"', "ship": b'"shipped"'}


def succeed(message: CommandMessage) -> ReplyMessage | None:
    """What a participant that never fails answers."""
    return ReplyMessage(Outcome.SUCCESS, REPLIES.get(message.command_type, b"null"))


class World:
    """Engine and participants, stepped by hand. `behave` says what a participant answers; None: nothing."""

    def __init__(
        self,
        *,
        seed: int = 1,
        prefix: str = "",
        sagas: tuple[type[Saga[Any, Any]], ...] = SAGAS,
        ended_keep_ms: int = ENDED_KEEP_MS,
    ) -> None:
        self.sagas = sagas
        self.ended_keep_ms = ended_keep_ms
        self.now_ms = 1_700_000_000_000
        self.log = MemoryLog(lambda: self.now_ms)
        self.topics = TopicNames(prefix)
        self.behave: Callable[[CommandMessage], ReplyMessage | None] = succeed
        self.random = random.Random(seed)
        apply(self.log.admin(), plan(self.topics, partitions=PARTITIONS, replication=1, services=SERVICES))
        self._commands = self.log.reader()
        self._replies = self.log.appender()
        for service in SERVICES:
            for partition in range(PARTITIONS):
                self._commands.assign(self.topics.commands(service), partition, 0)
        self.engine = self.new_engine()
        self.settle()

    def new_engine(self) -> Engine:
        """Another worker with an empty store."""
        definitions = with_locks({saga.definition.name: saga.definition for saga in self.sagas})
        keys = TokenKeys({"k": b"0" * 16})
        config = PartitionConfig(self.topics, PARTITIONS, keys, definitions, ended_keep_ms=self.ended_keep_ms)
        self._wake = wake = Event()
        clients = Clients(
            self.log.reader("owners", [self.topics.inbox], wake=wake),
            self.log.reader(wake=wake),
            self.log.appender(wake=wake),
            self.log.appender(wake=wake),
        )
        owner = Owner(
            Claim("w", "", tuple(definitions), "1"),
            lambda: self.random.randbytes(16),
            lambda: Genesis(1, PARTITIONS, {}, self.now_ms),
        )
        self.feeds: dict[int, Feed] = {}
        return Engine(config, clients, MemoryStores(), owner, self.random.random, feeds=self.feeds)

    def crash(self) -> None:
        """The worker dies with its store; its successor takes over from the journal."""
        for reader in (self.engine._clients.inputs, self.engine._clients.journals):
            reader.close()
        self.engine = self.new_engine()

    def step(self) -> bool:
        """One step of everybody; whether there is more, or anything new."""
        self._wake.clear()
        busy = self.engine.step(self.now_ms) or self._wake.is_set()
        for happening in self._commands.poll():
            if isinstance(happening, Record):
                busy = True
                self._serve(happening)
        self._replies.poll()
        return busy

    def settle(self, advance_ms: int = 5) -> None:
        """Steps until nothing happens any more, timers aside."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self.step() else quiet + 1
            self.now_ms += advance_ms

    def advance(self, by_ms: int) -> None:
        """Lets time pass, then settles."""
        self.now_ms += by_ms
        self.settle()

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, partition by partition."""
        return [record for partition in range(PARTITIONS) for record in self.log.records(topic, partition)]

    def status(self, saga_id: str) -> Status:
        """A run's status as its owner sees it."""
        for tenure in self.engine.tenures.values():
            execution = None if tenure.partition is None else tenure.partition.runs.find(saga_id)
            if execution is not None:
                return execution.state.status
        raise KeyError(saga_id)

    def owned(self, number: int = 0) -> Partition:
        """A partition of the worker, which must own it."""
        partition = self.engine.tenures[number].partition
        assert partition is not None
        return partition

    def _serve(self, record: Record) -> None:
        message = read_command(record.headers, record.value)
        reply = self.behave(message)
        if reply is None:
            return
        self._replies.append(
            message.reply_to,
            message.reply_partition,
            reply.payload,
            key=message.saga_id.encode(),
            headers=reply_headers(message, reply),
            token=None,
        )


def send_starts(
    world: World,
    *ids: str,
    saga_type: str = "OrderFulfilment",
    value: bytes | None = None,
    message_id: str | None = None,
) -> None:
    """A bare client starts sagas: orders, or whatever has this `value` for its input. Nothing runs yet."""
    client = world.log.appender()
    for saga_id in ids:
        given = Order(id=saga_id).model_dump_json().encode() if value is None else value
        headers = h.write_headers({h.SAGA_TYPE: saga_type, h.MESSAGE_ID: message_id})
        number = partition_of(saga_id, PARTITIONS)
        client.append(world.topics.inbox, number, given, key=saga_id.encode(), headers=headers, token=None)


def refuse(*commands: str, outcome: Outcome = Outcome.FAILURE) -> Callable[[CommandMessage], ReplyMessage]:
    """Participants that answer some commands by a failure (or `outcome`), the others by success."""

    def behave(message: CommandMessage) -> ReplyMessage:
        if message.command_type in commands:
            return ReplyMessage(outcome, b"", "Declined", "the card was declined")
        return ReplyMessage(Outcome.SUCCESS, REPLIES.get(message.command_type, b"null"))

    return behave


def drive(world: World, work: Coroutine[Any, Any, T]) -> T:
    """Runs a client's coroutine while the world goes on beside it, one step a turn of the loop."""

    async def main() -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            world.step()
            world.now_ms += 1
            await asyncio.sleep(0)
        return task.result()

    return asyncio.run(main())
