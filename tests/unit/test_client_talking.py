"""A client talks to a saga: signals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from pydantic import ValidationError

from orchestrator.client import Client
from orchestrator.errors import InvalidRequest, SagaNotFound, StartRejected
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.wire import headers as h
from tests.expense import Decision, Expense
from tests.shop_world import PARTITIONS, OrderFulfilment, World, drive

T = TypeVar("T")


@pytest.fixture
def world() -> World:
    return World()


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await work(client)

    return drive(world, main())


def bare(world: World, saga_id: str, value: bytes, **headers: str) -> None:
    """A record as any producer can write it."""
    given = h.write_headers({name.replace("_", "-"): text for name, text in headers.items()})
    number, appender = partition_of(saga_id, PARTITIONS), world.log.appender()
    appender.append(world.topics.inbox, number, value, key=saga_id.encode(), headers=given, token=None)


# -- signals


def test_a_signal_reaches_the_saga(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1")
        await handle.signal(Expense.decided, Decision(by="ann"))
        return await handle.result()

    assert using(world, work) == "900 approved by ann"


def test_a_signal_sent_twice_under_one_message_id_is_one(world: World) -> None:
    async def work(client: Client) -> str:
        await client.signal("e-1", Expense.noted, "dear", message_id="note-1")
        await client.signal("e-1", Expense.noted, "dear", message_id="note-1")
        handle = await client.start(Expense, 900, id="e-1")
        await handle.signal(Expense.decided, Decision(by="ann", approved=False))
        return await handle.result()

    assert using(world, work) == "900 denied by ann"
    assert world.engine.counters["duplicates"] == 1


def test_a_signal_before_the_start_survives_the_owner_and_its_store(world: World) -> None:
    async def early(client: Client) -> None:
        await client.signal("e-1", Expense.decided, Decision(by="ann"))

    using(world, early)
    world.settle()
    assert world.status("e-1") is Status.NOT_STARTED
    world.crash()
    world.settle()

    async def start(client: Client) -> str:
        with pytest.raises(SagaNotFound):
            await (await client.attach(Expense, "e-1")).result()
        return await (await client.start(Expense, 900, id="e-1")).result()

    assert using(world, start) == "900 approved by ann"


def test_a_signal_for_nobody_is_forgotten_after_its_time(world: World) -> None:
    async def early(client: Client) -> None:
        await client.signal("e-1", Expense.decided, Decision(by="ann"))

    using(world, early)
    world.settle()
    world.advance(86_400_000)
    send = using(world, lambda client: client.start(Expense, 900, id="e-1"))
    world.settle()
    assert not send.done
    assert world.status("e-1") is Status.RUNNING


def test_a_signal_with_the_start_goes_in_one_record(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1", signal=(Expense.decided, Decision(by="Zoë")))
        return await handle.result()

    assert using(world, work) == "900 approved by Zoë"
    assert len(world.records(world.topics.inbox)) == 1


def test_a_signal_that_does_not_fit_is_refused_before_it_is_sent(world: World) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(Expense, 900, id="e-1")
        with pytest.raises(ValidationError):
            await handle.signal(Expense.decided, "yes")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="the headers for saga"):
            await client.start(Expense, 1, id="e-2", signal=(Expense.noted, "x" * 9_000))

    using(world, work)
    assert len(world.records(world.topics.inbox)) == 1


def test_any_producer_can_start_with_a_signal_and_send_one(world: World) -> None:
    bare(world, "e-1", b"900", saga_type="Expense", signal="noted", signal_value='"dear"')
    bare(world, "e-1", b'{"by": "ann"}', input_type="signal", signal="decided")
    world.settle()
    assert world.status("e-1") is Status.COMPLETED


def test_a_start_with_a_signal_that_the_saga_lacks_is_rejected_and_says_so(world: World) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(OrderFulfilment, {"id": "o-1"}, id="o-1", signal=(Expense.noted, "x"))  # type: ignore[arg-type]
        with pytest.raises(StartRejected, match="no signal 'noted'"):
            await handle.result()

    using(world, work)
    (letter,) = world.records(world.topics.dead_letters)
    assert b"no signal 'noted'" in b" ".join(value or b"" for _, value in letter.headers)


def test_outside_of_the_loop_nothing_is_lost() -> None:
    world = World()

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.signal("e-1", Expense.decided, Decision(by="ann"))

    asyncio.run(main())
    bare(world, "e-1", b"900", saga_type="Expense")
    world.settle()
    assert world.status("e-1") is Status.COMPLETED
