"""Stores of partitions that others own are kept near their journals' ends, and handed over to whoever opens them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from orchestrator.log.base import Failure, ReadFailed, Record
from orchestrator.log.memory import MemoryReader
from orchestrator.model.rule import Kind
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.standby import AGAIN_MS, ASK_EVERY_MS, FLUSH_EVERY_MS, LOOK_EVERY_MS, Standby
from orchestrator.runtime.tenure import Phase
from orchestrator.store import keys
from orchestrator.store.base import Store, StoreBusy
from orchestrator.store.memory import MemoryStores
from orchestrator.store.rocks import RocksStores
from orchestrator.wire.journal import Envelope, write_envelope
from tests.shop_world import PARTITIONS, World, send_starts


class Pair:
    """A world whose engine owns every partition, and a standby with stores of its own beside it."""

    def __init__(self, owned: Sequence[int] = ()) -> None:
        self.world = World()
        self.stores = MemoryStores()
        self.readers: list[MemoryReader] = []
        self.standby = Standby(self.stores, self.new_reader, self.world.topics.journal, PARTITIONS, owned.__contains__)

    def new_reader(self) -> MemoryReader:
        self.readers.append(self.world.log.reader())
        return self.readers[-1]

    def settle(self) -> None:
        for _ in range(3 * PARTITIONS):
            self.world.advance(LOOK_EVERY_MS)
            while self.standby.step(self.world.now_ms):
                pass

    def journal(self, number: int) -> Sequence[Record]:
        return self.world.log.records(self.world.topics.journal, number)

    def replayed(self, number: int, until: int) -> MemoryStores:
        stores = MemoryStores()
        replica = Replica(stores.open(number))
        for record in self.journal(number)[: until + 1]:
            replica.feed(record.offset, record.timestamp_ms, record.value)
        replica.flush()
        return stores


def test_every_partition_that_is_not_owned_is_followed_byte_for_byte() -> None:
    pair = Pair(owned=[1])
    for number in range(40):
        send_starts(pair.world, f"o-{number}")
        pair.settle()
    assert pair.standby.followed == {0, 2, 3}
    pair.world.advance(FLUSH_EVERY_MS)
    pair.standby.step(pair.world.now_ms)
    for number in pair.standby.followed:
        at = Progress(pair.stores.peek(number)).at.offset
        assert at >= len(pair.journal(number)) - 3
        assert pair.stores.peek(number).values == pair.replayed(number, at).peek(number).values


def test_a_store_is_handed_over_with_all_that_was_read_and_taken_up_again_when_it_is_free() -> None:
    owned: list[int] = []
    pair = Pair(owned)
    pair.settle()
    pair.world.advance(FLUSH_EVERY_MS)
    pair.standby.step(pair.world.now_ms)
    before = Progress(pair.stores.peek(0)).at.offset
    send_starts(pair.world, *[f"o-{number}" for number in range(8)])
    pair.world.settle()
    pair.standby.step(pair.world.now_ms)
    assert Progress(pair.stores.peek(0)).at.offset == before
    owned.append(0)
    store = pair.standby.open(0)
    assert Progress(store).at.offset == len(pair.journal(0)) - 1 > before
    assert (pair.world.topics.journal, 0) not in pair.readers[0]._cursors
    pair.settle()
    assert 0 not in pair.standby.followed
    with pytest.raises(StoreBusy):
        pair.standby.open(0)
    store.close()
    owned.clear()
    pair.settle()
    assert 0 in pair.standby.followed


def test_a_worker_that_was_the_standby_begins_near_the_end() -> None:
    pair = Pair()
    for number in range(60):
        send_starts(pair.world, f"o-{number}")
    pair.settle()
    for number in range(PARTITIONS):
        store, end = pair.standby.open(number), len(pair.journal(number))
        assert end > 20
        assert Replica(store).first_offset >= end - 3
        store.close()
    pair.settle()
    assert len(pair.standby.followed) == PARTITIONS
    pair.world.crash()
    pair.world.engine._stores = pair.standby
    pair.world.settle()
    pair.world.advance(2_000)
    assert pair.standby.followed == frozenset()
    assert {tenure.phase for tenure in pair.world.engine.tenures.values()} == {Phase.OWNING}


def test_a_record_of_newer_software_is_not_followed_and_what_was_read_before_stays() -> None:
    pair = Pair()
    send_starts(pair.world, *[f"o-{number}" for number in range(8)])
    pair.settle()
    end = len(pair.journal(0))
    before = dict(pair.stores.peek(0).values)
    envelope = Envelope(Kind.DECISION, b"n" * 16, 0, b"", {}, 0, (), 99, b"", b"later")
    pair.world.log.appender().append(pair.world.topics.journal, 0, write_envelope(envelope), token=None)
    pair.standby.step(pair.world.now_ms)
    assert pair.standby.followed == {1, 2, 3}
    assert pair.stores.peek(0).values == before
    assert Progress(pair.stores.peek(0)).at.offset == end - 1
    pair.standby.step(pair.world.now_ms + AGAIN_MS)
    assert 0 in pair.standby.followed


def spoil_hash(stores: MemoryStores) -> None:
    """A store as it would be if the journal had been written anew under it."""
    store = stores.open(0)
    progress = Progress(store)
    progress.at.record_hash = b"another"
    store.write([(key, value) for key, value in progress.changes() if key == keys.PARTITION])
    store.close()


@pytest.mark.parametrize("spoil", [spoil_hash, lambda stores: stores.damage(0)])
def test_a_store_that_does_not_fit_or_is_broken_is_wiped_and_built_again(spoil: Callable[[MemoryStores], None]) -> None:
    pair = Pair()
    send_starts(pair.world, *[f"o-{number}" for number in range(8)])
    pair.settle()
    pair.standby.open(0).close()
    spoil(pair.stores)
    pair.settle()
    assert 0 not in pair.standby.followed
    pair.world.advance(AGAIN_MS)
    pair.settle()
    assert 0 in pair.standby.followed
    at = Progress(pair.stores.peek(0)).at.offset
    assert pair.stores.peek(0).values == pair.replayed(0, at).peek(0).values


def test_a_reader_that_became_unusable_is_replaced() -> None:
    pair = Pair()
    pair.settle()
    pair.readers[0]._post(ReadFailed("", -1, Failure.FATAL, "it is over"))
    pair.standby.step(pair.world.now_ms)
    assert pair.standby.followed == frozenset()
    pair.world.advance(ASK_EVERY_MS)
    pair.settle()
    assert (len(pair.readers), len(pair.standby.followed)) == (2, PARTITIONS)


def test_an_error_over_one_partition_leaves_the_others_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    send_starts(pair.world, *[f"o-{number}" for number in range(30)])
    pair.world.settle()
    feed, raised = Replica.feed, []

    def fails_once(replica: Replica, offset: int, *rest: Any) -> Any:
        if offset == 7 and not raised:
            raised.append(MemoryError())
            raise raised[0]
        return feed(replica, offset, *rest)

    monkeypatch.setattr(Replica, "feed", fails_once)
    pair.settle()
    assert len(pair.standby.followed) == PARTITIONS - 1
    for number in pair.standby.followed:
        assert pair.standby.next_offset(number) == len(pair.journal(number))
    pair.world.advance(AGAIN_MS)
    pair.settle()
    assert len(pair.standby.followed) == PARTITIONS


def test_a_store_in_a_directory_that_cannot_be_read_is_wiped(tmp_path: Path) -> None:
    pair = Pair()
    pair.settle()
    pair.standby.close()
    stores = RocksStores(tmp_path)
    store = stores.open(0)
    store.write([(keys.PARTITION, b"[]")])
    store.close()
    standby = Standby(stores, pair.new_reader, pair.world.topics.journal, 1, lambda number: False)
    standby.step(pair.world.now_ms)
    standby.step(pair.world.now_ms + AGAIN_MS)
    assert standby.followed == {0}
    standby.close()


class Slow:
    """Stores of which each takes as long to open as the test wants."""

    def __init__(self, stores: MemoryStores) -> None:
        self._stores = stores
        self.opening, self.go = Event(), Event()

    def open(self, partition: int) -> Store:
        if partition == 0:
            self.opening.set()
            assert self.go.wait(20)
        return self._stores.open(partition)

    def wipe(self, partition: int) -> None:
        self._stores.wipe(partition)


def test_nobody_waits_for_a_store_that_the_standby_opens() -> None:
    pair, owned = Pair(), []
    slow = Slow(MemoryStores())
    standby = Standby(slow, pair.new_reader, pair.world.topics.journal, PARTITIONS, owned.__contains__)
    thread = Thread(target=standby.step, args=(pair.world.now_ms,))
    thread.start()
    assert slow.opening.wait(20)
    standby.open(1).close()
    with pytest.raises(StoreBusy, match="opened by the standby"):
        standby.open(0)
    owned.append(0)  # granted meanwhile
    slow.go.set()
    thread.join()
    assert standby.followed == frozenset()
    standby.open(0).close()


def test_it_says_how_much_is_unread() -> None:
    pair = Pair()
    pair.settle()
    pair.world.advance(ASK_EVERY_MS)
    pair.settle()
    assert pair.standby.lag == dict.fromkeys(range(PARTITIONS), 0)
    pair.standby.close()
    assert (pair.standby.lag, pair.standby.followed) == ({}, frozenset())
