"""Retries, timeouts, heartbeats and delayed starts on a real broker: a worker, and a participant of the SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.errors import RetryLater, SagaFailed, SagaNotFound, StepFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.events import Status
from orchestrator.model.retries import FailedAttempt, Jitter
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.participant import HandlerContext, Participant
from orchestrator.participant.runner import Runner
from orchestrator.provisioning import apply, plan
from orchestrator.retry import Backoff, Retry
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.worker import Worker
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.store import keys
from orchestrator.store.base import Stores
from orchestrator.store.memory import MemoryStores
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

PARTITIONS = 2
OF_SAGAS = (keys.RUNS, keys.STEPS, keys.TIMERS, keys.MESSAGES)


class Rows(BaseModel):
    count: int


class Copying(Service):
    copy = command(Rows, list[int])
    hang = command(Rows, str)


class Flaky(Service):
    work = command(Rows, str)
    forget = command(Rows)


class Idle(Service):
    nothing = command(Rows, str)


class Copied(Saga[int, list[int]]):
    async def run(self, count: int) -> list[int]:
        return await self.step(
            Copying.copy(count=count),
            heartbeat=timedelta(seconds=5),
            schedule_to_start=60,
            retry=Retry(
                0.2,
                maximum_attempts=4,
                jitter=Jitter.FULL,
                retry_timeout=60,
                rules={"Unplugged": Backoff(0.05, maximum_attempts=3)},
                predicate=worth_it,
            ),
        )


def worth_it(failed: FailedAttempt) -> bool:
    return failed.error_type in ("Unplugged", "Later")


class Limited(Saga[str, str]):
    async def run(self, what: str) -> str:
        try:
            if what == "idle":
                return await self.step(Idle.nothing(count=1), schedule_to_start=0.5)
            return await self.step(Copying.hang(count=1), heartbeat=0.5, retry=Retry(maximum_attempts=1))
        except StepFailed as failed:
            return failed.error_type


class Patient(Saga[None, str]):
    async def run(self, _: None) -> str:
        return await self.step(Flaky.work(count=1), retry=Retry(0.01, 1.0, maximum_attempts=5))


class Timed(Saga[None, str], run_timeout=0.5):
    async def run(self, _: None) -> str:
        await self.sleep(timedelta(days=400))
        return "late"


class Whole(Saga[int, str], execution_timeout=1.0):
    async def run(self, number: int) -> str:
        await self.sleep(0.2)
        self.continue_as_new(number + 1)


class Giving(Saga[str, str]):
    """Gives up on a step by its time, or by the type of its error."""

    async def run(self, how: str) -> str:
        by_time = Retry(0.05, 1.0, retry_timeout=2)
        by_type = Retry(0.05, 1.0, non_retryable_error_types=("Broken",))
        await self.step(Flaky.work(count=1), undo=Flaky.forget, retry=by_time if how == "time" else by_type)
        return "done"


class Later(Saga[datetime, str]):
    async def run(self, when: datetime) -> str:
        await self.sleep_until(when)
        return "now"


copying = Participant(Copying)
given_up = Event()
attempts: list[tuple[int, int | None]] = []


@copying.handles(Copying.copy)
def copy(request: Rows, context: HandlerContext) -> list[int]:
    begin = context.heartbeat_details(int)
    attempts.append((context.attempt, begin))
    context.heartbeat((begin or 0) + 1)
    if context.attempt == 1:
        raise RetryLater(0.1, "Later")
    if context.attempt == 2:
        raise RetryLater(error_type="Unplugged")
    return list(range((begin or 0) + 1, request.count + 1))


@copying.handles(Copying.hang)
def hang(request: Rows) -> str:
    assert given_up.wait(60)
    return "too late"


flaky = Participant(Flaky)
down = Event()
asked: list[str] = []


@flaky.handles(Flaky.work)
def work(request: Rows, context: HandlerContext) -> str:
    asked.append(context.saga_id)
    if context.saga_id == "by-type" and context.attempt == 3:
        raise RetryLater(error_type="Broken")
    if down.is_set():
        raise ConnectionError("nobody there")
    return "done"


@flaky.handles(Flaky.forget)
def forget(request: Rows) -> None: ...


class Slow(Service):
    answer = command(Rows, str)


class Owed(Saga[None, str]):
    async def run(self, _: None) -> str:
        return await self.step(Slow.answer(count=1), retry=Retry(maximum_attempts=1), schedule_to_close=OWED_S)


OWED_S = 8.0
"""A busy machine takes long to have a saga begin, and the worker is stopped before."""
slow = Participant(Slow)
begun, may_answer = Event(), Event()


@slow.handles(Slow.answer)
def answer(request: Rows) -> str:
    begun.set()
    assert may_answer.wait(60)
    return "in time"


@contextmanager
def thread(work: Worker | Runner) -> Iterator[None]:
    running = Thread(target=work.run)
    running.start()
    try:
        yield
    finally:
        work.stop()
        running.join()


@contextmanager
def running(
    broker: str,
    prefix: str,
    participant: Participant = copying,
    circuit_failures: int = 0,
    ended_keep_ms: int = ENDED_KEEP_MS,
    stores: Stores | None = None,
) -> Iterator[None]:
    log, topics = prepared(broker, prefix)
    config = config_of(topics, circuit_failures, ended_keep_ms)
    with (
        thread(Worker(log, config, stores or MemoryStores())),
        thread(Runner(participant, log, topics=topics)),
    ):
        yield


def prepared(broker: str, prefix: str) -> tuple[KafkaLog, TopicNames]:
    log, topics = KafkaLog(broker), TopicNames(prefix)
    with closing(log.admin()) as admin:
        apply(admin, plan(topics, partitions=PARTITIONS, replication=1, services=["copying", "idle", "flaky", "slow"]))
    return log, topics


def config_of(topics: TopicNames, circuit_failures: int = 0, ended_keep_ms: int = ENDED_KEEP_MS) -> PartitionConfig:
    sagas = (Copied, Limited, Patient, Timed, Whole, Giving, Later, Owed)
    return PartitionConfig(
        topics,
        PARTITIONS,
        TokenKeys({"k": b"0" * 16}),
        {saga.definition.name: saga.definition for saga in sagas},
        circuit_failures=circuit_failures,
        circuit_probe_ms=500,
        ended_keep_ms=ended_keep_ms,
    )


def test_a_retry_goes_on_from_the_last_heartbeat(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Copied, 4, id="c-1")
            assert await handle.result(timeout=60) == [3, 4]

    attempts.clear()
    with running(broker, prefix):
        asyncio.run(main())
    assert attempts == [(1, None), (2, 1), (3, 2)]


def test_what_nobody_begins_and_what_falls_silent_times_out(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            idle = await client.start(Limited, "idle", id="l-1")
            silent = await client.start(Limited, "silent", id="l-2")
            timed = await client.start(Timed, None, id="t-1")
            assert await idle.result(timeout=60) == "ScheduleToStartTimeout"
            assert await silent.result(timeout=60) == "HeartbeatTimeout"
            given_up.set()
            with pytest.raises(SagaFailed, match="the run's time is up") as caught:
                await timed.result(timeout=60)
            assert caught.value.status == Status.TIMED_OUT

    with running(broker, prefix):
        asyncio.run(main())


def test_the_time_of_all_runs_of_a_saga_is_up(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            whole = await client.start(Whole, 1, id="w-1")
            with pytest.raises(SagaFailed, match="the saga's time is up") as caught:
                await whole.result(timeout=60)
            assert caught.value.status == Status.TIMED_OUT

    with running(broker, prefix):
        asyncio.run(main())


async def forgotten(client: Client, saga_id: str) -> bool:
    attached = await client.attach(Giving, saga_id)
    try:
        return await attached.result(timeout=60) != "done"
    except SagaNotFound:
        return True


def test_a_saga_is_forgotten_some_time_after_its_end_and_its_id_is_free(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for _ in range(2):
                handle = await client.start(Giving, "type", id="f-1")
                assert await handle.result(timeout=60) == "done"
                while not await forgotten(client, "f-1"):
                    continue

    asked.clear()
    with running(broker, prefix, flaky, ended_keep_ms=1_000, stores=RocksStores(tmp_path)):
        asyncio.run(main())
    assert asked == ["f-1", "f-1"]
    stores = [RocksStores(tmp_path).open(number) for number in range(PARTITIONS)]
    left = [key for store in stores for kind in OF_SAGAS for key, _ in store.scan(kind)]
    for store in stores:
        store.close()
    assert left == []


def test_retries_end_by_their_time_and_by_the_type_of_an_error(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for how, error in (("type", "Broken"), ("time", "ConnectionError")):
                handle = await client.start(Giving, how, id=f"by-{how}")
                with pytest.raises(SagaFailed, match=error) as caught:
                    await handle.result(timeout=60)
                assert caught.value.status == Status.COMPENSATED

    asked.clear()
    down.set()
    with running(broker, prefix, flaky):
        asyncio.run(main())
    down.clear()
    assert 1 < asked.count("by-time") <= 41
    assert asked.count("by-type") == 3


def test_a_delayed_start_is_moved_and_cancelled(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            past, day = datetime(2020, 1, 1, tzinfo=UTC), timedelta(days=1)
            moved = await client.start(Later, past, id="d-1", start_delay=day)
            gone = await client.start(Later, past, id="d-2", start_at=datetime.now(UTC) + day)
            soon = await client.start(Later, past, id="d-3", start_delay=0.3)
            assert await soon.result(timeout=60) == "now"
            await client.reschedule("d-1", start_at=past)
            await gone.cancel(reason="not needed")
            assert await moved.result(timeout=60) == "now"
            with pytest.raises(SagaFailed) as caught:
                await gone.result(timeout=60)
            assert (caught.value.status, caught.value.undone) == (Status.CANCELED, "none")

    with running(broker, prefix):
        asyncio.run(main())


def test_an_outage_burns_no_attempts_of_who_waits(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handles = [await client.start(Patient, None, id=f"p-{number}") for number in range(12)]
            while len(asked) < 12:
                await asyncio.sleep(0.05)
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                await asyncio.sleep(0.05)
            down.clear()
            assert [await handle.result(timeout=60) for handle in handles] == ["done"] * 12

    asked.clear()
    down.set()
    with running(broker, prefix, flaky, circuit_failures=3):
        asyncio.run(main())
    # Without circuits the 1.5 s would have cost every saga all of its five attempts.
    assert max(asked.count(saga_id) for saga_id in asked) <= 5


def test_replies_that_wait_while_nobody_owns_win_over_deadlines_that_pass_meanwhile(broker: str, prefix: str) -> None:
    ids = [f"owed-{number}" for number in range(4)]
    log, topics = prepared(broker, prefix)
    replies = [(topics.replies, number) for number in range(PARTITIONS)]

    async def start() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for saga_id in ids:
                await client.start(Owed, None, id=saga_id)

    async def results() -> list[str]:
        async with Client.connect(broker, prefix=prefix) as client:
            return [await (await client.start(Owed, None, id=saga_id)).result(timeout=60) for saga_id in ids]

    begun.clear()
    may_answer.clear()
    with closing(log.admin()) as admin, thread(Runner(slow, log, topics=topics)):

        def answered() -> int:
            return sum(end for _, end in admin.ends(replies).values())

        with thread(Worker(log, config_of(topics), MemoryStores())):
            asyncio.run(start())
            assert begun.wait(60)
        over_at = time.monotonic() + OWED_S
        said = answered()
        may_answer.set()
        assert eventually(lambda: answered() >= said + len(ids), 60)
        assert eventually(lambda: time.monotonic() > over_at, 60)
        with thread(Worker(log, config_of(topics), MemoryStores())):
            assert asyncio.run(results()) == ["in time"] * len(ids)
