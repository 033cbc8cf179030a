"""What stands around a client: functions that each start, signal, update and query goes through."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator import Saga, query, signal, update
from orchestrator.client import Client
from orchestrator.client.client import Outgoing
from orchestrator.entities import Entity, operation
from tests.shop_world import PARTITIONS, World, drive


class Counter(Saga[int, int]):
    end = signal(int)

    async def run(self, number: int) -> int:
        self.number = number
        last = await self.receive(Counter.end)
        return self.number + last

    @update
    async def add(self, number: int) -> int:
        self.number += number
        return self.number

    @query
    def times(self, factor: int) -> int:
        return self.number * factor


class Purse(Entity[int]):
    @operation
    async def put(self, cents: int) -> int:
        self.state += cents
        return self.state

    @query
    def holds(self) -> int:
        return self.state


class Watch:
    """Notes what goes out, changes the numbers of one kind, and refuses what it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.forbidden = ""

    def __call__(self, sent: Outgoing) -> Outgoing:
        self.seen.append((sent.kind, sent.saga_id, sent.name))
        if sent.name == self.forbidden:
            raise PermissionError(sent.name)
        given = json.loads(sent.payload or b"null")
        if isinstance(given, dict) and "number" in given:
            return replace(sent, payload=json.dumps({"number": given["number"] * 10}).encode())
        return sent


def test_updates_and_queries_go_through_and_may_be_changed_or_refused() -> None:
    world, watch = World(sagas=(Counter, Purse)), Watch()

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS, around=[watch]) as client:
            handle = await client.start(Counter, 1, id="c")
            assert await handle.update(Counter.add, 2) == 21
            assert await (await client.start_update_as("u-1", "c", Counter.add, 1)).result() == 31
            assert await handle.query(Counter.times, 2) == 62
            watch.forbidden = "times"
            with pytest.raises(PermissionError, match="times"):
                await handle.query(Counter.times, 2)
            watch.forbidden = "add"
            with pytest.raises(PermissionError, match="add"):
                await handle.update(Counter.add, 2)
            purse = client.entity(Purse, "ann")
            assert await purse.call(Purse.put(5)) == 5
            await purse.tell(Purse.put(5))
            assert await purse.query(Purse.holds) == 10
            await handle.signal(Counter.end, 0)
            assert await handle.result() == 31

    drive(world, work())
    assert watch.seen == [
        ("start", "c", "Counter"),
        ("update", "c", "add"),
        ("update", "c", "add"),
        ("query", "c", "times"),
        ("query", "c", "times"),
        ("update", "c", "add"),
        ("update", "Purse/ann", "put"),
        ("update", "Purse/ann", "put"),
        ("query", "Purse/ann", "holds"),
        ("signal", "c", "end"),
    ]


def test_a_signal_that_comes_along_with_a_start_goes_through_as_well() -> None:
    world, watch = World(sagas=(Counter,)), Watch()

    async def work() -> int:
        async with Client(world.log, world.topics, PARTITIONS, around=[watch, doubled]) as client:
            return await (await client.start(Counter, 1, id="c", signal=(Counter.end, 4))).result()

    def doubled(sent: Outgoing) -> Outgoing:
        if sent.kind != "signal":
            return sent
        return replace(sent, payload=json.dumps(2 * json.loads(sent.payload)).encode())

    assert drive(world, work()) == 9
    assert watch.seen == [("signal", "c", "end"), ("start", "c", "Counter")]
