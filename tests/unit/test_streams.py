"""Streams: what a saga publishes comes to whoever follows it, each value once, in order, whatever crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.client import following as following_module
from orchestrator.errors import Disconnected, SagaNotFound
from orchestrator.log.base import Failure, ReadFailed
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Query, ReplyAddress
from orchestrator.model.queries import PUBLISHED, answer
from orchestrator.runtime.lifecycle import Lifecycle
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.streams import stream
from orchestrator.testing import SagaTest
from orchestrator.wire.lifecycle import is_public
from tests.shop_world import PARTITIONS, World

T = TypeVar("T")


class Progress(BaseModel):
    done: int


class Import(Saga[int, str]):
    progress = stream(Progress)
    words = stream(str)
    go_on = signal()

    async def run(self, count: int) -> str:
        for number in range(1, count + 1):
            self.publish(Import.progress, Progress(done=number))
            self.publish(Import.words, f'page "{number}"')
            await self.receive(Import.go_on)
        return "all"


class Monthly(Saga[int, str]):
    """Goes on as new; each run publishes its month."""

    month = stream(int)
    go_on = signal()

    async def run(self, month: int) -> str:
        self.publish(Monthly.month, month)
        await self.receive(Monthly.go_on)
        if month < 3:
            self.continue_as_new(month + 1)
        return "over"


class Large(Saga[int, None]):
    words = stream(str)

    async def run(self, size: int) -> None:
        self.publish(Large.words, "x" * size)


def test_a_test_sees_what_is_published_once_however_often_the_code_is_replayed() -> None:
    end = SagaTest(Import).signal(Import.go_on).signal(Import.go_on, after=5).run(2)
    assert end.published(Import.progress) == [Progress(done=1), Progress(done=2)]
    assert end.published(Import.words) == ['page "1"', 'page "2"']
    assert len([event for event in end.journal if isinstance(event, ev.Recorded)]) == 4
    running = SagaTest(Import).start(2).advance(1)
    assert running.published(Import.progress) == [Progress(done=1)]


def test_a_value_that_is_too_large_is_a_mistake_in_the_code() -> None:
    assert SagaTest(Large).run(16_000).status is Status.COMPLETED
    end = SagaTest(Large).run(17_000)
    assert end.status is Status.PARKED
    assert "a value of 17002 bytes, at most 16384; publish a reference" in end.reason


def test_a_stream_of_another_saga_is_a_mistake_in_the_code() -> None:
    class Other(Saga[None, None]):
        async def run(self, nothing: None) -> None:
            self.publish(Import.words, "x")

    assert "is no stream of Other" in SagaTest(Other).run(None).reason


def test_of_recorded_values_only_streams_are_public() -> None:
    for kind in ev.StepKind:
        assert is_public(ev.Recorded(1, 0, kind, "x", b"1")) is (kind is ev.StepKind.STREAM)


# -- what the owner says


def asked(saga: Any, payload: bytes) -> tuple[str, Any]:
    state = saga._world.state
    question = Query("test", "q", ReplyAddress("a", 0, "c"), PUBLISHED, payload)
    told = answer(None, state, question)  # no code is needed
    return told.status, orjson.loads(told.payload)


def test_the_owner_says_what_was_published_after_a_number() -> None:
    saga = SagaTest(Import).start(2).advance(1)
    assert asked(saga, b"0 progress") == ("ANSWERED", {"ended": False, "more": False, "values": [[1, {"done": 1}]]})
    saga.signal(Import.go_on).advance(1)
    _, said = asked(saga, b"1 progress")
    assert [value for _, value in said["values"]] == [{"done": 2}]
    assert asked(saga, b"0 nothing")[1]["values"] == []
    saga.signal(Import.go_on).advance(1)
    assert asked(saga, b"0 progress")[1]["ended"]
    assert len(asked(saga, b"rubbish progress")[1]["values"]) == 2


def test_what_is_too_much_for_one_answer_comes_in_several() -> None:
    class Chatty(Saga[None, None]):
        words = stream(str)

        async def run(self, nothing: None) -> None:
            for number in range(40):
                self.publish(Chatty.words, f"{number}" + "x" * 15_000)

    saga = SagaTest(Chatty).start(None)
    after, found = 0, []
    while True:
        _, said = asked(saga, b"%d words" % after)
        found += [value.partition("x")[0] for _, value in said["values"]]
        after = said["values"][-1][0]
        if not said["more"]:
            break
    assert found == [str(number) for number in range(40)]


# -- what a client hears


class Followed(World):
    """A world with a publisher, which dies together with its worker."""

    def __init__(self) -> None:
        self.publishes = True
        super().__init__(sagas=(Import, Monthly))
        self.lifecycle = Lifecycle(self.log, self.topics, self.feeds)

    def step(self) -> bool:
        busy = super().step()
        if self.publishes and hasattr(self, "lifecycle"):
            busy = self.lifecycle.step(self.now_ms) or busy
        return busy

    def crash(self) -> None:
        super().crash()
        self.lifecycle = Lifecycle(self.log, self.topics, self.feeds)

    def tell_again(self, saga_id: str) -> None:
        """As after a crash: all public events of a saga come a second time."""
        partition, appender = partition_of(saga_id, PARTITIONS), self.log.appender()
        for record in tuple(self.log.records(self.topics.lifecycle, partition)):
            appender.append(record.topic, partition, record.value, key=record.key, headers=record.headers, token=None)


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await asyncio.wait_for(work(client), 20)

    async def run() -> T:
        task = asyncio.ensure_future(main())
        while not task.done():
            world.step()
            world.now_ms += 20
            await asyncio.sleep(0)
        return task.result()

    return asyncio.run(run())


@pytest.fixture
def world() -> Followed:
    return Followed()


def test_a_client_hears_each_value_when_it_is_published(world: Followed) -> None:
    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 3, id="i-1")
        heard = []
        async for progress in handle.follow(Import.progress):
            heard.append(progress.done)
            await handle.signal(Import.go_on)
        assert await handle.result() == "all"
        return heard

    assert using(world, work) == [1, 2, 3]


def test_who_comes_late_hears_all_of_it_also_after_the_end(world: Followed) -> None:
    async def work(client: Client) -> list[list[str]]:
        handle = await client.start(Import, 2, id="i-1")
        await handle.signal(Import.go_on)
        await handle.signal(Import.go_on)
        await handle.result()
        return [[word async for word in handle.follow(Import.words)] for _ in range(2)]

    assert using(world, work) == [['page "1"', 'page "2"']] * 2


def test_what_comes_twice_or_after_a_crash_is_heard_once(world: Followed) -> None:
    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 3, id="i-1")
        heard = []
        async for progress in handle.follow(Import.progress):
            heard.append(progress.done)
            world.tell_again("i-1")
            world.crash()
            await handle.signal(Import.go_on)
        return heard

    assert using(world, work) == [1, 2, 3]


def test_two_follow_the_same_saga_and_one_leaves(world: Followed) -> None:
    async def all_of(client: Client) -> list[int]:
        return [progress.done async for progress in client.follow("i-1", Import.progress)]

    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 2, id="i-1")
        rest = asyncio.ensure_future(all_of(client))
        async for _ in handle.follow(Import.progress):
            break
        await handle.signal(Import.go_on)
        await handle.signal(Import.go_on)
        return await rest

    assert using(world, work) == [1, 2]


def test_the_runs_that_continue_a_saga_are_followed(world: Followed) -> None:
    async def work(client: Client) -> list[int]:
        handle = await client.start(Monthly, 1, id="m-1")
        heard = []
        async for month in handle.follow(Monthly.month):
            heard.append(month)
            world.tell_again("m-1")  # an earlier run's end is not this one's
            await handle.signal(Monthly.go_on)
        return heard

    assert using(world, work) == [1, 2, 3]


def test_a_saga_that_is_reset_is_followed_on(world: Followed) -> None:
    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 3, id="i-1")
        heard = []
        async for progress in handle.follow(Import.progress):
            heard.append(progress.done)
            if heard == [1, 2]:
                await client.reset("i-1", to=1)  # and what was signalled before comes again
            elif heard != [1, 2, 1]:
                await handle.signal(Import.go_on)
        return heard

    assert using(world, work) == [1, 2, 1, 2, 3]


def test_where_the_public_events_fail_the_owner_is_asked(world: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "LOOK_AGAIN_S", 0.01)
    world.publishes = False

    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 3, id="i-1")
        heard = []
        async for progress in handle.follow(Import.progress):
            heard.append(progress.done)
            await handle.signal(Import.go_on)
        return heard

    assert using(world, work) == [1, 2, 3]


def test_a_reader_that_is_lost_is_replaced_and_nothing_is_missed(world: Followed) -> None:
    async def work(client: Client) -> list[int]:
        handle = await client.start(Import, 3, id="i-1")
        heard = []
        place = (world.topics.lifecycle, partition_of("i-1", PARTITIONS))
        async for progress in handle.follow(Import.progress):
            heard.append(progress.done)
            reader = client._connection._reader
            assert reader is not None
            reader.unassign(*place)  # what was on its way is lost
            reader._post(ReadFailed(*place, Failure.DAMAGED, ""))  # type: ignore[attr-defined]
            await handle.signal(Import.go_on)
        return heard

    assert using(world, work) == [1, 2, 3]


def test_there_is_no_such_saga(world: Followed) -> None:
    async def work(client: Client) -> None:
        async for _ in client.follow("nobody", Import.progress):
            pass

    with pytest.raises(SagaNotFound):
        using(world, work)


def test_who_follows_hears_that_the_client_is_closed(world: Followed) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(Import, 3, id="i-1")
        async for _ in handle.follow(Import.progress):
            await client._connection.close()

    with pytest.raises(Disconnected):
        using(world, work)
