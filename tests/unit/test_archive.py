"""Journals that are cut: what may go, where it goes, and who goes on without it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.archive import archiver as module
from orchestrator.archive import journals
from orchestrator.archive.archiver import EVERY_MS as ARCHIVE_EVERY_MS
from orchestrator.archive.archiver import Archiver
from orchestrator.archive.journals import JournalArchive, whole_journal
from orchestrator.archive.shelf import SegmentDamaged, Shelf
from orchestrator.depot import Depot, DepotFailed
from orchestrator.errors import SagaError, VisibilityStopped
from orchestrator.log.base import AdminFailed, Ends, Failure, Record
from orchestrator.log.memory_admin import MemoryAdmin
from orchestrator.log.spans import SpanUnreadable
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.rule import JournalHalted
from orchestrator.runtime.lifecycle import GROUP, Lifecycle
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.rebuilding import rebuilder
from orchestrator.runtime.replica import Replica, StoreStale
from orchestrator.runtime.takeover import Places, Takeover
from orchestrator.runtime.tenure import Phase
from orchestrator.snapshots.keeper import KEEP
from orchestrator.snapshots.restoring import Restoring
from orchestrator.snapshots.vault import Vault
from orchestrator.store.rocks import RocksStores
from orchestrator.visibility import Visibility
from orchestrator.wire.segments import SegmentRecord
from tests.shop_world import PARTITIONS, World, send_starts, succeed
from tests.unit.test_snapshots import JOURNAL, Kept
from tests.waiting import eventually

KEEP_MS = 3_600_000


def some(first: int, end: int) -> Iterator[SegmentRecord]:
    for offset in range(first, end):
        yield SegmentRecord(offset, 1_000 + offset, b"k", b"value %d" % offset, (("name", b"\0"),))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(Depot(str(tmp_path / "depot")), "journal/partition-0")


def test_what_is_put_is_read_from_any_offset_to_any_other(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.archive.shelf.SEGMENT_RECORDS", 4)
    assert shelf.end() == 0
    assert [(each.first, each.end) for each in shelf.put(0, 10, some(0, 10))] == [(0, 4), (4, 8), (8, 10)]
    list(shelf.put(10, 11, some(10, 11)))
    assert shelf.end() == 11
    assert list(shelf.read(0, 11)) == list(some(0, 11))
    assert list(shelf.read(5, 9)) == list(some(5, 9))


def test_segments_of_two_writers_overlap_and_each_record_comes_once(shelf: Shelf) -> None:
    list(shelf.put(0, 6, some(0, 6)))
    list(shelf.put(0, 9, some(0, 9)))
    list(shelf.put(4, 12, some(4, 12)))
    assert list(shelf.read(0, 12)) == list(some(0, 12))


def test_the_marks_of_transactions_are_no_gap(shelf: Shelf) -> None:
    records = [record for record in some(0, 9) if record.offset not in (3, 8)]
    list(shelf.put(0, 9, iter(records)))
    list(shelf.put(9, 10, iter(())))
    assert list(shelf.read(0, 10)) == records


def test_a_segment_that_is_missing_damaged_or_shorter_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.archive.shelf.SEGMENT_RECORDS", 4)
    first, second, third = shelf.put(0, 12, some(0, 12))
    place = f"{shelf.folder}/{second.name}"
    content = shelf._depot.read(place)
    shelf._depot.write(place, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SegmentDamaged, match="is not what was written"):
        list(shelf.read(0, 12))
    shelf._depot.delete(place)
    assert shelf.end() == first.end
    with pytest.raises(SegmentDamaged, match=f"nothing stands there of offset {first.end}"):
        list(shelf.read(0, 12))
    assert len(list(shelf.read(third.first, 12))) == 4
    with pytest.raises(SegmentDamaged, match="nothing stands there of offset 12"):
        list(shelf.read(third.first, 13))


class Cut(Kept):
    """A world whose stores are kept, whose news are published, and whose journals are cut."""

    def __init__(self, folder: Path) -> None:
        depot = Depot(str(folder / "depot"))
        super().__init__(folder, Vault(depot))
        topic = self.world.topics.journal
        self.archive = JournalArchive(depot, topic, JOURNAL)
        self.archiver = Archiver(self.world.log, self.archive, self.vault, JOURNAL, GROUP, KEEP_MS, least=1)

    def publish(self) -> None:
        lifecycle = Lifecycle(self.world.log, self.world.topics, self.world.feeds)
        for _ in range(50):
            lifecycle.step(self.world.now_ms)
            self.world.advance(100)
        lifecycle.close()

    def work(self, orders: int = 20) -> list[str]:
        """Orders that end, told and in a snapshot."""
        ids = self.order(orders)
        self.publish()
        self.take()
        return ids

    def cut(self) -> dict[int, int]:
        """Where the journals begin after the archiver has looked at them."""
        self.archiver.step(self.stores(), self.world.now_ms, self.world.now_ms)
        self.world.now_ms += ARCHIVE_EVERY_MS
        return {number: start for number, (start, _) in self.bounds().items()}

    def bounds(self) -> dict[int, tuple[int, int]]:
        with closing(self.world.log.admin()) as admin:
            found = admin.ends([(self.world.topics.journal, number) for number in range(PARTITIONS)])
        return {number: bounds for (_, number), bounds in found.items()}

    def journal(self) -> list[Record]:
        return list(whole_journal(self.world.log, self.world.topics.journal, self.bounds(), self.archive))


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    return Cut(tmp_path)


def sorted_by_place(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.partition, record.offset))


def test_what_lies_below_all_snapshots_moves_into_the_archive(cut: Cut) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    before = cut.journal()
    oldest = {number: min(each.first_offset for each in cut.vault.list(number)) for number in range(PARTITIONS)}
    assert all(oldest.values())
    assert cut.cut() == oldest == cut.archiver.cut
    assert cut.archiver.failures == 0
    assert sorted_by_place(cut.journal()) == sorted_by_place(before), "nothing is lost, and all is as it was"
    with pytest.raises(SagaError, match=r"was cut below offset \d+, .*set `archive`"):
        list(whole_journal(cut.world.log, cut.world.topics.journal, cut.bounds(), None))
    cut.work()
    cut.world.now_ms += KEEP_MS
    assert all(later > oldest[number] for number, later in cut.cut().items())
    assert [len(cut.archive.shelf(number).segments()) for number in range(PARTITIONS)] == [2] * PARTITIONS


def test_one_snapshot_alone_is_no_reason_to_cut(cut: Cut) -> None:
    cut.work()
    cut.world.now_ms += KEEP_MS
    assert set(cut.cut().values()) == {0}
    cut.work()
    cut.world.now_ms += KEEP_MS
    newest = cut.vault.list(0)[0]
    cut.vault.depot.delete(f"partition-0/files/{newest.files[0].digest}")
    starts = cut.cut()
    assert starts[0] == 0, "one of its two snapshots lacks a file"
    assert starts[1] > 0


def test_what_is_young_or_not_published_stays(cut: Cut) -> None:
    for _ in range(2):
        cut.work()
    assert set(cut.cut().values()) == {0}, "it is younger than is kept in any case"
    for _ in range(KEEP):
        cut.order(20)
        cut.take()
    cut.world.now_ms += KEEP_MS
    with closing(cut.world.log.admin()) as admin:
        places = [(cut.world.topics.journal, number) for number in range(PARTITIONS)]
        published = {number: offset for (_, number), offset in admin.committed(GROUP, places).items()}
    assert cut.cut() == published


def test_a_cut_that_was_interrupted_is_finished(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    before = cut.journal()
    monkeypatch.setattr(cut.archiver._admin, "trim", lambda offsets: None)
    assert set(cut.cut().values()) == {0}
    monkeypatch.undo()
    assert all(cut.cut().values())
    assert sorted_by_place(cut.journal()) == sorted_by_place(before)
    assert [len(cut.archive.shelf(number).segments()) for number in range(PARTITIONS)] == [1] * PARTITIONS


def test_an_archive_with_a_hole_is_told_and_nothing_more_is_cut(cut: Cut) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    starts = cut.cut()
    shelf = cut.archive.shelf(0)
    cut.vault.depot.delete(f"{shelf.folder}/{shelf.segments()[0].name}")
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    later = cut.cut()
    assert later[0] == starts[0]
    assert later[1] > starts[1]
    assert cut.archiver.failures == 1


def test_only_so_much_is_moved_at_once(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    monkeypatch.setattr(module, "AT_ONCE", 5)
    assert set(cut.cut().values()) == {5}
    assert set(cut.cut().values()) == {10}


# -- who goes on


def cut_world(cut: Cut) -> list[str]:
    """Sagas of which two wait, below and above where the journals were cut."""
    cut.world.behave = lambda message: None if message.saga_id.startswith("held") else succeed(message)
    send_starts(cut.world, "held-1")
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    assert all(cut.cut().values())
    send_starts(cut.world, "held-2")
    return cut.order(4)


def finish(cut: Cut, later: list[str]) -> None:
    assert eventually(cut.all_owned)
    world = cut.world
    world.behave = succeed
    for record in world.records(world.topics.commands("inventory")):
        if record.key in (b"held-1", b"held-2"):
            world._serve(record)
    world.advance(1_000)
    world.advance(1_000)
    for saga_id in ("held-1", "held-2", *later):
        owner = world.owned(partition_of(saga_id, PARTITIONS))
        execution = owner.runs.find(saga_id)
        assert execution is not None
        assert execution.state.status is Status.COMPLETED


def test_a_store_that_ends_below_the_cut_is_wiped_and_restored(cut: Cut, tmp_path: Path) -> None:
    cut.work(12)
    old = RocksStores(tmp_path / "old")
    (tmp_path / "old").mkdir()
    for number, store in cut.stores().items():
        store.checkpoint(old.path(number))  # type: ignore[attr-defined]
    later = cut_world(cut)
    cut.begin(Restoring(old, cut.vault, JOURNAL))
    finish(cut, later)
    assert cut.world.engine.counters["store_wipes"] == PARTITIONS


def test_without_any_sound_snapshot_the_archive_and_the_journal_make_a_store(cut: Cut, tmp_path: Path) -> None:
    later = cut_world(cut)
    for number in range(PARTITIONS):
        for manifest in cut.vault.list(number):
            cut.vault.depot.delete(f"partition-{number}/{manifest.name}")
    stores = RocksStores(tmp_path / "elsewhere")
    cut.begin(Restoring(stores, cut.vault, JOURNAL, rebuilder(cut.world.log, cut.archive)))
    finish(cut, later)
    assert cut.world.engine.counters["store_wipes"] == 0
    assert sorted(each.name for each in (tmp_path / "elsewhere").iterdir()) == [
        f"partition-{number}" for number in range(PARTITIONS)
    ]


def test_a_rebuilt_store_is_that_of_the_owner(cut: Cut, tmp_path: Path) -> None:
    cut_world(cut)
    for tenure in cut.world.engine.tenures.values():
        assert tenure.partition is not None
        tenure.partition.mark()
    cut.world.settle()
    assert rebuilder(cut.world.log, cut.archive)(1, tmp_path / "rebuilt")
    rebuilt = RocksStores(tmp_path / "a")
    (tmp_path / "rebuilt").rename(rebuilt.path(1).parent.mkdir() or rebuilt.path(1))
    with closing(rebuilt.open(1)) as store:
        assert Progress(store).at.offset == cut.bounds()[1][1] - 1
        owner = cut.world.engine.tenures[1].partition
        assert owner is not None
        owner._changes.cut(owner.writer.next_offset - 1)
        cut.world.settle()
        assert dict(store.scan(b"")) == dict(owner.store.scan(b""))


def test_a_worker_without_snapshots_says_what_it_lacks(cut: Cut, tmp_path: Path) -> None:
    cut_world(cut)
    cut.begin(RocksStores(tmp_path / "elsewhere"))
    for _ in range(10):
        cut.world.advance(1_000)
    tenures = cut.world.engine.tenures.values()
    assert {each.phase for each in tenures} == {Phase.HALTED}
    assert all("the journal was cut above offset 0" in each.halted_because for each in tenures)
    assert all("set `snapshots`" in each.halted_because for each in tenures)


def test_lists_and_histories_go_back_into_the_archive(cut: Cut, tmp_path: Path) -> None:
    world = cut.world
    first = cut.order(2)
    with Visibility(tmp_path / "old.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        visibility.catch_up()
        before = visibility.show(first[0])
    later = cut_world(cut)
    for name in ("new", "old"):
        path = tmp_path / f"{name}.sqlite"
        with Visibility(path, world.log, world.topics, PARTITIONS, cut.archive) as visibility:
            assert visibility.catch_up()
            assert sum(visibility.counts().values()) == cut.orders + 2
            assert visibility.show(first[0]) == before
            shown = visibility.show(later[0])
            assert shown is not None
            assert shown.run.status == "COMPLETED"
    with (
        Visibility(tmp_path / "without.sqlite", world.log, world.topics, PARTITIONS) as visibility,
        pytest.raises(VisibilityStopped, match=r"the journal was cut, its beginning is needed.*set `archive`"),
    ):
        visibility.catch_up()


def test_a_damaged_archive_stops_what_needs_it_with_a_reason(cut: Cut, tmp_path: Path) -> None:
    cut_world(cut)
    shelf = cut.archive.shelf(2)
    cut.vault.depot.write(f"{shelf.folder}/{shelf.segments()[0].name}", b"something else")
    world = cut.world
    with (
        Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS, cut.archive) as visibility,
        pytest.raises(VisibilityStopped, match=r"partition 2: .*is not what was written"),
    ):
        visibility.catch_up()


def test_what_cannot_be_read_in_the_archive_is_not_cut_off_the_journal(
    cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that lost its power may leave a segment that has its name and not its content."""
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    monkeypatch.setattr(cut.archiver._admin, "trim", lambda offsets: None)
    cut.cut()
    monkeypatch.undo()
    shelf = cut.archive.shelf(0)
    cut.vault.depot.write(f"{shelf.folder}/{shelf.segments()[0].name}", b"")
    starts = cut.cut()
    assert (starts[0], cut.archiver.failures) == (0, 1)
    assert starts[1] > 0


def test_a_journal_that_is_cut_while_it_is_read_is_read_on_in_the_archive(cut: Cut) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    before = sorted_by_place(cut.journal())
    records = whole_journal(cut.world.log, cut.world.topics.journal, cut.bounds(), cut.archive)
    found = [next(records)]
    assert all(cut.cut().values())
    found += records
    assert sorted_by_place(found) == before


def test_a_journal_that_is_cut_beyond_what_is_read_is_read_up_to_there(cut: Cut) -> None:
    for _ in range(KEEP):
        cut.work()
    cut.world.now_ms += KEEP_MS
    bounds = {number: (start, 5) for number, (start, _) in cut.bounds().items()}
    assert all(start > 5 for start in cut.cut().values())
    records = whole_journal(cut.world.log, cut.world.topics.journal, bounds, cut.archive)
    assert sorted((record.partition, record.offset) for record in records) == [
        (number, offset) for number in range(PARTITIONS) for offset in range(5)
    ]


def test_while_the_place_cannot_be_reached_a_cut_partition_waits(cut: Cut, tmp_path: Path) -> None:
    later = cut_world(cut)
    down = True
    for name in ("names", "read", "open"):
        real = getattr(cut.vault.depot, name)

        def call(*arguments: Any, real: Any = real) -> Any:
            if down:
                raise DepotFailed("s3://bucket: connection reset")
            return real(*arguments)

        setattr(cut.vault.depot, name, call)
    stores = RocksStores(tmp_path / "elsewhere")
    cut.begin(Restoring(stores, cut.vault, JOURNAL, rebuilder(cut.world.log, cut.archive)))
    for _ in range(20):
        cut.world.advance(1_000)
    assert {each.phase for each in cut.world.engine.tenures.values()} == {Phase.WAITING}
    down = False
    finish(cut, later)
    assert cut.world.engine.counters["store_wipes"] == 0


@pytest.mark.parametrize(
    "failed",
    [
        AdminFailed(Failure.UNKNOWN_OUTCOME, "its leader did not answer"),
        SpanUnreadable("nothing more for 60 s"),
    ],
    ids=["where it begins", "what stands there"],
)
def test_while_the_brokers_do_not_answer_a_cut_partition_waits_too(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: SagaError
) -> None:
    later = cut_world(cut)
    for number in range(PARTITIONS):
        for manifest in cut.vault.list(number):
            cut.vault.depot.delete(f"partition-{number}/{manifest.name}")
    down = True
    where = {AdminFailed: (MemoryAdmin, "ends"), SpanUnreadable: (journals, "records_in")}
    owner, name = where[type(failed)]
    real = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        if down:
            raise failed
        return real(*arguments)

    monkeypatch.setattr(owner, name, call)
    stores = RocksStores(tmp_path / "elsewhere")
    cut.begin(Restoring(stores, cut.vault, JOURNAL, rebuilder(cut.world.log, cut.archive)))
    for _ in range(20):
        cut.world.advance(1_000)
    assert {each.phase for each in cut.world.engine.tenures.values()} == {Phase.WAITING}
    down = False
    finish(cut, later)
    assert cut.world.engine.counters["store_wipes"] == 0


def test_an_archive_that_ends_before_the_journal_begins_stops_what_needs_it(cut: Cut, tmp_path: Path) -> None:
    for _ in range(2):
        for _ in range(KEEP):
            cut.work()
        cut.world.now_ms += KEEP_MS
        cut.cut()
    shelf = cut.archive.shelf(0)
    cut.vault.depot.delete(f"{shelf.folder}/{shelf.segments()[-1].name}")
    world = cut.world
    with (
        Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS, cut.archive) as visibility,
        pytest.raises(VisibilityStopped, match=r"partition 0: what follows offset \d+ is neither in the journal nor"),
    ):
        visibility.catch_up()


def test_what_is_out_of_range_though_the_journal_begins_before_it_was_truncated() -> None:
    """It has grown again since, so that its end says nothing; the store, which knows better, must stay."""
    world = World()
    send_starts(world, *[f"o-{number}" for number in range(12)])
    world.settle()
    replica = Replica(world.owned(0).store)
    with closing(world.log.reader()) as journals, closing(world.log.reader("owners")) as member:
        places = Places(world.topics.journal, world.topics.inbox, journals, member, world.log.appender())
        takeover = Takeover(0, replica, world.engine._owner, places)
        takeover.out_of_range()
        takeover.witnessed(Ends((takeover, "witness"), {}), 0)
        place = (world.topics.journal, 0)
        takeover.ends("start", {place: 0}, 0)
        with pytest.raises(JournalHalted, match="it was truncated or written anew"):
            takeover.ends("end", {place: 99}, 0)
        takeover.out_of_range()
        takeover.ends("start", {place: replica.next_offset + 1}, 0)
        with pytest.raises(StoreStale, match="the journal was cut above"):
            takeover.ends("end", {place: 99}, 0)
