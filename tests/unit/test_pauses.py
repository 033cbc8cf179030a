"""Rules of pausing in a partition: kept in its store, found by its next owner, let go of run by run."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.errors import InvalidRequest, NotApplied, NotHeard, SagaNotFound
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.pauses import MAX_RULES
from orchestrator.runtime.pauses import Pauses
from orchestrator.store.memory import MemoryStores
from orchestrator.visibility import Visibility
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, World, drive, send_starts

IDS = [f"o-{number}" for number in range(12)]


@pytest.fixture
def world() -> World:
    return World()


def using(world: World, *work: Callable[[Client], Awaitable[object]]) -> list[object]:
    async def main() -> list[object]:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return [await one(client) for one in work]

    return drive(world, main())


def statuses(world: World, ids: list[str] = IDS) -> set[Status]:
    return {world.status(saga_id) for saga_id in ids}


def test_a_paused_service_gets_no_commands_until_it_is_resumed(world: World) -> None:
    (rule,) = using(world, lambda client: client.pause_all(service="payments", reason="being moved"))
    assert rule == "service:payments"
    send_starts(world, *IDS)
    world.settle()
    assert statuses(world) == {Status.PAUSED}
    assert not world.records(world.topics.commands("payments"))
    using(world, lambda client: client.resume_all(service="payments"))
    world.settle()
    assert statuses(world) == {Status.COMPLETED}


def test_the_next_owner_finds_the_rules_and_lets_go_of_what_they_held(world: World) -> None:
    using(world, lambda client: client.pause_all(type="OrderFulfilment"))
    send_starts(world, *IDS)
    world.settle()
    world.crash()
    world.settle()
    send_starts(world, "late")
    world.settle()
    assert world.status("late") is Status.PAUSED
    using(world, lambda client: client.resume_all(type="OrderFulfilment"))
    world.settle()
    assert statuses(world, [*IDS, "late"]) == {Status.COMPLETED}


def test_what_was_let_go_of_only_in_part_the_next_owner_goes_on_with() -> None:
    store = MemoryStores().open(0)
    store.write([(b"ho-1", b"type:Order"), (b"ho-2", b"partition")])
    pauses = Pauses(store, {"partition": ("ann", "", 1)}, {})
    assert pauses.restless
    assert list(pauses.released(10)) == ["o-1"]
    assert not pauses.restless


def test_a_timer_that_came_due_while_paused_fires_after_it(world: World) -> None:
    send_starts(world, "g-1", saga_type="Greeting", value=b'"Ada"')
    world.settle()
    using(world, lambda client: client.pause("g-1", timeout=5))
    world.advance(2 * 3_600_000)
    assert world.status("g-1") is Status.PAUSED
    using(world, lambda client: client.resume("g-1", timeout=5))
    world.settle()
    assert world.status("g-1") is Status.COMPLETED


def test_one_partition_is_paused_and_the_others_go_on(world: World) -> None:
    number = partition_of("o-1", PARTITIONS)
    (rule,) = using(world, lambda client: client.pause_all(partition=number))
    assert rule == "partition"
    send_starts(world, *IDS)
    world.settle()
    assert statuses(world) == {Status.PAUSED, Status.COMPLETED}
    using(world, lambda client: client.resume_all(partition=number))
    world.settle()
    assert statuses(world) == {Status.COMPLETED}


def test_what_changes_nothing_says_why(world: World) -> None:
    async def twice(client: Client) -> None:
        await client.start(Greeting, "Ada", id="g-1")
        await client.pause("g-1", timeout=5)
        with pytest.raises(NotApplied, match="g-1: nothing was changed: it is paused already"):
            await client.pause("g-1", timeout=5)
        with pytest.raises(SagaNotFound, match="there is no saga 'nobody'"):
            await client.cancel("nobody", timeout=5)
        with pytest.raises(SagaNotFound, match="there is no saga 'nobody'"):
            await client.unpark("nobody", "retry", timeout=5)
        await client.terminate("g-1", timeout=5)
        with pytest.raises(NotApplied, match="the saga has ended"):
            await client.terminate("g-1", timeout=5)
        await client.pause_all(type="Greeting")
        with pytest.raises(NotApplied, match="type:Greeting is paused already"):
            await client.pause_all(type="Greeting")
        await client.resume_all(type="Greeting")
        with pytest.raises(NotApplied, match="type:Greeting is not paused"):
            await client.resume_all(type="Greeting")

    using(world, twice)


def test_what_names_nothing_or_too_much_is_not_sent(world: World) -> None:
    async def wrong(client: Client) -> None:
        for named in ({}, {"partition": 1, "type": "A"}, {"partition": 9}, {"step": "charge"}, {"type": "a b"}):
            with pytest.raises(InvalidRequest):
                await client.pause_all(**named)  # type: ignore[arg-type]

    using(world, wrong)
    assert not world.records(world.topics.operations)


def test_who_hears_nothing_is_told_so(world: World) -> None:
    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            with pytest.raises(NotHeard, match="no worker answered"):
                await client.pause("o-1", timeout=0.05)

    asyncio.run(main())


def test_a_partition_has_a_bound_of_rules() -> None:
    pauses = Pauses(MemoryStores().open(0), {}, {})
    for number in range(MAX_RULES):
        assert len(pauses.set(msg.SetPauseRule("m", f"type:T{number}", True), 1, ())) == 1
    assert pauses.set(msg.SetPauseRule("m", "partition", True), 1, ()) == ()
    assert len(pauses.set(msg.SetPauseRule("m", "type:T1", False), 1, ())) == 1


def test_a_list_shows_what_is_paused_and_by_what(world: World, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await client.start(Greeting, "Ada", id="g-1")
        await client.pause("g-1", reason="wait", by="ann", timeout=5)
        await client.pause_all(type="OrderFulfilment", by="bob")
        await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")

    using(world, work)
    world.settle()
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        paused = {run.saga_id: run.paused for run in visibility.list(status="PAUSED").runs}
        assert paused == {"g-1": "paused by ann: wait", "o-1": "paused by the rule type:OrderFulfilment"}
        found = visibility.database.execute("SELECT rule, by FROM pauses").fetchall()
        assert found == [("type:OrderFulfilment", "bob")] * PARTITIONS
    using(world, lambda client: client.resume_all(type="OrderFulfilment"))
    world.settle()
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        assert visibility.counts() == {"PAUSED": 1, "COMPLETED": 1}
        assert visibility.database.execute("SELECT rule, by FROM pauses").fetchall() == []


@pytest.mark.parametrize("named", [{"type": "Typo"}, {"type": "Typo", "step": "payments.charge"}])
def test_a_rule_for_a_type_that_no_worker_has_stands_and_says_so(named: dict[str, Any]) -> None:
    async def pause(client: Client) -> None:
        with pytest.raises(NotApplied, match=r"no worker has a saga of type Typo: .* stands and waits for one"):
            await client.pause_all(**named)
        await client.resume_all(**named)

    using(World(), pause)
