"""A store that is rebuilt from the journal sends nothing again that was acknowledged."""

from orchestrator.model.events import Status
from orchestrator.runtime.replica import Replica
from orchestrator.store.memory import MemoryStores
from tests.shop_world import PARTITIONS, World, send_starts


def test_after_a_rebuild_only_what_stands_beyond_the_mark_is_open() -> None:
    world = World()
    for number in range(20):
        send_starts(world, f"o-{number}")
    world.settle()
    world.advance(5_000)
    world.behave = lambda message: None
    send_starts(world, "waits")
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
        opened += [saga_id for _, _, saga_id, _, _ in replica.open_effects]
    assert "waits" in opened


def test_a_rebuilt_owner_sends_again_only_what_is_open() -> None:
    world = World()
    for number in range(20):
        send_starts(world, f"o-{number}")
    world.settle()
    world.advance(5_000)
    world.crash()
    world.settle()
    assert world.engine.counters["takeovers"] == PARTITIONS
    assert world.engine.counters["resent"] == 0


def test_a_store_that_was_only_looked_at_still_fits_its_journal() -> None:
    """A take-over that ends before its claim is read has read nothing new, and may have written what it had."""
    world = World()
    send_starts(world, *[f"o-{number}" for number in range(20)])
    world.settle()
    for number in range(PARTITIONS):
        stores, records = MemoryStores(), world.log.records(world.topics.journal, number)
        for _ in range(3):
            store = stores.open(number)
            replica = Replica(store)
            for record in records[replica.first_offset :]:
                replica.feed(record.offset, record.timestamp_ms, record.value)
            replica.flush()
            store.close()
            assert replica.progress.at.offset == records[-1].offset
