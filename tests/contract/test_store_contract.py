"""What every store does, run on each implementation."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from orchestrator.store.base import Store, StoreBroken, StoreBusy, StoreFull, Stores, after_prefix
from orchestrator.store.memory import MemoryStores
from orchestrator.store.rocks import RocksStores


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path / "state")


@pytest.fixture
def store(stores: Stores) -> Iterator[Store]:
    opened = stores.open(3)
    yield opened
    opened.close()


def fill(store: Store, *keys: bytes) -> None:
    store.write([(key, b"value of " + key) for key in keys])


def keys_of(entries: Iterator[tuple[bytes, bytes]]) -> list[bytes]:
    return [key for key, _ in entries]


def test_new_store_is_empty(store: Store) -> None:
    assert store.get(b"a") is None
    assert list(store.scan(b"")) == []


def test_written_is_visible_to_the_next_call(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"")])
    assert store.get(b"a") == b"1"
    assert store.get(b"b") == b""
    assert list(store.scan(b"")) == [(b"a", b"1"), (b"b", b"")]


def test_none_deletes(store: Store) -> None:
    fill(store, b"a", b"b")
    store.write([(b"a", None), (b"never there", None)])
    assert store.get(b"a") is None
    assert keys_of(store.scan(b"")) == [b"b"]


def test_last_of_repeated_keys_wins(store: Store) -> None:
    store.write([(b"a", b"1"), (b"a", None), (b"a", b"2"), (b"b", b"1"), (b"b", None)])
    assert list(store.scan(b"")) == [(b"a", b"2")]


def test_changes_may_come_from_a_generator(store: Store) -> None:
    store.write((bytes([n]), b"x") for n in range(5))
    assert len(list(store.scan(b""))) == 5


def test_no_change_at_all(store: Store) -> None:
    store.write([])
    assert list(store.scan(b"")) == []


def test_all_or_nothing(store: Store) -> None:
    def changes() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"a", b"1"
        raise LookupError("half way")

    with pytest.raises(LookupError):
        store.write(changes())
    assert store.get(b"a") is None


def test_scan_is_ascending_by_bytes(store: Store) -> None:
    fill(store, b"b", b"\xff", b"a\x00", b"a", b"", b"\x00", b"ab", b"\xff\xff")
    assert keys_of(store.scan(b"")) == [b"", b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff", b"\xff\xff"]


def test_scan_keeps_to_its_prefix(store: Store) -> None:
    fill(store, b"s", b"t", b"t1", b"t\xff", b"t\xff\xff", b"u", b"\xff", b"\xff\xff", b"\xff\xff1")
    assert keys_of(store.scan(b"t")) == [b"t", b"t1", b"t\xff", b"t\xff\xff"]
    assert keys_of(store.scan(b"t\xff")) == [b"t\xff", b"t\xff\xff"]
    assert keys_of(store.scan(b"\xff\xff")) == [b"\xff\xff", b"\xff\xff1"]
    assert keys_of(store.scan(b"tt")) == []


def test_scan_starts_inclusive(store: Store) -> None:
    fill(store, b"a9", b"b1", b"b2", b"b3", b"c1")
    assert keys_of(store.scan(b"b", b"b2")) == [b"b2", b"b3"]
    assert keys_of(store.scan(b"b", b"b1x")) == [b"b2", b"b3"]
    assert keys_of(store.scan(b"b", b"a")) == [b"b1", b"b2", b"b3"]
    assert keys_of(store.scan(b"b", b"b4")) == []
    assert keys_of(store.scan(b"b", b"c")) == []


def test_scan_ends_exclusive(store: Store) -> None:
    fill(store, b"a9", b"b1", b"b2", b"b3", b"c1")
    assert keys_of(store.scan(b"b", None, b"b2")) == [b"b1"]
    assert keys_of(store.scan(b"b", b"b2", b"b2x")) == [b"b2"]
    assert keys_of(store.scan(b"b", b"b2", b"c2")) == [b"b2", b"b3"]
    assert keys_of(store.scan(b"", b"b3", b"c1")) == [b"b3"]
    assert keys_of(store.scan(b"b", b"b3", b"b2")) == []
    assert keys_of(store.scan(b"b", None, b"a")) == []


def test_scan_sees_the_store_as_of_its_start(store: Store) -> None:
    fill(store, b"a", b"b", b"c", b"d")
    scan = store.scan(b"")
    fill(store, b"aa")
    assert next(scan) == (b"a", b"value of a")
    store.write([(b"b", b"new"), (b"c", None), (b"e", b"new")])
    store.write([(b"b", b"newer"), (b"c", b"again")])
    assert list(scan) == [(b"b", b"value of b"), (b"c", b"value of c"), (b"d", b"value of d")]
    assert keys_of(store.scan(b"")) == [b"a", b"aa", b"b", b"c", b"d", b"e"]


def test_scan_made_and_not_yet_used_began_when_made(store: Store) -> None:
    fill(store, b"a")
    scan = store.scan(b"")
    store.write([(b"a", None)])
    assert keys_of(scan) == [b"a"]


def test_scans_may_overlap_and_end_early(store: Store) -> None:
    fill(store, b"a", b"b", b"c")
    first, second = store.scan(b""), store.scan(b"b")
    assert next(first)[0] == b"a"
    assert next(second)[0] == b"b"
    del second
    assert keys_of(first) == [b"b", b"c"]
    assert list(first) == []


def test_reopened_store_has_what_was_written(stores: Stores) -> None:
    store = stores.open(0)
    fill(store, b"a", b"b")
    store.write([(b"a", None)])
    store.close()
    store = stores.open(0)
    assert keys_of(store.scan(b"")) == [b"b"]
    store.close()


def test_partitions_are_apart(stores: Stores) -> None:
    first, second = stores.open(0), stores.open(1)
    fill(first, b"a")
    assert second.get(b"a") is None
    first.close()
    fill(second, b"b")
    second.close()
    stores.wipe(0)
    second = stores.open(1)
    assert second.get(b"b") is not None
    second.close()


def test_wiped_store_is_empty(stores: Stores) -> None:
    store = stores.open(0)
    fill(store, b"a")
    store.close()
    stores.wipe(0)
    store = stores.open(0)
    assert store.get(b"a") is None
    store.close()


def test_wiping_nothing(stores: Stores) -> None:
    stores.wipe(7)


def test_open_store_is_neither_opened_again_nor_wiped(stores: Stores) -> None:
    store = stores.open(0)
    fill(store, b"a")
    with pytest.raises(StoreBusy, match="open"):
        stores.open(0)
    with pytest.raises(StoreBusy, match="open"):
        stores.wipe(0)
    assert store.get(b"a") is not None
    store.close()


def test_closed_store_refuses(stores: Stores) -> None:
    store = stores.open(0)
    fill(store, b"a", b"b")
    scan = store.scan(b"")
    next(scan)
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.get(b"a"),
        lambda: store.scan(b""),
        lambda: store.write([(b"a", b"")]),
        lambda: next(scan),
    ]
    for use in uses:
        with pytest.raises(StoreBroken):
            use()
    stores.open(0).close()


def test_agrees_with_a_dictionary(store: Store) -> None:
    chance = random.Random(7)
    expected: dict[bytes, bytes] = {}
    for _ in range(60):
        changes = [
            (chance.randbytes(chance.choice((1, 1, 2))), chance.choice((None, chance.randbytes(3))))
            for _ in range(chance.choice((1, 5, 200)))
        ]
        store.write(changes)
        for key, value in changes:
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
        prefix, start, end = chance.randbytes(chance.choice((0, 1))), chance.randbytes(1), chance.randbytes(1)
        wanted = sorted((k, v) for k, v in expected.items() if k.startswith(prefix) and k >= start)
        assert list(store.scan(prefix, start)) == wanted
        assert list(store.scan(prefix, start, end)) == [(k, v) for k, v in wanted if k < end]
    assert all(store.get(bytes([n])) == expected.get(bytes([n])) for n in range(256))


@pytest.mark.parametrize(
    ("prefix", "bound"),
    [(b"", None), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff", None), (b"\xff\xfe\xff", b"\xff\xff"), (b"\x00", b"\x01")],
)
def test_after_prefix(prefix: bytes, bound: bytes | None) -> None:
    assert after_prefix(prefix) == bound


@contextmanager
def without_room(stores: Stores) -> Iterator[None]:
    """No file may grow, as on a full disk."""
    if isinstance(stores, MemoryStores):
        stores.full = True
        yield
        stores.full = False
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_a_write_says_so_and_what_was_written_stays(stores: Stores) -> None:
    store = stores.open(3)
    fill(store, b"a")
    with without_room(stores):
        with pytest.raises(StoreFull):
            fill(store, b"b")
        assert store.get(b"a") == b"value of a"
        store.close()
        with pytest.raises(StoreFull), closing(stores.open(3)) as opened:
            fill(opened, b"b")
    again = stores.open(3)
    assert keys_of(again.scan(b"")) == [b"a"]
    fill(again, b"c")
    again.close()


def test_memory_store_outlives_its_process_and_reports_damage() -> None:
    stores = MemoryStores()
    store = stores.open(0)
    fill(store, b"a")
    stores.release()
    with pytest.raises(StoreBroken):
        store.get(b"a")
    store = stores.open(0)
    assert store.get(b"a") is not None
    stores.damage(0)
    with pytest.raises(StoreBroken):
        store.get(b"a")
    store.close()
    with pytest.raises(StoreBroken):
        stores.open(0)
    stores.wipe(0)
    assert stores.open(0).get(b"a") is None


def missing(store: Store, keys: list[bytes]) -> list[bytes]:
    return [key for key in keys if store.get(key) is None]


def damage_tables(path: Path) -> None:
    for table in path.glob("*.sst"):
        content = bytearray(table.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        table.write_bytes(content)


def damaged_store(folder: Path) -> tuple[RocksStores, Store]:
    """A store of 20,000 entries that is open, and whose tables are damaged."""
    stores = RocksStores(folder)
    store = stores.open(0)
    chance = random.Random(1)
    store.write([(b"%06d" % n, chance.randbytes(100)) for n in range(20_000)])
    store.close()
    damage_tables(folder / "partition-0")
    return stores, stores.open(0)


def test_damaged_table_raises_and_never_ends_a_scan_early(tmp_path: Path) -> None:
    stores, store = damaged_store(tmp_path)
    with pytest.raises(StoreBroken, match="partition-0"):
        list(store.scan(b""))
    with pytest.raises(StoreBroken, match="partition-0"):
        missing(store, [b"%06d" % n for n in range(20_000)])
    store.close()
    stores.wipe(0)
    store = stores.open(0)
    assert list(store.scan(b"")) == []
    store.close()


def test_store_is_wiped_while_the_error_of_a_scan_is_handled(tmp_path: Path) -> None:
    """The error holds the frames that it came through, and those the scan."""
    stores, store = damaged_store(tmp_path)
    scan = store.scan(b"")
    with pytest.raises(StoreBroken, match="partition-0") as caught:
        list(scan)
    store.close()
    stores.wipe(0)
    assert caught.value.__traceback__ is not None
    stores.open(0).close()


def write_until_merged(store: Store, chance: random.Random) -> None:
    for _ in range(400):
        store.write([(b"%06d" % n, chance.randbytes(1_000)) for n in range(0, 20_000, 200)])


def test_store_that_breaks_while_it_is_written_can_be_closed_and_wiped(tmp_path: Path) -> None:
    """Damage in a table may be met first when tables are merged: then writing fails, and closing would say so again."""
    stores, store = damaged_store(tmp_path)
    with pytest.raises(StoreBroken, match="partition-0"):
        write_until_merged(store, random.Random(2))
    store.close()
    stores.wipe(0)
    store = stores.open(0)
    assert list(store.scan(b"")) == []
    store.close()


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_damaged_directory_is_broken_and_can_be_wiped(tmp_path: Path, pattern: str) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open(0)
    fill(store, b"a")
    store.close()
    for path in (tmp_path / "partition-0").glob(pattern):
        path.write_bytes(b"not what it was\n")
    with pytest.raises(StoreBroken) as caught:
        stores.open(0)
    assert not isinstance(caught.value, StoreBusy)
    stores.wipe(0)
    stores.open(0).close()


def test_file_in_the_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "partition-0").write_text("")
    stores = RocksStores(tmp_path)
    with pytest.raises(StoreBroken):
        stores.open(0)
    stores.wipe(0)
    stores.open(0).close()


OTHER_PROCESS = """
import os, sys
from pathlib import Path
from orchestrator.store.rocks import RocksStores
store = RocksStores(Path(sys.argv[1])).open(0)
store.write([(b"a", b"1")])
print("open", flush=True)
sys.stdin.read()
os._exit(1)
"""


def test_store_of_another_process_is_busy_until_it_dies_and_keeps_its_writes(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy, match="another process"):
            stores.open(0)
        with pytest.raises(StoreBusy, match="another process"):
            stores.wipe(0)
        other.communicate("")
    store = stores.open(0)
    assert store.get(b"a") == b"1"
    store.close()


@pytest.mark.parametrize(("budget", "flushed"), [(1 << 20, True), (64 << 20, False)])
def test_stores_share_one_budget_of_memtables(tmp_path: Path, budget: int, flushed: bool) -> None:
    stores = RocksStores(tmp_path, memtable_bytes=budget)
    opened = [stores.open(partition) for partition in range(8)]
    for number in range(300):
        for store in opened:  # each a tenth of what fills a memtable of its own
            store.write([(b"%06d" % number, bytes(1_000))])
    deadline = time.monotonic() + 10
    while flushed and not any(tmp_path.rglob("*.sst")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert any(tmp_path.rglob("*.sst")) == flushed
    for store in opened:
        store.close()


def test_reopened_stores_share_one_cache(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    chance = random.Random(2)
    for partition in (0, 1):
        store = stores.open(partition)
        store.write([(b"%06d" % n, chance.randbytes(100)) for n in range(5_000)])
        store.close()
    usage = []
    for partition in (0, 1):
        store = stores.open(partition)
        assert len(list(store.scan(b""))) == 5_000
        usage.append(stores.cache_usage())
        store.close()
    assert usage[0] > 400_000
    assert usage[1] > usage[0] + 400_000
