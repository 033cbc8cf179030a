"""Snapshots of stores: what is kept of them, what is new in each, and what a worker without a store begins with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.depot import Depot, DepotFailed
from orchestrator.model.events import Status
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.tenure import Phase
from orchestrator.snapshots.keeper import KEEP, Keeper
from orchestrator.snapshots.restoring import MAX_RESTORED, Restoring
from orchestrator.snapshots.vault import File, Manifest, SnapshotDamaged, Vault, _folder
from orchestrator.store import keys
from orchestrator.store.base import Store, StoreBusy
from orchestrator.store.rocks import RocksStores
from tests.shop_world import PARTITIONS, World, send_starts
from tests.waiting import eventually

EVERY_MS = 60_000
JOURNAL = "the journal's id"


@pytest.fixture(params=["directory", "memory"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    return Vault(Depot(str(tmp_path / "vault") if request.param == "directory" else f"memory://{tmp_path.name}"))


class Kept:
    """A world whose stores are in RocksDB, and the keeper of their snapshots."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.world = World()
        self.vault = vault
        self.keeper = Keeper(vault, folder / "scratch", JOURNAL, EVERY_MS)
        self.begin(RocksStores(folder / "stores"))
        self.orders = 0

    def begin(self, stores: RocksStores | Restoring) -> None:
        """A worker with these stores."""
        for tenure in self.world.engine.tenures.values():
            self.world.engine._close(tenure)
        self.world.crash()
        self.world.engine._stores = stores
        self.world.settle()

    def order(self, count: int) -> list[str]:
        ids = [f"o-{self.orders + number}" for number in range(count)]
        self.orders += count
        send_starts(self.world, *ids)
        self.world.advance(1_000)
        self.world.advance(2_000)
        return ids

    def stores(self) -> dict[int, Store]:
        return {number: each.store for number, each in self.world.engine.tenures.items() if each.store is not None}

    def take(self) -> None:
        self.keeper.step(self.stores(), self.world.now_ms, self.world.now_ms)
        self.world.now_ms += EVERY_MS
        self.keeper.step(self.stores(), self.world.now_ms, self.world.now_ms)

    def all_owned(self) -> bool:
        self.world.advance(1_000)
        return [each.phase for each in self.world.engine.tenures.values()] == [Phase.OWNING] * PARTITIONS


def test_each_store_is_copied_as_it_stands_and_the_next_time_what_is_new_of_it(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    kept.order(40)
    kept.take()
    offsets = {number: Progress(store).at.offset for number, store in kept.stores().items()}
    first = {number: vault.list(number) for number in range(PARTITIONS)}
    assert {number: [each.offset for each in found] for number, found in first.items()} == {
        number: [offset] for number, offset in offsets.items()
    }
    assert kept.keeper.taken_ms == dict.fromkeys(range(PARTITIONS), kept.world.now_ms)
    kept.take()
    assert [len(vault.list(number)) for number in range(PARTITIONS)] == [1] * PARTITIONS, "the journal has not grown"
    kept.order(40)
    for number, store in kept.stores().items():
        assert isinstance(vault, Vault)
        store.checkpoint(tmp_path / f"by-hand-{number}")  # type: ignore[attr-defined]
        manifest, new = vault.save(number, offsets[number] + 1, 0, JOURNAL, 0, tmp_path / f"by-hand-{number}")
        assert 0 < new < manifest.size


def test_a_worker_without_stores_begins_with_the_snapshots(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    done = kept.order(40)
    kept.take()
    offsets = {number: vault.list(number)[0].offset for number in range(PARTITIONS)}
    later = kept.order(8)
    elsewhere = RocksStores(tmp_path / "elsewhere")
    restoring = Restoring(elsewhere, vault, JOURNAL)
    with pytest.raises(StoreBusy, match="is being restored from a snapshot"):
        restoring.open(0)
    assert eventually(lambda: 0 in restoring._ready)
    store = restoring.open(0)
    assert Progress(store).at.offset == offsets[0]
    store.close()
    kept.begin(restoring)
    assert eventually(kept.all_owned)
    assert kept.world.engine.counters["store_wipes"] == 0
    for saga_id in later:
        assert kept.world.status(saga_id) is Status.COMPLETED
    partitions = [each.partition for each in kept.world.engine.tenures.values()]
    live = {saga_id for partition in partitions if partition for saga_id in partition.runs.live}
    assert live.isdisjoint(done), "they are in the stores, and were not read again"


def lose_a_file(vault: Vault, manifest: Manifest) -> None:
    only = {file.digest for file in manifest.files} - {
        file.digest for each in vault.list(manifest.partition)[1:] for file in each.files
    }
    vault.depot.delete(f"{_folder(manifest.partition)}/files/{sorted(only)[0]}")


def change_a_file(vault: Vault, manifest: Manifest) -> None:
    only = {file.digest for file in manifest.files} - {
        file.digest for each in vault.list(manifest.partition)[1:] for file in each.files
    }
    place = f"{_folder(manifest.partition)}/files/{sorted(only)[0]}"
    content = bytearray(vault.depot.read(place))
    content[len(content) // 2] ^= 1
    vault.depot.write(place, bytes(content))


def spoil_the_manifest(vault: Vault, manifest: Manifest) -> None:
    vault.depot.write(f"{_folder(manifest.partition)}/{manifest.name}", b'{"format": 2}')


@pytest.mark.parametrize("spoil", [lose_a_file, change_a_file, spoil_the_manifest])
def test_a_damaged_snapshot_is_passed_over_for_the_one_before_it(
    tmp_path: Path, vault: Vault, spoil: Callable[[Vault, Manifest], None]
) -> None:
    kept = Kept(tmp_path, vault)
    for _ in range(2):
        kept.order(20)
        kept.take()
    newest, older = vault.list(0)
    spoil(vault, newest)
    restoring = Restoring(RocksStores(tmp_path / "elsewhere"), vault, JOURNAL)
    assert offset_of(restoring) == older.offset
    restoring.wipe(0)
    assert offset_of(restoring) == -1, "each is tried once, then there is the journal"


def offset_of(restoring: Restoring) -> int:
    """Where the store of partition 0 stands once it is restored."""

    def opened() -> bool:
        try:
            stores.append(restoring.open(0))
        except StoreBusy:
            return False
        return True

    stores: list[Store] = []
    assert eventually(opened)
    offset = Progress(stores[0]).at.offset
    stores[0].close()
    return offset


def test_snapshots_of_another_journal_and_of_none_leave_an_empty_store(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    kept.order(20)
    kept.take()
    assert offset_of(Restoring(RocksStores(tmp_path / "a"), vault, "another")) == -1
    assert offset_of(Restoring(RocksStores(tmp_path / "b"), Vault(Depot(str(tmp_path / "nothing"))), JOURNAL)) == -1


def test_so_many_are_kept_and_nothing_else(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    for _ in range(KEEP + 2):
        kept.order(12)
        kept.take()
    manifests = vault.list(0)
    assert len(manifests) == KEEP
    assert list(manifests) == sorted(manifests, key=lambda each: -each.offset)
    needed = {file.digest for manifest in manifests for file in manifest.files}
    assert set(vault.depot.names(f"{_folder(0)}/files")) == needed
    for number, manifest in enumerate(manifests):
        vault.fetch(manifest, tmp_path / f"copy-{number}")


def test_snapshots_of_another_journal_stay_and_take_no_place(tmp_path: Path, vault: Vault) -> None:
    former = Kept(tmp_path / "former", vault)
    former.keeper = Keeper(vault, tmp_path / "other", "another", EVERY_MS)
    for _ in range(KEEP):
        former.order(20)
        former.take()
    kept = Kept(tmp_path / "now", vault)
    kept.order(4)
    kept.take()
    assert sorted(each.journal for each in vault.list(0)) == ["another"] * KEEP + [JOURNAL]
    for number, manifest in enumerate(vault.list(0)):
        vault.fetch(manifest, tmp_path / f"copy-{number}")


def test_stores_of_another_layout_are_wiped_until_the_journal_is_read(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    for _ in range(KEEP):
        kept.order(20)
        for store in kept.stores().values():
            store.write([(key, b"[]") for key, _ in store.scan(keys.RUNS)])
        kept.take()
    kept.begin(Restoring(RocksStores(tmp_path / "stores"), vault, JOURNAL))
    for _ in range(10):
        send_starts(kept.world, *[f"o-{number}" for number in range(20)])  # they are looked up, and in every snapshot
        for _ in range(20):
            kept.world.advance(1_000)
    assert eventually(kept.all_owned)
    wipes = kept.world.engine.counters["store_wipes"]
    assert 0 < wipes <= PARTITIONS * (1 + MAX_RESTORED)


def test_nothing_is_left_beside_the_stores(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    kept.order(20)
    kept.take()
    change_a_file(vault, vault.list(0)[0])
    assert offset_of(Restoring(RocksStores(tmp_path / "elsewhere"), vault, JOURNAL)) == -1
    assert [each.name for each in (tmp_path / "elsewhere").iterdir()] == ["partition-0"]
    (tmp_path / "scratch" / "partition-9").mkdir(parents=True)
    Keeper(vault, tmp_path / "scratch", JOURNAL, EVERY_MS)
    assert not (tmp_path / "scratch").exists()


def test_a_store_that_is_there_is_opened_at_once(tmp_path: Path, vault: Vault) -> None:
    kept = Kept(tmp_path, vault)
    kept.order(8)
    kept.take()
    stores = RocksStores(tmp_path / "elsewhere")
    stores.open(0).close()
    store = Restoring(stores, vault, JOURNAL).open(0)
    assert Progress(store).at.offset == -1
    store.close()


def test_a_place_that_cannot_be_reached_is_told_and_stops_nobody(tmp_path: Path) -> None:
    with pytest.raises(DepotFailed, match=r"nowhere://at-all.*Protocol not known"):
        Depot("nowhere://at-all")
    (tmp_path / "file").write_text("no directory")
    vault = Vault(Depot(str(tmp_path / "file")))
    kept = Kept(tmp_path, vault)
    kept.order(8)
    kept.take()
    assert (kept.keeper.failures, kept.keeper.taken_ms) == (PARTITIONS, {})
    assert offset_of(Restoring(RocksStores(tmp_path / "elsewhere"), vault, JOURNAL)) == -1


def test_a_manifest_names_files_of_its_own_directory_only(tmp_path: Path, vault: Vault) -> None:
    manifest = Manifest(0, 1, 0, JOURNAL, 1, [File("../outside", 0, "")])
    with pytest.raises(SnapshotDamaged, match=r"names the file '../outside'"):
        vault.fetch(manifest, tmp_path / "copy")
    assert not (tmp_path / "outside").exists()
