"""What a client asks an entity for is done once, also where it asks again and the entity is in another run by then."""

from __future__ import annotations

import pytest

import orchestrator.saga as saga_module
from orchestrator.client import Client
from orchestrator.entities import Entity, operation
from orchestrator.errors import Abort, SagaNotFound, UpdateFailed, UpdateRejected
from orchestrator.model.ids import partition_of
from orchestrator.questions import query
from orchestrator.wire import headers as h
from tests.shop_world import PARTITIONS, World, drive


class Tally(Entity[int]):
    @operation
    async def add(self, amount: int) -> int:
        if amount < 0:
            raise Abort("Negative", "only more")
        self.state += amount
        return self.state

    @query
    def total(self) -> int:
        return self.state


def test_an_entity_is_asked_told_and_queried() -> None:
    world = World(sagas=(Tally,))

    async def main() -> list[object]:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            tally = client.entity(Tally, "a")
            with pytest.raises(SagaNotFound):
                await tally.query(Tally.total)
            told: list[object] = [await tally.call(Tally.add(2))]
            with pytest.raises(UpdateFailed, match="Negative: only more"):
                await tally.call(Tally.add(-1))
            await tally.tell(Tally.add(3))
            told.append(await tally.query(Tally.total))
            told.append(await client.entity(Tally, "b").call(Tally.add(1)))
            with pytest.raises(UpdateRejected, match="no operation 'sub'"):
                await (await client.start_update_raw("u", tally.id, "sub", b"{}", str, "Tally")).result()
            return told

    assert drive(world, main()) == [2, 5, 1]
    assert not world.records(world.topics.dead_letters)


def test_what_an_earlier_run_did_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga_module, "SUGGEST_AFTER_OUTCOMES", 3)
    world = World(sagas=(Tally,))

    async def main() -> int:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            tally = client.entity(Tally, "a")
            assert await tally.call(Tally.add(1), operation_id="once") == 1
            for _ in range(4):
                await tally.call(Tally.add(10))
            with pytest.raises(UpdateFailed, match="ResultGone"):
                await tally.call(Tally.add(1), operation_id="once")
            return await tally.query(Tally.total)

    assert drive(world, main()) == 41
    world.crash()

    async def again() -> int:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            with pytest.raises(UpdateFailed, match="ResultGone"):
                await client.entity(Tally, "a").call(Tally.add(1), operation_id="once")
            return await client.entity(Tally, "a").query(Tally.total)

    assert drive(world, again()) == 41


def test_a_bare_producer_asks_an_entity() -> None:
    world = World(sagas=(Tally,))

    async def main() -> int:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            tally = client.entity(Tally, "a")
            headers = h.write_headers({"input-type": "update", "update": "add", "saga-type": "Tally"})
            appender = world.log.appender()
            number, key = partition_of(tally.id, PARTITIONS), tally.id.encode()
            appender.append(world.topics.inbox, number, b'{"amount": 7}', key=key, headers=headers, token=None)
            return await tally.call(Tally.add(0))

    assert drive(world, main()) == 7
