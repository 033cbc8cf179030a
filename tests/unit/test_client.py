"""The client against a real engine on a log in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar

import pytest

from orchestrator.client import Client
from orchestrator.errors import Disconnected, InvalidRequest, NotAcknowledged, ResultTimeout, SagaFailed, SagaNotFound
from orchestrator.log.base import Failure, Record
from orchestrator.log.memory import MemoryAppender, MemoryLog
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.topics import TopicNames
from orchestrator.wire.headers import read_headers
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, World, drive, refuse

T = TypeVar("T")


@pytest.fixture
def world() -> World:
    return World()


def client_of(world: World, **settings: object) -> Client:
    return Client(world.log, world.topics, PARTITIONS, **settings)  # type: ignore[arg-type]


def using(world: World, work: Callable[[Client], Awaitable[T]], **settings: object) -> T:
    async def main() -> T:
        async with client_of(world, **settings) as client:
            return await work(client)

    return drive(world, main())


def headers_of(record: Record) -> dict[str, str]:
    return read_headers(record.headers)


def test_a_start_gives_the_typed_result(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        return await handle.result(timeout=20)

    assert using(world, work) == "shipped"


def test_a_start_returns_before_the_saga_runs(world: World) -> None:
    async def main() -> list[Record]:
        async with client_of(world) as client:
            await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            return world.records(world.topics.inbox)

    (record,) = asyncio.run(main())
    assert record.key == b"o-1"
    assert headers_of(record)["saga-type"] == "OrderFulfilment"
    assert not world.records(world.topics.commands("inventory"))


def test_an_id_is_made_where_none_is_given(world: World) -> None:
    async def work(client: Client) -> bool:
        one = await client.start(OrderFulfilment, Order(id="o"))
        two = await client.start(OrderFulfilment, Order(id="o"))
        return one.id != two.id and [await one.result(), await two.result()] == ["shipped", "shipped"]

    assert using(world, work)


def test_starting_an_id_again_attaches_and_runs_nothing_twice(world: World) -> None:
    async def work(client: Client) -> list[str]:
        first = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        results = [await first.result()]
        second = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        return [*results, await second.result()]

    # So late that only the second start's own answer can give the second result.
    assert using(world, work, attach_first_s=1000.0) == ["shipped", "shipped"]
    assert len(world.records(world.topics.commands("inventory"))) == 1


def test_the_same_message_id_is_the_same_start_for_two_clients(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1", message_id="request-1")
        return await handle.result(timeout=20)

    assert using(world, work) == "shipped"
    # The repeat is dropped; its result comes by asking again.
    assert using(world, work, attach_first_s=0.01) == "shipped"
    assert world.engine.counters["duplicates"] == 1


def test_a_failed_saga_raises_what_made_it_fail(world: World) -> None:
    world.behave = refuse("charge")

    async def work(client: Client) -> SagaFailed:
        handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        with pytest.raises(SagaFailed) as caught:
            await handle.result()
        return caught.value

    failed = using(world, work)
    assert (failed.saga_id, failed.status, failed.error_type) == ("o-1", Status.COMPENSATED, "Declined")
    assert failed.error_message == "the card was declined"
    assert failed.run
    assert "COMPENSATED: Declined: the card was declined" in str(failed)


def test_a_saga_that_goes_on_raises_a_timeout_and_can_be_asked_again(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Greeting, "Ada", id="g-1")
        with pytest.raises(ResultTimeout):
            await handle.result(timeout=0.01)
        assert not handle.done
        world.now_ms += 3_600_000
        return await handle.result()

    assert using(world, work) == "hello Ada"


def test_attaching_gives_the_result_of_what_another_client_started(world: World) -> None:
    async def start(client: Client) -> None:
        await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")

    async def attach(client: Client) -> str:
        return await (await client.attach(OrderFulfilment, "o-1")).result()

    using(world, start)
    world.settle()
    assert using(world, attach) == "shipped"


def test_attaching_to_nothing_raises_not_found(world: World) -> None:
    async def work(client: Client) -> None:
        await (await client.attach(OrderFulfilment, "nobody")).result()

    with pytest.raises(SagaNotFound, match="there is no such saga"):
        using(world, work)


def test_an_id_of_another_type_raises_not_found(world: World) -> None:
    async def work(client: Client) -> None:
        await client.start(Greeting, "Ada", id="x")
        await (await client.start(OrderFulfilment, Order(id="x"), id="x")).result()

    with pytest.raises(SagaNotFound, match="of type Greeting"):
        using(world, work)


def test_a_lost_answer_is_asked_for_again(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        # Whatever is answered now is lost: the client hears nothing until it listens again.
        connection = client._connection
        assert connection._reader is not None
        connection._reader.unassign(*connection._answers)
        connection._listening.clear()
        while not world.records(world.topics.answers):
            await asyncio.sleep(0)
        return await handle.result()

    assert using(world, work, attach_first_s=0.01) == "shipped"


def test_a_position_that_retention_passed_is_left_for_the_end(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Greeting, "Ada", id="g-1")
        partition = client._answer_partition
        stranger = world.log.appender()
        for _ in range(3):
            stranger.append(world.topics.answers, partition, b"", token=None)
        world.log.admin().trim({(world.topics.answers, partition): 3})
        client._connection._reader.assign(world.topics.answers, partition, 0)  # type: ignore[union-attr]
        world.now_ms += 3_600_000
        return await handle.result()

    assert using(world, work, attach_first_s=0.01) == "hello Ada"


def test_a_handle_that_is_gone_is_waited_for_by_nobody(world: World) -> None:
    async def work(client: Client) -> int:
        for number in range(50):
            await client.start(OrderFulfilment, Order(id=f"o-{number}"), id=f"o-{number}")
        return len(client._connection._expected)

    assert using(world, work) <= 1


def test_answers_survive_a_crash_of_the_owner(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Greeting, "Ada", id="g-1")
        world.settle()
        world.crash()
        world.settle()
        world.now_ms += 3_600_000
        return await handle.result()

    assert using(world, work) == "hello Ada"


def test_many_starts_are_under_way_at_once(world: World) -> None:
    async def work(client: Client) -> list[str]:
        handles = await client.start_many(OrderFulfilment, [(f"o-{n}", Order(id=f"o-{n}")) for n in range(300)])
        return list(await asyncio.gather(*(handle.result() for handle in handles)))

    assert using(world, work) == ["shipped"] * 300


def test_one_start_of_many_that_cannot_be_taken_raises_its_error() -> None:
    log = MemoryLog(lambda: 0)

    async def main() -> None:
        async with Client(log, TopicNames(), 4, timeout_s=0.05) as client:
            await client.start_many(OrderFulfilment, [("o-1", Order(id="o-1"))])

    with pytest.raises(Disconnected, match="saga topics check"):
        asyncio.run(main())


def test_cancel_undoes_and_its_reason_reaches_the_waiter(world: World) -> None:
    async def work(client: Client) -> SagaFailed:
        handle = await client.start(Greeting, "Ada", id="g-1")
        await handle.cancel(reason="changed my mind")
        with pytest.raises(SagaFailed) as caught:
            await handle.result()
        return caught.value

    failed = using(world, work)
    assert (failed.status, failed.error_message) == (Status.CANCELED, "changed my mind")


def test_terminate_goes_by_the_operations(world: World) -> None:
    async def work(client: Client) -> Status:
        handle = await client.start(Greeting, "Ada", id="g-1")
        await client.terminate("g-1", reason="stuck", by="ann")
        with pytest.raises(SagaFailed) as caught:
            await handle.result()
        return Status(caught.value.status)

    assert using(world, work) is Status.TERMINATED
    (record,) = world.records(world.topics.operations)
    assert headers_of(record)["by"] == "ann"


@pytest.mark.parametrize("action", ["retry", "set-result"])
def test_a_parked_saga_is_freed(world: World, action: str) -> None:
    world.behave = refuse("charge", outcome=Outcome.RETRY)

    async def work(client: Client) -> str:
        handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
        while world.engine.step(world.now_ms) or world.status("o-1") is not Status.PARKED:
            world.now_ms += 1000
            await asyncio.sleep(0)
        world.behave = refuse()
        payload = b'"receipt"' if action == "set-result" else None
        await client.unpark("o-1", action, payload=payload)  # type: ignore[arg-type]
        return await handle.result()

    assert using(world, work) == "shipped"


@pytest.mark.parametrize("saga_id", ["", "a\0b", "x" * 513, "\ud800"])
def test_a_malformed_id_is_refused_before_it_is_sent(world: World, saga_id: str) -> None:
    async def work(client: Client) -> None:
        await client.start(OrderFulfilment, Order(id="o"), id=saga_id)

    with pytest.raises(InvalidRequest, match=r"a saga id has|UTF-8"):
        using(world, work)
    assert not world.records(world.topics.inbox)


def test_an_oversize_input_is_refused_before_it_is_sent(world: World) -> None:
    async def work(client: Client) -> None:
        await client.start(Greeting, "x" * 262_144, id="g-1")

    with pytest.raises(InvalidRequest, match="262146 bytes, at most 262144; store it and pass a reference"):
        using(world, work)
    assert not world.records(world.topics.inbox)


def test_the_largest_input_is_taken(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Greeting, "x" * 262_142, id="g-1")
        await handle.cancel()
        with pytest.raises(SagaFailed) as caught:
            await handle.result()
        return caught.value.status

    assert using(world, work) == Status.CANCELED
    assert not world.records(world.topics.dead_letters)


@pytest.mark.parametrize(
    ("action", "step", "payload"), [("set-result", 0, None), ("retry", 0, b"1"), ("skip", -1, None)]
)
def test_a_decision_that_makes_no_sense_is_refused(world: World, action: str, step: int, payload: bytes | None) -> None:
    async def work(client: Client) -> None:
        await client.unpark("o-1", action, step=step, payload=payload)  # type: ignore[arg-type]

    with pytest.raises(InvalidRequest):
        using(world, work)


class Spoiled(Link):
    """The first requests of a client land, and it hears what `failures` says; None: nothing at all."""

    def __init__(self, failures: list[Failure | None]) -> None:
        self.failures = failures

    def append(self, sent: Sent) -> None:
        sent.land()
        if not self.failures:
            sent.report()
        elif (failure := self.failures.pop(0)) is not None:
            sent.fail(failure)


class SpoiledLog:
    """A world's log as a client sees it whose requests go by a spoiled link."""

    def __init__(self, world: World, failures: list[Failure | None]) -> None:
        self._log = world.log
        self._link = Spoiled(failures)
        self.reader = world.log.reader
        self.admin = world.log.admin

    def appender(self, *, wake: Event, linger_ms: float = 0.0) -> MemoryAppender:
        return self._log.appender(wake=wake, link=self._link)


def test_a_start_without_acknowledgement_says_so_and_names_the_id(world: World) -> None:
    async def main() -> None:
        async with Client(SpoiledLog(world, [None]), world.topics, PARTITIONS, timeout_s=0.05) as client:
            await client.start(Greeting, "Ada", id="g-1")

    with pytest.raises(NotAcknowledged, match="ask again with the same id") as caught:
        asyncio.run(main())
    assert caught.value.saga_id == "g-1"


@pytest.mark.parametrize("failure", [Failure.UNKNOWN_OUTCOME, Failure.FATAL])
def test_a_start_of_unknown_outcome_is_sent_again_as_the_same_message(world: World, failure: Failure) -> None:
    async def main() -> str:
        async with Client(SpoiledLog(world, [failure]), world.topics, PARTITIONS) as client:
            return await (await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")).result()

    assert drive(world, main()) == "shipped"
    first, second = world.records(world.topics.inbox)
    assert headers_of(first) == headers_of(second)
    assert len(world.records(world.topics.commands("inventory"))) == 1


def test_outside_async_with_nothing_is_sent(world: World) -> None:
    async def main() -> None:
        client = client_of(world)
        with pytest.raises(Disconnected, match="async with"):
            await client.cancel("o-1")
        async with client:
            handle = await client.start(Greeting, "Ada", id="g-1")
        with pytest.raises(Disconnected):
            await handle.result()
        with pytest.raises(Disconnected):
            await client.start(Greeting, "Ada", id="g-2")

    asyncio.run(main())


def test_who_waits_when_the_client_is_closed_hears_of_it(world: World) -> None:
    async def main() -> None:
        async with client_of(world) as client:
            handle = await client.start(Greeting, "Ada", id="g-1")
            waiting = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0)
        with pytest.raises(Disconnected):
            await waiting

    asyncio.run(main())
