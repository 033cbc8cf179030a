"""Stores that are damaged on purpose, and C7: a store is compared with a replay of its journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from orchestrator.chaos import stores
from orchestrator.chaos.judge import judge
from orchestrator.checker.evidence import Evidence
from orchestrator.checker.stores import compare_stores, replayed
from orchestrator.log.base import Record
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.replica import Replica
from orchestrator.store.base import StoreBroken
from orchestrator.store.rocks import RocksStores
from tests.unit.test_chaos_report import evidence

PARTITION = 0


def journal() -> Sequence[Record]:
    return evidence().journal[PARTITION]


def build(folder: Path, upto: int) -> Path:
    """A worker's store as it is after so many records. Returns its directory."""
    root = folder / "state" / "worker-1" / "stores" / "worker-0"
    store = RocksStores(root).open(PARTITION)
    replay = Replica(store)
    for record in journal()[:upto]:
        replay.feed(record.offset, record.timestamp_ms, record.value)
    replay.flush()
    store.close()
    return root / f"partition-{PARTITION}"


def violations(directories: list[Path], *, damaged: frozenset[Path] = frozenset()) -> list[str]:
    given: Evidence = evidence()
    found = judge(given, stores={PARTITION: directories}, damaged=damaged, kills=(), faults=(), lost=())
    return found.verdict.violations


def test_a_replay_stands_still_at_each_offset() -> None:
    half, last = 3, len(journal()) - 1
    seen = {at: (Progress(store).at.offset, len(store.values)) for at, store in replayed(journal(), [last, half])}
    assert list(seen) == [half, last]
    assert seen[half][0] <= half < seen[last][0] <= last
    assert seen[half][1] < seen[last][1]


def test_a_store_is_what_the_journal_says_up_to_its_offset(tmp_path: Path) -> None:
    early, late = build(tmp_path / "a", len(journal()) // 2), build(tmp_path / "b", len(journal()))
    assert violations([early, late]) == []


def test_a_store_that_differs_in_one_value_is_found(tmp_path: Path) -> None:
    directory = build(tmp_path, len(journal()))
    store = RocksStores(directory.parent).open(PARTITION)
    key, value = next(store.scan(b"r"))
    store.write([(key, value + b" ")])
    ((name, _, difference),) = compare_stores(journal(), {"mine": store})
    assert name == "mine"
    assert repr(key[:60]) in difference
    store.write([(key, value), (b"zz", b"more")])
    ((_, _, difference),) = compare_stores(journal(), {"mine": store})
    assert "zz" in difference
    store.write([(b"zz", None), (key, None)])
    store.close()
    (violation,) = violations([directory])
    assert violation.startswith("C7: worker-1's store of partition-0 at offset")
    assert "entries" in violation


def test_a_store_that_cannot_be_read_is_a_flaw_unless_it_was_damaged_on_purpose(tmp_path: Path) -> None:
    directory = build(tmp_path, len(journal()))
    for file in directory.glob("*.log"):
        file.write_bytes(b"")
    for file in (*directory.glob("MANIFEST*"), *directory.glob("*.sst")):
        file.write_bytes(b"rubbish" * 20)
    (violation,) = violations([directory])
    assert "cannot be read, and nobody damaged it" in violation
    assert violations([directory], damaged=frozenset([directory])) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_store_is_refused_or_is_an_earlier_one(tmp_path: Path, seed: int) -> None:
    """What the engine counts on: it never reads something else than was written."""
    directory, random = build(tmp_path, len(journal())), Random(seed)
    hit = stores.flip_bits([directory], random) if seed % 2 else stores.cut([directory], random)
    assert hit == 1
    try:
        store = RocksStores(directory.parent).open(PARTITION)
        for _ in store.scan(b""):
            pass
    except StoreBroken:
        return
    assert all(not difference for _, _, difference in compare_stores(journal(), {"mine": store}))
    store.close()


def test_stores_are_deleted(tmp_path: Path) -> None:
    directory = build(tmp_path, 3)
    assert stores.delete([directory]) == 1
    assert not directory.exists()
    assert stores.flip_bits([], Random(1)) == stores.cut([], Random(1)) == 0
