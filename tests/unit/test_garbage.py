"""What a saga leaves behind is freed at once: a worker's collector looks for circles only after very long."""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest

from orchestrator.errors import Abort, StepFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.events import Status
from orchestrator.saga import Saga
from tests.shop_world import Inventory, OrderFulfilment, Payments, World, refuse, send_starts

KEEP_MS = 5_000
SAGAS = 40


def fails(what: str) -> str:
    raise StepFailed("Broken", what)


class Gathering(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.gather(self.step(Inventory.reserve(order_id=what), undo=Inventory.release), self.part(what))
        return "done"

    async def part(self, what: str) -> str:
        return await self.step(Payments.charge(order_id=what, cents=1), undo=Payments.refund)


class Catching(Gathering):
    async def run(self, what: str) -> str:
        try:
            return await super().run(what)
        except StepFailed as failed:
            return failed.error_type


class Aborting(Gathering):
    async def run(self, what: str) -> str:
        try:
            return await super().run(what)
        except StepFailed as failed:
            raise Abort("no") from failed


class Parent(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.child(Aborting, what)


class Calling(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.local(fails, what)


class Again(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.sleep(0.01)
        if what == "x":
            self.continue_as_new("y")
        return what


class Buggy(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.sleep(0.01)
        raise ValueError(what)


def kept(what: str) -> ValueError:
    """An error that was raised before, elsewhere."""
    try:
        raise ValueError(what)
    except ValueError as error:
        return error


class Causing(Saga[str, str]):
    async def run(self, what: str) -> str:
        raise Abort("no") from kept(what)


class Grouping(Saga[str, str]):
    async def run(self, what: str) -> str:
        raise ExceptionGroup("several", [kept(what)])


class Circling(Saga[str, str]):
    async def run(self, what: str) -> str:
        first, second = kept(what), kept(what)
        first.__context__, second.__context__ = second, first
        raise first


KINDS: tuple[type[Saga[Any, Any]], ...] = (
    *(OrderFulfilment, Gathering, Catching, Aborting, Parent, Calling, Again, Buggy, Causing, Grouping),
)


@pytest.fixture
def by_hand() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_a_saga_leaves_behind_needs_no_collector(kind: type[Saga[Any, Any]]) -> None:
    world = World(sagas=(kind, Aborting), ended_keep_ms=KEEP_MS)
    world.behave = refuse("charge")
    value = None if kind is OrderFulfilment else b'"x"'

    def live(name: str) -> None:
        send_starts(world, *(f"{name}-{n}" for n in range(SAGAS)), saga_type=kind.__name__, value=value)
        world.settle()
        for _ in range(4):
            world.advance(KEEP_MS + 1_000)

    live("first")
    gc.collect()
    live("then")
    assert gc.collect() < SAGAS


@dataclass(frozen=True)
class Frozen(Exception):
    what: str


class Freezing(Saga[str, str]):
    async def run(self, what: str) -> str:
        raise Frozen(what)


def test_an_error_that_takes_no_assignment_parks_its_saga_like_any() -> None:
    world = World(sagas=(Freezing,))
    send_starts(world, "freezing", saga_type="Freezing", value=b'"x"')
    world.settle()
    assert world.status("freezing") is Status.PARKED


def test_errors_that_came_of_each_other_hold_up_nobody() -> None:
    world = World(sagas=(Circling,))
    send_starts(world, "circling", saga_type="Circling", value=b'"x"')
    world.settle()
    assert world.status("circling") is Status.PARKED


LOG = KafkaLog("127.0.0.1:9")
CLIENTS: dict[str, Callable[[], Any]] = {
    "reader": lambda: LOG.reader(wake=Event()),
    "member": lambda: LOG.reader("group", ["topic"], wake=Event()),
    "appender": lambda: LOG.appender(wake=Event()),
    "admin": LOG.admin,
}


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("name", CLIENTS)
def test_nor_does_a_client_of_kafka_that_is_closed(name: str) -> None:
    client = CLIENTS[name]()
    parts = [weakref.ref(part) for part in vars(client).values() if hasattr(type(part), "__weakref__")]
    assert parts
    client.close(*((0.1,) if name == "appender" else ()))
    del client
    assert [part() for part in parts if part() is not None] == []
