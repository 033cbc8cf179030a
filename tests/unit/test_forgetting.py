"""An owner forgets sagas whose time is up: its store, a replica's and a next owner's hold nothing of them."""

from collections.abc import Iterator
from itertools import count, islice

import pytest

from orchestrator.errors import StepFailed
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model import events as ev
from orchestrator.model.asked import Asked
from orchestrator.model.definition import ChildRequest
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import ParentClose
from orchestrator.model.rule import Kind
from orchestrator.model.state import SagaState
from orchestrator.runtime import partition, ringing
from orchestrator.runtime.replica import Replica
from orchestrator.saga import Saga
from orchestrator.store import keys
from orchestrator.store.base import Store
from orchestrator.store.memory import MemoryStore, MemoryStores
from orchestrator.wire.inputs import INBOX
from orchestrator.wire.journal import read_decision, read_envelope
from tests.shop_world import PARTITIONS, World, send_starts
from tests.unit.gathering import Gathering

KEEP_MS = 60_000
ORDERS = [f"order-{number}" for number in range(40)]
OF_SAGAS = (keys.RUNS, keys.STEPS, keys.TIMERS, keys.MESSAGES, keys.WAITING, keys.LOCAL, keys.PAUSED)


@pytest.fixture
def world() -> World:
    world = World(ended_keep_ms=KEEP_MS)
    send_starts(world, *ORDERS)
    world.settle()
    assert {world.status(order) for order in ORDERS} == {Status.COMPLETED}
    return world


def store_of(world: World, number: int) -> Store:
    return world.owned(number).store


def left(store: Store) -> list[bytes]:
    """What a store has of sagas."""
    return [key for kind in OF_SAGAS for key, _ in store.scan(kind)]


def decision_of(value: bytes | None) -> ev.Decision | None:
    envelope = read_envelope(value or b"")
    return read_decision(envelope) if envelope.kind == Kind.DECISION else None


def decisions(world: World) -> Iterator[ev.Decision]:
    read = (decision_of(record.value) for record in world.records(world.topics.journal))
    yield from (decision for decision in read if decision is not None)


def forgotten(world: World) -> list[str]:
    return [decision.saga_id for decision in decisions(world) if ev.SagaForgotten() in decision.events]


def started(world: World, saga_id: str) -> int:
    """How often it was started."""
    return sum(
        decision.saga_id == saga_id and any(isinstance(event, ev.SagaStarted) for event in decision.events)
        for decision in decisions(world)
    )


def taken(world: World, saga_id: str) -> str:
    """The message id of its start."""
    return next(decision.message_id for decision in decisions(world) if decision.saga_id == saga_id)


def replayed(world: World, number: int) -> MemoryStore:
    store: MemoryStore = MemoryStores().open(number)
    replica = Replica(store)
    for record in world.log.records(world.topics.journal, number):
        replica.feed(record.offset, record.timestamp_ms, record.value)
    replica.flush()
    return store


def test_nothing_is_left_of_sagas_whose_time_is_up(world: World) -> None:
    world.advance(KEEP_MS - 1_000)
    assert sum(len(left(store_of(world, number))) for number in range(PARTITIONS)) > len(ORDERS)
    assert forgotten(world) == []
    world.advance(2_000)
    world.advance(1_000)
    assert sorted(forgotten(world)) == sorted(ORDERS)
    for number in range(PARTITIONS):
        assert left(store_of(world, number)) == []
        assert left(replayed(world, number)) == []
        assert world.owned(number).runs.live == {}


def test_an_id_begins_anew_in_the_very_moment_in_which_it_was_forgotten(world: World) -> None:
    world.now_ms += KEEP_MS
    while "order-7" not in forgotten(world):
        world.step()
        world.now_ms += 1
    number = partition_of("order-7", PARTITIONS)
    assert store_of(world, number).get(keys.run("order-7")) is not None, "the store is behind"
    assert world.owned(number).runs.find("order-7") is None
    send_starts(world, "order-7")
    world.settle()
    assert world.status("order-7") is Status.COMPLETED
    world.advance(5_000)
    kept = left(store_of(world, number))
    assert keys.run("order-7") in kept
    assert kept == left(replayed(world, number))


def test_a_next_owner_forgets_what_the_last_one_did_not_come_to(world: World) -> None:
    world.crash()
    world.settle()
    world.advance(KEEP_MS)
    world.advance(1_000)
    assert sorted(forgotten(world)) == sorted(ORDERS)
    world.crash()
    world.settle()
    assert [left(store_of(world, number)) for number in range(PARTITIONS)] == [[]] * PARTITIONS
    assert len(forgotten(world)) == len(ORDERS), "once each"


@pytest.mark.parametrize("backlog", [0, 300])
def test_a_repeat_that_came_in_time_is_known_however_late_it_is_read(world: World, backlog: int) -> None:
    number = partition_of("order-7", PARTITIONS)
    for reader in (world.engine._clients.inputs, world.engine._clients.journals):
        reader.close()
    others = (f"other-{place}" for place in count())
    send_starts(world, *islice((each for each in others if partition_of(each, PARTITIONS) == number), backlog))
    world.now_ms += KEEP_MS // 2
    send_starts(world, "order-7", message_id=taken(world, "order-7"))
    world.now_ms += KEEP_MS // 2 + 1_000
    world.engine = world.new_engine()
    world.settle(1)
    world.advance(2_000)
    assert "order-7" in forgotten(world)
    assert started(world, "order-7") == 1


class Child(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.sleep(10**6)
        return "ok"


class Many(Saga[int, str]):
    async def run(self, children: int) -> str:
        for number in range(children):
            self.start_child(Child, "tea", id=f"child-{number}", parent_close=ParentClose.TERMINATE)
        await self.sleep(1)
        return "done"


class Timed(Saga[int, None], execution_timeout=5):
    async def run(self, children: int) -> None:
        for number in range(children):
            self.start_child(Child, "tea", id=f"child-{number}", parent_close=ParentClose.TERMINATE)
        await self.sleep(10**6)


def test_a_time_that_is_set_in_a_decision_of_many_parts_is_kept() -> None:
    world = World(sagas=(Child, Many, Timed), ended_keep_ms=5_000)
    send_starts(world, "many", saga_type="Many", value=b"450")
    send_starts(world, "timed", saga_type="Timed", value=b"450")
    world.settle()
    world.advance(1_100)
    world.advance(5_000)
    for _ in range(4):
        world.advance(5_000)
    assert {"many", "timed"} <= set(forgotten(world))


class DiesBetween(Link):
    """Nothing is written any more behind the decision that ends a saga and is continued by another."""

    def __init__(self) -> None:
        self.died = False

    def append(self, sent: Sent) -> None:
        if not self.died:
            super().append(sent)
            decision = decision_of(sent.value)
            events = () if decision is None else decision.events
            self.died = any(isinstance(event, ev.SagaEnded) for event in events) and ev.ContinueDue() in events


def test_a_repeat_is_known_where_the_owner_died_before_all_had_heard_of_the_end() -> None:
    world = World(sagas=(Child, Many), ended_keep_ms=KEEP_MS)
    link = DiesBetween()
    world.engine._journal._appender = world.log.appender(link=link)
    send_starts(world, "many", saga_type="Many", value=b"450")
    while not link.died:
        world.step()
        world.now_ms += 10
    for reader in (world.engine._clients.inputs, world.engine._clients.journals):
        reader.close()
    world.now_ms += KEEP_MS // 2
    send_starts(world, "many", saga_type="Many", value=b"1", message_id=taken(world, "many"))
    world.now_ms += KEEP_MS // 2 + 1_000
    world.engine = world.new_engine()
    world.settle(1)
    world.advance(2_000)
    assert ("many" in forgotten(world), started(world, "many")) == (True, 1)


class Asking(Saga[str, str]):
    async def run(self, what: str) -> str:
        try:
            await Asked(ChildRequest("Numbered", b'"tea"', "kid", undo=True))
        except StepFailed as failed:
            return failed.error_type
        return what


class Numbered(Saga[int, str]):
    async def run(self, number: int) -> str:
        return "ok"


def test_a_child_that_was_refused_leaves_nothing() -> None:
    world = World(sagas=(Asking, Numbered), ended_keep_ms=KEEP_MS)
    send_starts(world, "asking", saga_type="Asking", value=b'"tea"')
    world.settle()
    assert world.status("asking") is Status.COMPLETED
    world.advance(KEEP_MS + 1_000)
    world.advance(1_000)
    assert [left(store_of(world, number)) for number in range(PARTITIONS)] == [[]] * PARTITIONS


class Quick(Saga[str, str]):
    async def run(self, what: str) -> str:
        return what


@pytest.mark.parametrize("most", [ringing.MOST_ENDS, 20])
def test_sagas_are_forgotten_while_the_inbox_stays_behind(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Each waits for what was there when its own time was up, not for what has come since; only so many in memory."""
    monkeypatch.setattr(partition, "BATCH", 10)
    monkeypatch.setattr(ringing, "MOST_ENDS", most)
    names = (f"quick-{number}" for number in count())
    names = (name for name in names if partition_of(name, PARTITIONS) == 0)
    world = World(sagas=(Quick,), ended_keep_ms=1_000)
    send_starts(world, *islice(names, 60), saga_type="Quick", value=b'"tea"')
    for _ in range(400):
        send_starts(world, *islice(names, 10), saga_type="Quick", value=b'"tea"')
        world.step()
        world.now_ms += 10
        assert len(world.owned(0)._ringer._ends) <= most
    inbox = world.log.records(world.topics.inbox, 0)
    assert len(inbox) - world.owned(0).intake.consumed(INBOX) >= 60, "it stayed behind"
    assert len(forgotten(world)) > 900
    world.advance(1_000)
    world.advance(2_000)
    assert len(set(forgotten(world))) == len(forgotten(world)) == len(inbox)


class Kept(Gathering):
    """Of one saga id, each of whose runs takes the same input."""

    def begin(self, offset: int) -> SagaState:
        self.take(offset, "m", saga_id="order")
        return self.run(offset, "order")


def test_an_input_that_was_taken_before_is_not_known_after() -> None:
    kept = Kept()
    state = kept.begin(3)
    kept.write()
    assert kept.gathered.knows("order", "m") is None
    kept.forget(state, 5)
    assert (kept.gathered.knows("order", "m"), kept.gathered.forgot("order")) == (False, True)
    kept.begin(6)
    assert kept.gathered.knows("order", "m") is True
    kept.write()
    assert kept.store.get(keys.message("order", "m")) == keys.number(6)


def test_what_was_never_stored_leaves_nothing_either() -> None:
    kept = Kept()
    kept.forget(kept.begin(3), 5)
    kept.forget(kept.begin(6), 7)
    kept.write()
    assert left(kept.store) == []


def test_of_an_id_that_is_forgotten_again_and_again_the_last_run_counts() -> None:
    kept = Kept()
    state = kept.begin(3)
    kept.write()
    kept.forget(state, 4)
    kept.forget(kept.begin(5), 6)
    kept.begin(7)
    kept.write()
    assert left(kept.store) == [keys.run("order"), keys.message("order", "m")]
    assert kept.store.get(keys.message("order", "m")) == keys.number(7)
