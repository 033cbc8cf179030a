"""A store that is rebuilt from the journal sends nothing again that was acknowledged."""

from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.runtime.replica import Replica
from orchestrator.store.memory import MemoryStores
from orchestrator.wire import headers as h
from tests.shop_world import PARTITIONS, Order, World


def start(world: World, saga_id: str) -> None:
    value = Order(id=saga_id).model_dump_json().encode()
    headers = h.write_headers({h.SAGA_TYPE: "OrderFulfilment"})
    number = partition_of(saga_id, PARTITIONS)
    world.log.appender().append(world.topics.inbox, number, value, key=saga_id.encode(), headers=headers, token=None)


def test_after_a_rebuild_only_what_stands_beyond_the_mark_is_open() -> None:
    world = World()
    for number in range(20):
        start(world, f"o-{number}")
    world.settle()
    world.advance(5_000)
    world.behave = lambda message: None
    start(world, "waits")
    world.settle()
    assert world.status("waits") is Status.RUNNING
    opened = []
    for number in range(PARTITIONS):
        replica = Replica(MemoryStores().open(0))
        for record in world.log.records(world.topics.journal, number):
            replica.feed(record.offset, record.timestamp_ms, record.value)
        replica.flush()
        sent = replica.progress.at.effects_sent
        assert all(offset > sent for offset, *_ in replica.open_effects)
        opened += [saga_id for _, _, saga_id, _ in replica.open_effects]
    assert "waits" in opened


def test_a_rebuilt_owner_sends_again_only_what_is_open() -> None:
    world = World()
    for number in range(20):
        start(world, f"o-{number}")
    world.settle()
    world.advance(5_000)
    world.crash()
    world.settle()
    assert world.engine.counters["takeovers"] == PARTITIONS
    assert world.engine.counters["resent"] == 0
