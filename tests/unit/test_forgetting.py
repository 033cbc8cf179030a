"""An owner forgets sagas whose time is up: its store, a replica's and a next owner's hold nothing of them."""

import pytest

from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.rule import Kind
from orchestrator.model.state import SagaState
from orchestrator.runtime.materialize import Gathered
from orchestrator.runtime.replica import Replica
from orchestrator.store import keys
from orchestrator.store.base import Store
from orchestrator.store.memory import MemoryStore, MemoryStores
from orchestrator.wire.journal import read_decision, read_envelope
from tests.shop_world import PARTITIONS, World, send_starts

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


def forgotten(world: World) -> list[str]:
    found = []
    for record in world.records(world.topics.journal):
        envelope = read_envelope(record.value)
        decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
        if decision is not None and ev.SagaForgotten() in decision.events:
            found.append(decision.saga_id)
    return found


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


class Kept:
    """A store, and what decisions changed since it was written."""

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStores().open(0)
        self.gathered = Gathered()

    def run(self, offset: int) -> SagaState:
        state = SagaState("order", f"1-{offset}-0")
        state.phase = Status.COMPLETED
        self.gathered.run(state, offset)
        self.gathered.message("order", "m", offset)
        return state

    def forget(self, state: SagaState, offset: int) -> None:
        state.forgotten = True
        self.gathered.run(state, offset)

    def write(self) -> None:
        self.store.write(self.gathered.changes(self.store))
        self.gathered = Gathered()


def test_an_input_that_was_taken_before_is_not_known_after() -> None:
    kept = Kept()
    state = kept.run(3)
    kept.write()
    assert kept.gathered.knows("order", "m") is None
    kept.forget(state, 5)
    assert (kept.gathered.knows("order", "m"), kept.gathered.forgot("order")) == (False, True)
    kept.run(6)
    assert kept.gathered.knows("order", "m") is True
    kept.write()
    assert kept.store.get(keys.message("order", "m")) == keys.number(6)


def test_what_was_never_stored_leaves_nothing_either() -> None:
    kept = Kept()
    kept.forget(kept.run(3), 5)
    kept.forget(kept.run(6), 7)
    kept.write()
    assert left(kept.store) == []


def test_of_an_id_that_is_forgotten_again_and_again_the_last_run_counts() -> None:
    kept = Kept()
    state = kept.run(3)
    kept.write()
    kept.forget(state, 4)
    kept.forget(kept.run(5), 6)
    kept.run(7)
    kept.write()
    assert left(kept.store) == [keys.run("order"), keys.message("order", "m")]
    assert kept.store.get(keys.message("order", "m")) == keys.number(7)
