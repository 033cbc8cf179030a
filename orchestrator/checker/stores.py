"""C7: what a store holds is what a replay of its journal from zero gives at the same offset, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.log.base import Record
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.replica import Replica
from orchestrator.store.base import Store
from orchestrator.store.memory import MemoryStore, MemoryStores


def replayed(records: Iterable[Record], offsets: Iterable[int]) -> Iterator[tuple[int, MemoryStore]]:
    """A replay of one partition's journal, with its store as it is at each of these offsets, ascending.

    It is the same store each time, moved on: look at it before the next. Raises `JournalHalted`, `UnreadableRecord`.
    """
    rebuilt = MemoryStores().open(0)
    replay = Replica(rebuilt)
    stops = iter(sorted(offsets))
    stop = next(stops, None)
    for record in records:
        while stop is not None and record.offset > stop:
            replay.flush()
            yield stop, rebuilt
            stop = next(stops, None)
        if stop is None:
            return
        replay.feed(record.offset, record.timestamp_ms, record.value)
    while stop is not None:
        replay.flush()
        yield stop, rebuilt
        stop = next(stops, None)


def compare_stores(records: Iterable[Record], stores: Mapping[str, Store]) -> Iterator[tuple[str, int, str]]:
    """Name and offset of each of one partition's stores, and what is wrong with it, which is empty where nothing is.

    A store that holds nothing yet is passed over. Raises as `replayed`, and `StoreBroken` where one cannot be read.
    """
    places = {name: Progress(store).at.offset for name, store in stores.items()}
    for offset, rebuilt in replayed(records, {offset for offset in places.values() if offset >= 0}):
        for name in (name for name, at in places.items() if at == offset):
            yield name, offset, _difference(stores[name], rebuilt)


def _difference(store: Store, rebuilt: MemoryStore) -> str:
    found, expected = store.scan(b""), rebuilt.values
    seen = 0
    for key, value in found:
        if expected.get(key) != value:
            return f"{key[:60]!r} holds {value[:60]!r}, the replay {expected.get(key, b'nothing')[:60]!r}"
        seen += 1
    return "" if seen == len(expected) else f"it has {seen} entries, the replay {len(expected)}"
