"""Local steps in a worker: when they begin, what becomes of them at a crash and a take-over, and who calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event, get_ident
from typing import Any

import pytest

from orchestrator import Saga
from orchestrator.functions import FUNCTIONS
from orchestrator.model.effects import LocalCall, reply_of
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.runtime import partition, resuming
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.local_steps import Ended, InlineRunner, LocalSteps, ThreadedRunner
from orchestrator.runtime.partition import LOOK_AGAIN_MS
from orchestrator.runtime.tenure import Phase
from orchestrator.wire import headers as h
from orchestrator.wire.journal import read_envelope
from tests.shop_world import PARTITIONS, SAGAS, Inventory, World, send_starts
from tests.waiting import eventually

ID = "s-1"


def measure(name: str) -> int:
    return len(name)


def forget(length: int | None, name: str) -> None:
    return None


class Measured(Saga[str, int]):
    async def run(self, name: str) -> int:
        length = await self.local(measure, name, undo=forget)
        await self.step(Inventory.reserve(order_id=name))
        return length


class Held:
    """A runner under the test's hand: `started` are the calls, which end when they are told to."""

    def __init__(self) -> None:
        self.started: list[LocalCall] = []
        self.canceled: list[LocalCall] = []
        self.ended: list[Ended] = []

    def start(self, call: LocalCall, functions: Any) -> None:
        self.started.append(call)

    def cancel(self, call: LocalCall) -> None:
        self.canceled.append(call)

    def poll(self) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def end(self, call: LocalCall, outcome: Outcome | None = Outcome.SUCCESS) -> None:
        self.ended.append(Ended(call, None if outcome is None else reply_of(call, outcome, b"3")))


class LocalWorld(World):
    """A world whose workers call by hand. `runner` is that of the present worker, its stores are kept in a crash."""

    def __init__(self) -> None:
        self.runner = Held()
        super().__init__(sagas=(*SAGAS, Measured))

    def new_engine(self) -> Engine:
        engine = super().new_engine()
        engine.local = LocalSteps(self.runner)
        return engine

    def restart(self, *, keep_stores: bool) -> None:
        stores = self.engine._stores
        self.runner = Held()
        self.crash()
        if keep_stores:
            stores.release()  # type: ignore[attr-defined]
            self.engine._stores = stores
        self.settle()
        self.advance(3_000)


def begun() -> LocalWorld:
    world = LocalWorld()
    send_starts(world, ID, saga_type="Measured", value=b'"tea"')
    world.settle()
    return world


def test_a_call_begins_after_its_decision_is_confirmed_and_nothing_is_sent() -> None:
    world = LocalWorld()
    number = partition_of(ID, PARTITIONS)
    before = len(world.log.records(world.topics.journal, number))
    send_starts(world, ID, saga_type="Measured", value=b'"tea"')
    while not world.runner.started:
        decided = len(world.log.records(world.topics.journal, number)) > before
        world.step()
        world.now_ms += 1
    assert decided, "the decision stood in the journal before the call began"
    world.settle()
    call = world.runner.started[0]
    assert (call.saga_id, call.function, call.payload) == (ID, f"{__name__}:measure", b'["tea"]')
    world.runner.end(call)
    world.settle()
    assert world.status(ID) is Status.COMPLETED
    assert len(world.runner.started) == 1


def test_a_call_under_way_holds_no_mark_back() -> None:
    world = begun()
    number = partition_of(ID, PARTITIONS)
    send_starts(world, "w-1", saga_type="Greeting", value=b'"you"')
    world.advance(3_000)
    world.advance(3_000)
    last = read_envelope(world.log.records(world.topics.journal, number)[-1].value)
    partition = world.engine.tenures[number].partition
    assert partition is not None
    assert last.effects_sent >= partition.progress.at.offset - 1
    assert len(world.runner.started) == 1


def test_the_next_owner_calls_again_what_was_under_way() -> None:
    for keep_stores in (True, False):
        world = begun()
        world.advance(3_000)
        first = world.runner
        world.restart(keep_stores=keep_stores)
        assert world.runner.started == first.started, f"stores kept: {keep_stores}"
        world.runner.end(world.runner.started[0])
        world.settle()
        assert world.status(ID) is Status.COMPLETED
        world.restart(keep_stores=keep_stores)
        assert world.runner.started == []


def test_what_was_called_for_an_epoch_that_is_over_does_not_count() -> None:
    world = begun()
    number = partition_of(ID, PARTITIONS)
    first = world.runner.started[0]
    world.engine._end_epoch(world.engine.tenures[number], world.now_ms, "for the test")
    world.advance(3_000)
    world.advance(3_000)
    assert world.engine.tenures[number].phase is Phase.OWNING
    assert world.runner.canceled[0] == first
    assert len(world.runner.started) == 1, "the second call waits until the first has ended"
    world.runner.end(first)
    world.settle()
    assert world.status(ID) is Status.RUNNING
    assert len(world.runner.started) == 2
    world.runner.end(world.runner.started[1])
    world.settle()
    assert world.status(ID) is Status.COMPLETED


def test_what_an_epoch_that_fails_at_its_beginning_had_to_call_is_not_called_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = begun()
    call = world.runner.started[0]
    go_on, failures = resuming.inputs_to_go_on, [ValueError("a bug")] * PARTITIONS

    def fails_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return go_on(*arguments)

    monkeypatch.setattr(partition, "inputs_to_go_on", fails_once)
    world.restart(keep_stores=True)
    world.advance(3_000)
    assert world.engine.epochs_lost == PARTITIONS
    assert world.engine.counters["store_wipes"] == 0
    assert world.runner.started == [call]
    world.runner.end(call)
    world.settle()
    assert world.status(ID) is Status.COMPLETED


def test_a_partition_that_waited_for_the_calls_of_another_goes_on_soon_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MAX_PENDING", 2)
    world = LocalWorld()
    world.engine.local._most = 1
    here = [f"s-{number}" for number in range(100) if partition_of(f"s-{number}", PARTITIONS) == 0][:4]
    elsewhere = next(f"s-{number}" for number in range(100) if partition_of(f"s-{number}", PARTITIONS) == 1)
    send_starts(world, *here, saga_type="Measured", value=b'"tea"')
    world.advance(2_000)
    send_starts(world, elsewhere, saga_type="Measured", value=b'"tea"')
    world.advance(100)
    assert world.engine.tenures[1].paused
    for number in range(2):
        world.runner.end(world.runner.started[number])
        world.settle()
    world.advance(LOOK_AGAIN_MS)
    assert world.status(elsewhere) is Status.RUNNING


def cancel(world: World) -> None:
    number = partition_of(ID, PARTITIONS)
    headers = h.write_headers({h.INPUT_TYPE: "cancel", h.MESSAGE_ID: "c-1"})
    world.log.appender().append(world.topics.inbox, number, b"", key=ID.encode(), headers=headers, token=None)


def test_an_undo_waits_for_the_call_before_it() -> None:
    world = begun()
    cancel(world)
    world.settle()
    assert len(world.runner.started) == 1
    assert world.runner.canceled == world.runner.started
    world.runner.end(world.runner.started[0], None)
    world.settle()
    undo = world.runner.started[1]
    assert (undo.direction, undo.payload) == ("undo", b'[null,"tea"]')
    world.runner.end(undo)
    world.settle()
    assert world.status(ID) is Status.CANCELED


def test_a_worker_that_leaves_waits_for_its_calls_and_begins_none() -> None:
    world = begun()
    number = partition_of(ID, PARTITIONS)
    world.engine.leave(world.now_ms)
    world.settle(advance_ms=1)
    assert world.engine.tenures[number].phase is Phase.LEAVING
    world.runner.end(world.runner.started[0])
    for _ in range(20):
        world.step()
        world.now_ms += 5
    assert world.engine.left
    journal = b"".join(record.value or b"" for record in world.log.records(world.topics.journal, number))
    assert b"reserve" in journal, "the outcome was recorded before it left"


def test_calls_are_bounded_and_the_rest_waits_for_its_turn() -> None:
    runner, taken = Held(), []
    steps = LocalSteps(runner, most=2)

    class Owner:
        number = 0
        closed = False
        replies: list[Any] = taken

        def functions_for(self, call: LocalCall) -> Any:
            return FUNCTIONS if call.function != "unwanted" else None

    def guarded(number: int, start: Callable[[], None]) -> None:
        start()

    owner: Any = Owner()
    names = ("a", "unwanted", "b", "c")
    for sequence, name in enumerate(names):
        steps.add(owner, LocalCall(ID, "r", "T", sequence, "do", 1, name, b"[]", None))
    assert steps.step(guarded)
    assert [call.function for call in runner.started] == ["a", "b"]
    assert steps.waiting == 1
    runner.end(runner.started[0])
    steps.step(guarded)
    assert [call.function for call in runner.started] == ["a", "b", "c"]
    assert len(taken) == 1
    assert not steps.step(guarded)


IDENTS: list[int] = []
GO = Event()
STOPPED = Event()


def waits() -> int:
    IDENTS.append(get_ident())
    assert GO.wait(20)
    return get_ident()


async def waits_async() -> int:
    IDENTS.append(get_ident())
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        STOPPED.set()
        raise
    return 1


async def quick_async() -> int:
    return get_ident()


def call_of(name: str, sequence: int) -> LocalCall:
    return LocalCall(ID, "r", "T", sequence, "do", 1, f"{__name__}:{name}", b"[]", None)


def test_plain_functions_run_in_threads_and_async_ones_on_a_loop() -> None:
    GO.clear()
    STOPPED.clear()
    IDENTS.clear()
    wake = Event()
    runner = ThreadedRunner(wake)
    ended: list[Ended] = []

    def poll() -> int:
        ended.extend(runner.poll())
        return len(ended)

    for sequence, name in enumerate(("waits", "waits", "waits_async", "quick_async")):
        runner.start(call_of(name, sequence), FUNCTIONS)
    assert eventually(lambda: len(IDENTS) == 3 and poll() == 1)
    assert wake.is_set()
    assert ended[0].reply is not None
    loop = int(ended[0].reply.payload)
    assert len({*IDENTS, loop}) == 3, "two threads, and the loop's"
    runner.cancel(call_of("waits_async", 2))
    runner.cancel(call_of("waits", 0))
    assert eventually(lambda: poll() == 2)
    assert STOPPED.is_set()
    assert ended[1].reply is None
    GO.set()
    assert eventually(lambda: poll() == 4)
    runner.start(call_of("waits", 9), FUNCTIONS)
    assert eventually(lambda: poll() == 5)
    assert runner._threads == 2, "a thread that is free is used again"


def test_without_threads_each_call_is_made_at_once() -> None:
    runner = InlineRunner()
    runner.start(call_of("quick_async", 1), FUNCTIONS)
    (ended,) = runner.poll()
    assert ended.reply is not None
    assert ended.reply.payload == b"%d" % get_ident()
