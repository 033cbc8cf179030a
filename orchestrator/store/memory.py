"""A store in one process's memory: for tests, simulation and trying things out.

Nothing is copied for a scan. Keys are sorted when a scan begins: a few changed keys are put in their places (in a new
list if an older scan still walks over this one), many sort everything again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from weakref import ref

from orchestrator.store.base import Change, StoreBroken, StoreBusy, StoreFull, bound_of

_RESORT = 64
"""Changed keys from which sorting all again (about 0.1 µs a key when nearly sorted) beats placing each (0.5 µs)."""


class MemoryStores:
    """Stores that outlive `close`, as directories do, and end with this object."""

    def __init__(self) -> None:
        self._tables: dict[int, _Table] = {}
        self.full = False
        """Whether all writes are refused, as on a full disk."""

    def open(self, partition: int) -> MemoryStore:
        table = self._tables.setdefault(partition, _Table())
        if table.damaged:
            raise StoreBroken(f"the store of partition {partition} was declared damaged")
        if table.user is not None:
            raise StoreBusy(f"the store of partition {partition} is open already")
        table.user = MemoryStore(table, lambda: self.full)
        return table.user

    def wipe(self, partition: int) -> None:
        table = self._tables.get(partition)
        if table is not None and table.user is not None:
            raise StoreBusy(f"the store of partition {partition} is open: close it before wiping it")
        self._tables.pop(partition, None)

    def release(self) -> None:
        """Ends every open store as the death of its process would: what was written stays, the old handles fail."""
        for table in self._tables.values():
            if table.user is not None:
                table.user.close()

    def peek(self, partition: int) -> MemoryStore:
        """The partition's store to be looked at only, whoever has it open, and also if it is damaged."""
        table = self._tables.get(partition) or _Table()
        if table.user is not None and not table.damaged:
            return table.user
        view = _Table()
        view.values = table.values
        view.changed.update(table.values)
        return MemoryStore(view)

    def damage(self, partition: int) -> None:
        """Makes every call on the partition's store raise `StoreBroken` until it is closed and wiped."""
        self._tables.setdefault(partition, _Table()).damaged = True


class _Table:
    """What stays when a store is closed."""

    __slots__ = ("changed", "damaged", "keys", "user", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        """All keys, sorted, as of the last scan."""
        self.changed: set[bytes] = set()
        """Keys added or deleted since."""
        self.damaged = False
        self.user: MemoryStore | None = None

    def sorted_keys(self, shared: bool) -> list[bytes]:
        keys, values, changed = self.keys, self.values, self.changed
        if not changed:
            return keys
        if len(changed) > _RESORT:
            self.keys = keys = sorted(values)
        else:
            if shared:
                self.keys = keys = keys.copy()
            for key in changed:
                at = bisect_left(keys, key)
                present = at < len(keys) and keys[at] == key
                if present and key not in values:
                    del keys[at]
                elif not present and key in values:
                    keys.insert(at, key)
        changed.clear()
        return keys


class MemoryStore:
    """One partition's store."""

    def __init__(self, table: _Table, is_full: Callable[[], bool] = lambda: False) -> None:
        self._table = table
        self._is_full = is_full
        self.values = table.values
        self._scans: list[ref[_Scan]] = []
        """Of those that may still be walking; who has gone is struck off at the next write."""
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        if self._closed or self._table.damaged:
            self.check()
        return self.values.get(key)

    def scan(
        self, prefix: bytes, start: bytes | None = None, end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        self.check()
        keys = self._table.sorted_keys(shared=bool(self._scans))
        low = bisect_left(keys, prefix if start is None or start < prefix else start)
        bound = bound_of(prefix, end)
        high = len(keys) if bound is None else bisect_left(keys, bound)
        scan = _Scan(self, keys, low, high)
        self._scans.append(ref(scan))
        return scan

    def write(self, changes: Iterable[Change]) -> None:
        self.check()
        if self._is_full():
            raise StoreFull("no space left on device")
        batch = dict(changes)
        values, changed = self.values, self._table.changed
        if self._scans:
            self._scans = [walking for walking in self._scans if (scan := walking()) is not None and scan.keep(batch)]
        for key, value in batch.items():
            if value is None:
                if values.pop(key, None) is not None:
                    changed.add(key)
            else:
                if key not in values:
                    changed.add(key)
                values[key] = value

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._table.user = None

    def check(self) -> None:
        if self._closed:
            raise StoreBroken("the store is closed")
        if self._table.damaged:
            raise StoreBroken("the store was declared damaged")


class _Scan:
    """An iterator over the keys of its start; writes hand it the values they are about to replace."""

    __slots__ = ("__weakref__", "_at", "_end", "_kept", "_keys", "_store")

    def __init__(self, store: MemoryStore, keys: list[bytes], at: int, end: int) -> None:
        self._store = store
        self._keys = keys
        self._at = at
        self._end = end
        self._kept: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        self._store.check()
        at = self._at
        if at >= self._end:
            raise StopIteration
        self._at = at + 1
        key = self._keys[at]
        value = self._kept.get(key)
        return key, self._store.values[key] if value is None else value

    def keep(self, keys: Iterable[bytes]) -> bool:
        """Remembers what is about to be replaced; whether it is still on its way."""
        for key in keys:
            value = self._store.values.get(key)
            if value is not None:
                self._kept.setdefault(key, value)
        return self._at < self._end
