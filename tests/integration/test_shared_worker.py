"""What sagas and people can say besides, on a real broker: one worker for all of these tests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.attributes import Bool, Datetime, Double, Int, Keyword, KeywordList, Text
from orchestrator.cli import saga as command_line
from orchestrator.client import Client
from orchestrator.entities import Entity, operation
from orchestrator.errors import Abort, NotApplied, SagaFailed, StepFailed, UpdateFailed, UpdateRejected
from orchestrator.locks import IfLocked
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.events import Status, Undone
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.questions import query
from orchestrator.retry import Retry
from orchestrator.saga import Saga
from orchestrator.schedules.schedule import Overlap
from orchestrator.schedules.times import ScheduleSpec
from orchestrator.signals import signal
from orchestrator.topics import TopicNames
from orchestrator.visibility import Visibility
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Inventory, Payments, Shipping, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Holder(Saga[str, str]):
    """Holds a key for a block, and goes on without it."""

    leave = signal(None)
    end = signal(None)

    async def run(self, key: str) -> str:
        self.inside = False
        async with self.lock(key):
            self.inside = True
            await self.receive(Holder.leave)
        await self.receive(Holder.end)
        return "held it"

    @query
    def is_inside(self) -> bool:
        return self.inside


class Impatient(Saga[str, list[str]]):
    """Asks for a key in all three ways."""

    async def run(self, key: str) -> list[str]:
        self.failed: list[str] = []
        for asked in (self.lock(key, if_locked=IfLocked.FAIL), self.lock(key, timeout=0.2)):
            try:
                await asked
            except StepFailed as failed:
                self.failed.append(failed.error_type)
        await self.lock(key)
        return self.failed

    @query
    def told(self) -> list[str]:
        return self.failed


class Silent(Saga[str, str]):
    """Its charge is answered from the second attempt on, or never."""

    async def run(self, what: str) -> str:
        return await self.step(
            Payments.charge(order_id=what, cents=1),
            undo=Payments.refund,
            start_to_close=0.3,
            retry=Retry(0.01, maximum_attempts=2),
        )


class Typed(Saga[str, str]):
    async def run(self, what: str) -> str:
        return (await self.step(Inventory.reserve(order_id=what))).warehouse


class Stepped(Typed, name="Stepped"):
    async def run(self, what: str) -> str:
        stock = await self.step(Inventory.reserve(order_id=what))
        return await self.step(Shipping.ship(order_id=what, warehouse=stock.warehouse))


class Corrected(Saga[str, str]):
    """Its second step may be refused because of the input."""

    async def run(self, what: str) -> str:
        shipped = await self.step(Shipping.ship(order_id="o-1", warehouse="A"))
        stock = await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        return f"{shipped} {what} {stock.warehouse}"


NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Tagged(Saga[str, str]):
    customer = Keyword()
    stage = Keyword()
    amount = Double()
    pieces = Int()
    express = Bool()
    due = Datetime()
    tags = KeywordList()
    comment = Text()
    sent = signal(None)

    async def run(self, customer: str) -> str:
        self.upsert(Tagged.customer(customer), Tagged.stage("packed"), Tagged.amount(9.5), Tagged.pieces(2))
        self.upsert(
            Tagged.express(True), Tagged.due(NOON), Tagged.tags(["gift", "fragile"]), Tagged.comment("Ring twice")
        )
        self.memo(shelf=7, note={"gift": True})
        self.summarize("to be sent")
        await self.receive(Tagged.sent)
        self.upsert(Tagged.stage("sent"), Tagged.amount(None))
        self.memo(shelf=None, parcel="p-1")
        return customer


class Shift(Saga[str, str]):
    """Works until it is told to go home."""

    home = signal(None)

    async def run(self, _: str) -> str:
        await self.receive(Shift.home)
        return "home"


class Purse(Entity[int]):
    @operation
    async def put(self, cents: int) -> int:
        if cents < 0:
            raise Abort("TooLittle", "it only takes")
        self.state += cents
        return self.state

    @query
    def holds(self) -> int:
        return self.state


SAGAS = (Purse, Holder, Impatient, Silent, Typed, Stepped, Corrected, Tagged, Shift)


@dataclass
class Cluster:
    """Where the worker runs, and the commands that came: saga id, command and attempt."""

    broker: str
    topics: TopicNames
    log: KafkaLog
    came: list[tuple[str, str, int]] = field(default_factory=list)

    def run(self, work: Callable[[Client], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Client.connect(self.broker, prefix=self.topics.prefix) as client:
                await work(client)

        asyncio.run(main())

    def behave(self, message: CommandMessage) -> ReplyMessage | None:
        self.came.append((message.saga_id, message.command_type, message.attempt))
        if message.command_type == "reserve" and b"mistyped" in message.payload:
            return ReplyMessage(Outcome.FAILURE, b"", "Unknown", "no such thing")
        silent = message.command_type == "charge" and (message.attempt == 1 or b"never" in message.payload)
        return None if silent else succeed(message)


@pytest.fixture(scope="module")
def cluster(broker: str) -> Iterator[Cluster]:
    topics = TopicNames(f"t{uuid.uuid4().hex[:7]}-")
    cluster = Cluster(broker, topics, KafkaLog(broker))
    with shop(broker, topics.prefix, cluster.behave, SAGAS):
        yield cluster


@pytest.fixture
def visibility(cluster: Cluster, tmp_path: Path) -> Iterator[Visibility]:
    with Visibility(tmp_path / "v.sqlite", cluster.log, cluster.topics, PARTITIONS) as visibility:
        yield visibility


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again, each time somebody else."""
    async with asyncio.timeout(60):
        while not await holds():
            pass


async def found(visibility: Visibility, where: str, count: int = 1) -> None:
    """Follows the journal until so many runs are found."""

    async def are_there() -> bool:
        await asyncio.sleep(0)
        return visibility.catch_up(60) and len(visibility.find(where)) == count

    await until(are_there)


def test_a_saga_waits_for_a_key_gives_up_or_fails_at_once(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        holder = await client.start(Holder, "account/ann", id="holder")
        await until(lambda: holder.query(Holder.is_inside))
        other = await client.start(Impatient, "account/ann", id="impatient")

        async def has_asked_twice() -> bool:
            return await other.query(Impatient.told) == ["Locked", "LockTimeout"]

        await until(has_asked_twice)
        await holder.signal(Holder.leave)
        assert await other.result(timeout=60) == ["Locked", "LockTimeout"]
        assert not holder.done, "the key came back with the end of the block"
        await holder.signal(Holder.end)
        assert await holder.result(timeout=60) == "held it"

    cluster.run(work)


def test_an_attempt_that_takes_too_long_is_made_again_and_then_undone(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        late = await client.start(Silent, "late", id="late")
        never = await client.start(Silent, "never", id="never")
        assert await late.result(timeout=60) == "receipt"
        with pytest.raises(SagaFailed, match="Timeout: no reply to attempt 2") as caught:
            await never.result(timeout=60)
        assert (caught.value.status, caught.value.undone) == (Status.COMPENSATED, Undone.ALL)

    cluster.run(work)
    assert [came[1:] for came in cluster.came if came[0] == "late"] == [("charge", 1), ("charge", 2)]
    assert [came[1:] for came in cluster.came if came[0] == "never"] == [("charge", 1), ("charge", 2), ("refund", 1)]


def test_sagas_are_paused_by_type_by_step_and_by_partition(cluster: Cluster, visibility: Visibility) -> None:
    number = partition_of("p", PARTITIONS)
    elsewhere = next(f"p-{n}" for n in range(100) if partition_of(f"p-{n}", PARTITIONS) != number)

    async def work(client: Client) -> None:
        assert await client.pause_all(type="Typed", timeout=60) == "type:Typed"
        assert await client.pause_all(step="shipping.ship", timeout=60) == "step:shipping.ship"
        held = [await client.start(Typed, "x", id="by-type"), await client.start(Stepped, "x", id="by-step")]
        await found(visibility, "type in ('Typed', 'Stepped') and status = 'PAUSED'", 2)
        why = {run.saga_id: run.paused for run in visibility.find("status = 'PAUSED'")}
        assert why["by-type"] == "paused by the rule type:Typed"
        assert why["by-step"] == "paused by the rule step:shipping.ship"
        await client.resume_all(type="Typed", timeout=60)
        await client.resume_all(step="shipping.ship", timeout=60)
        assert [await handle.result(timeout=60) for handle in held] == ["A", "shipped"]

        await client.pause_all(partition=number, timeout=60)
        inside = await client.start(Stepped, "x", id="p")
        outside = await client.start(Stepped, "x", id=elsewhere)
        assert await outside.result(timeout=60) == "shipped"
        await found(visibility, "id = 'p' and status = 'PAUSED'")
        await client.resume_all(partition=number, timeout=60)
        assert await inside.result(timeout=60) == "shipped"

    cluster.run(work)
    assert [came[1] for came in cluster.came if came[0] in ("by-type", "by-step")].count("reserve") == 2


def test_a_saga_that_failed_is_redriven_with_a_corrected_input(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        failed = await client.start(Corrected, "mistyped", id="corrected")
        with pytest.raises(SagaFailed, match="Unknown: no such thing"):
            await failed.result(timeout=60)
        with pytest.raises(NotApplied, match="the input does not fit"):
            await client.redrive("corrected", payload=b"7", timeout=60)
        await client.redrive("corrected", payload=b'"tea"', timeout=60)
        assert await (await client.attach(Corrected, "corrected")).result(timeout=60) == "shipped tea A"

    cluster.run(work)
    assert [came[1] for came in cluster.came if came[0] == "corrected"] == ["ship", "reserve", "reserve"]


def test_what_a_running_saga_tells_of_itself_is_found(cluster: Cluster, visibility: Visibility) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(Tagged, "eve", id="tagged", memo={"channel": "shop"})
        await found(visibility, "customer = 'eve' and stage = 'packed' and amount > 9")
        (run,) = visibility.find("customer = 'eve'")
        assert (run.status, run.summary) == (Status.RUNNING, "to be sent")
        assert run.memo == {"channel": "shop", "shelf": 7, "note": {"gift": True}}
        for where in (
            "pieces = 2 and pieces < 2.5",
            "express = true",
            "due < '2026-11-25T13:00:00Z' and due >= '2026-11-25T12:00:00Z'",
            "tags = 'fragile' and tags = 'gift'",
            "comment = 'ring'",
        ):
            assert visibility.find(where) == (run,), where
        for where in (
            "pieces > 2",
            "express = false",
            "due < '2026-11-25T12:00:00Z'",
            "tags = 'frag'",
            "comment = 'bell'",
        ):
            assert visibility.find(where) == (), where
        assert visibility.count("customer = 'eve'", "express") == {"true": 1}
        await handle.signal(Tagged.sent)
        assert await handle.result(timeout=60) == "eve"
        await found(visibility, "customer = 'eve' and stage = 'sent' and amount is null")
        assert visibility.find("stage = 'packed'") == ()
        assert visibility.find("customer = 'eve'")[0].memo == {
            "channel": "shop",
            "note": {"gift": True},
            "parcel": "p-1",
        }

    cluster.run(work)


async def go_home(client: Client, id: str, outcome: str, count: int) -> None:
    """Ends a run of the schedule where somebody has to, and waits until so many have ended, the last with `outcome`."""
    schedules = client.schedules
    (running,) = (await schedules.describe(id)).running
    if outcome == "completed":
        await client.signal(running.id, Shift.home)

    async def has_ended() -> bool:
        recent = (await schedules.describe(id)).recent
        return len(recent) == count and recent[-1].outcome == outcome

    await until(has_ended)


def test_a_cron_line_and_what_becomes_of_times_that_overlap(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        schedules = client.schedules
        await schedules.create("shifts", Shift, "", ScheduleSpec(crons=("* * * * * *",)))

        async def has_passed_a_time() -> bool:
            told = await schedules.describe("shifts")
            return bool(told.running) and told.next_times[0] - told.running[0].at > timedelta(seconds=1)

        await until(has_passed_a_time)
        await schedules.pause("shifts")
        assert (await schedules.describe("shifts")).counts.skipped > 0
        with pytest.raises(UpdateRejected, match="by SKIP it would be left out"):
            await schedules.trigger("shifts")
        later = [await schedules.trigger("shifts", Overlap.BUFFER_ALL) for _ in range(2)]
        assert len((await schedules.describe("shifts")).waiting) == 2
        for ended in (1, 2):
            await go_home(client, "shifts", "completed", ended)
        told = await schedules.describe("shifts")
        assert ([run.id for run in told.running], told.recent[-1].id) == (later[1:], later[0])
        await schedules.trigger("shifts", Overlap.CANCEL_OTHER)
        await go_home(client, "shifts", "stopped", 3)
        await schedules.trigger("shifts", Overlap.TERMINATE_OTHER)
        await go_home(client, "shifts", "stopped", 4)
        stopped = (await schedules.describe("shifts")).recent[2:]
        assert [run.error.partition(":")[0] for run in stopped] == ["Canceled", "Terminated"]
        await schedules.trigger("shifts", Overlap.ALLOW_ALL)
        assert len((await schedules.describe("shifts")).running) == 2
        await schedules.delete("shifts")

    cluster.run(work)


def test_an_entity_is_asked_from_a_shell(cluster: Cluster) -> None:
    def typed(*words: str) -> Result:
        options = ("-b", cluster.broker, "--prefix", cluster.topics.prefix)
        return CliRunner().invoke(command_line, [*words, *options])

    put = ("update", "Purse/ann", "put")
    for _ in range(2):
        assert typed(*put, '{"cents": 5}', "--type", "Purse", "--id", "once").output == "5\n"
    assert typed(*put, '{"cents": 7}').output == "12\n"
    assert typed("query", "Purse/ann", "holds").output == "12\n"
    assert isinstance(typed(*put, '{"cents": -1}').exception, UpdateFailed)
    assert isinstance(typed(*put, '{"euros": 1}').exception, UpdateRejected)
