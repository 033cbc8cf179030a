"""What a client asks of one saga and is told of it, on a log in memory with a real engine."""

from __future__ import annotations

import pytest

from orchestrator import Saga
from orchestrator.client import Client
from orchestrator.entities import Entity, operation
from orchestrator.errors import InvalidRequest, NotApplied, SagaFailed, SagaNotFound, UpdateRejected
from orchestrator.model.messages import Outcome
from orchestrator.signals import signal
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_world import PARTITIONS, Inventory, Shipping, World, drive, succeed


class Corrected(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shipping.ship(order_id="o-1", warehouse="A"))
        return f"{what} in {(await self.step(Inventory.reserve(order_id=what))).warehouse}"


def test_an_input_that_does_not_fit_changes_nothing_and_another_one_does() -> None:
    world = World(sagas=(Corrected,))
    came: list[str] = []

    def behave(message: CommandMessage) -> ReplyMessage | None:
        came.append(message.command_type)
        return ReplyMessage(Outcome.FAILURE, b"", "Unknown") if b"mistyped" in message.payload else succeed(message)

    async def work() -> str:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            handle = await client.start(Corrected, "mistyped", id="c")
            with pytest.raises(SagaFailed, match="Unknown"):
                await handle.result(timeout=5)
            for operation in (client.redrive, client.restart):
                with pytest.raises(NotApplied, match="c: nothing was changed: the input does not fit the saga"):
                    await operation("c", payload=b"7", timeout=5)
            with pytest.raises(SagaNotFound, match="there is no saga 'nobody'"):
                await client.redrive("nobody", payload=b'"tea"', timeout=5)
            await client.redrive("c", payload=b'"tea"', reason="mistyped", by="ann", timeout=5)
            return await (await client.attach(Corrected, "c")).result(timeout=5)

    world.behave = behave
    assert drive(world, work()) == "tea in A"
    assert came == ["ship", "reserve", "reserve"]


class Waits(Saga[str, str]):
    go = signal(str)

    async def run(self, what: str) -> str:
        return await self.receive(Waits.go)


def test_to_reschedule_and_to_move_to_another_version_tells_what_came_of_it() -> None:
    world = World(sagas=(Waits,))

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Waits, "x", id="s", start_delay=3_600)
            await client.reschedule("s", start_delay=0, timeout=5)
            with pytest.raises(NotApplied, match="the saga has begun already"):
                await client.reschedule("s", start_delay=5, timeout=5)
            with pytest.raises(NotApplied, match="the saga's worker has no version 77 of Waits, but 1"):
                await client.move_version("s", 77, timeout=5)
            await client.move_version("s", 1, timeout=5)
            with pytest.raises(SagaNotFound, match="there is no saga 'nobody'"):
                await client.reschedule("nobody", start_delay=5, timeout=5)
            with pytest.raises(SagaNotFound, match="there is no saga 'nobody'"):
                await client.move_version("nobody", 2, timeout=5)

    drive(world, work())
    assert world.status("s") == "RUNNING"


def test_a_saga_whose_code_nobody_has_is_moved_and_waits() -> None:
    world = World(sagas=(Waits,))

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Waits, "x", id="s")
            world.settle()
            world.sagas = ()
            world.crash()
            with pytest.raises(
                NotApplied, match="no worker has the saga's code: it goes on with version 2 once one does"
            ):
                await client.move_version("s", 2, timeout=5)

    drive(world, work())


def test_a_decision_that_there_is_not_is_refused_with_those_there_are() -> None:
    world = World(sagas=(Waits,))

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            with pytest.raises(InvalidRequest, match="a decision is retry, skip, set-result, not 'explode'"):
                await client.unpark("s", "explode")  # type: ignore[arg-type]

    drive(world, work())


class Tally(Entity[int]):
    @operation
    async def add(self, amount: int) -> int:
        self.state += amount
        return self.state


class Asks(Saga[str, int]):
    async def run(self, key: str) -> int:
        return await self.entity(Tally, key).call(Tally.add(10))


@pytest.mark.parametrize("exists", [True, False])
def test_a_client_hears_at_once_that_an_entity_is_paused_and_a_saga_waits(exists: bool) -> None:
    world = World(sagas=(Tally, Asks))

    async def work() -> int:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            tally = client.entity(Tally, "a")
            if exists:
                await tally.call(Tally.add(1))
            await client.pause_all(type="Tally")
            for _ in range(2):
                with pytest.raises(UpdateRejected, match=r"the saga is (paused by the rule type:Tally|PAUSED)"):
                    await tally.call(Tally.add(2))
            await tally.tell(Tally.add(4))
            asks = await client.start(Asks, "a", id="asks")
            world.settle()
            with pytest.raises(UpdateRejected, match=r"the saga is (paused by the rule type:Tally|PAUSED)"):
                await tally.call(Tally.add(8))
            await client.resume_all(type="Tally")
            return await asks.result(timeout=5)

    assert drive(world, work()) == 14 + exists


def test_who_would_cancel_a_lock_is_told_how_it_is_released() -> None:
    class Holds(Saga[str, str]):
        async def run(self, key: str) -> str:
            await self.lock(key)
            return str(await self.step(Inventory.reserve(order_id=key)))

    world = World(sagas=(Holds, Tally))
    world.behave = lambda message: None

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Holds, "k", id="holds")
            await client.entity(Tally, "a").call(Tally.add(1))
            with pytest.raises(NotApplied, match="`saga locks release k` hands the key to the next who waits"):
                await client.cancel("lock/k", timeout=5)
            with pytest.raises(NotApplied, match="an entity is not undone or run again: delete it, or terminate it"):
                await client.cancel("Tally/a", timeout=5)

    drive(world, work())
